"""The commands of the operator beside the worker: `pricetide topics`, `pricetide killswitch`, `pricetide doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec
from rich.table import Table
from rich.text import Text

from contracts.policies import KillSwitch
from streams.console import wide_console
from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.topics import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


def show_findings(title: str, findings: list[Finding], as_json: bool) -> None:
    """Print findings and exit with 1 if one is wrong."""
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings), indent=2))
    else:
        table = Table(title=title, title_justify="left", show_lines=False)
        table.add_column("", no_wrap=True)
        table.add_column("what", overflow="fold")
        table.add_column("found", overflow="fold")
        table.add_column("what to do", overflow="fold")
        for finding in findings:
            table.add_row(
                Text(finding.level, _COLOURS[finding.level]), finding.subject, finding.message, finding.remedy
            )
        wide_console().print(table)
    if any(finding.level == "wrong" for finding in findings):
        raise SystemExit(1)


@click.group()
def topics() -> None:
    """Make and check the topics of a deployment."""


@topics.command()
@with_settings
def create(settings: Settings) -> None:
    """Create the topics that are missing, with their configurations, and check all of them."""
    from streams.topics import check_topics, create_topics

    created = create_topics(settings)
    click.echo(f"created: {', '.join(created)}" if created else "every topic exists already")
    wrong = [finding for finding in check_topics(settings) if finding.level != "ok"]
    if wrong:
        show_findings(f"Topics at {settings.kafka.bootstrap_servers}", wrong, as_json=False)


@topics.command()
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
@with_settings
def check(settings: Settings, as_json: bool) -> None:
    """Compare the topics with what they must be; exit with 1 if one is wrong."""
    from streams.topics import check_topics

    show_findings(f"Topics at {settings.kafka.bootstrap_servers}", check_topics(settings), as_json)


@click.command()
@click.argument("state", type=click.Choice(["on", "off"]))
@click.option("--reason", default="", help="Why; stands in the record.")
@with_settings
def killswitch(settings: Settings, state: str, reason: str) -> None:
    """Return everybody to list price (on), or end that (off)."""
    from streams.kill_switch import throw_kill_switch

    book = throw_kill_switch(settings, KillSwitch(on=state == "on", reason=reason))
    if book.kill_switch:
        click.echo(f"The kill switch is on: from their next event everybody pays list price. "
                   f"{book.current.version} prices again when it is off.")  # fmt: skip
    else:
        click.echo(f"The kill switch is off: {book.current.version} sets prices.")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
@with_settings
def doctor(settings: Settings, as_json: bool) -> None:
    """Say what is wrong with this set-up and what to do; exit with 1 if something is."""
    from streams.doctor import examine

    show_findings(f"Examined {settings.kafka.bootstrap_servers}, group {settings.group!r}", examine(settings), as_json)
