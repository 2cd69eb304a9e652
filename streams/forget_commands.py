"""`pricetide forget USER`: forget a person, and see what is left. For operators and data protection officers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from streams.console import wide_console
from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.forget import Report


@click.command()
@click.argument("user")
@click.option("--check", is_flag=True, help="Only read every topic, and say where USER still appears.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until the partition's owner has carried it out.",
)
@click.option("--event-time-ms", type=int, metavar="MS",
              help="Event time of the request, by default now. Where an old log is replayed, one of its times: now would end "
                   "every window and offer of the partition.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what --check finds as JSON.")
@with_settings
def forget(
    settings: Settings, user: str, check: bool, yes: bool, wait_s: float, event_time_ms: int | None, as_json: bool
) -> None:
    """Erase USER: state, open offers, published prices, decisions and outcomes. Their prices are list prices from then on.

    With --check it changes nothing, and exits with 1 while something of before the erasure is left.
    """
    if check:
        _check(settings, user, as_json)
        return
    if not yes:
        click.confirm(f"Erase everything of user {user!r}? There is no way back", abort=True)
    from streams.forget import ErasureWatch, request_erasure

    watch = ErasureWatch(settings, user)
    watch.read()
    before = 0 if watch.erasure is None else watch.erasure.version
    request_erasure(settings, user, time.time_ns() // 1_000_000 if event_time_ms is None else event_time_ms)
    click.echo(f"Asked for the erasure of {user!r} on {settings.topics.consents}.")
    if not wait_s:
        return
    with Console().status("waiting for the owner of the partition"):
        done = watch.wait(before, wait_s)
    if not done:
        click.echo(
            f"It is not carried out after {wait_s:g} s: no worker runs, or it is still reading what it has published. "
            "Nothing is lost by that; `pricetide forget --check` says how it stands, `pricetide dlq list` whether workers "
            "refused the request, by a clock that is ahead of theirs."
        )
        raise SystemExit(1)
    click.echo(
        "Carried out: the state is gone, every published record has its tombstone, and the brokers drop them as they "
        "compact. `pricetide forget --check` says what is left meanwhile."
    )


def _check(settings: Settings, user: str, as_json: bool) -> None:
    from streams.forget import look_for

    with Progress(console=Console(stderr=True), transient=True) as progress:
        tasks = {}

        def show(topic: str, read: int, total: int) -> None:
            if topic not in tasks:
                tasks[topic] = progress.add_task(topic, total=total)
            progress.update(tasks[topic], completed=read)

        report = look_for(settings, user, show)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2))
    else:
        table = Table(title=f"records that name user {user}", title_justify="left")
        for column in ("topic", "left", "until compaction", "since the erasure", "on other partitions"):
            table.add_column(column, justify="left" if column == "topic" else "right")
        table.add_column("what removes them")
        for topic in report.topics:
            counts: tuple[int | str, ...] = (topic.left, "", "", "")
            means = "the topic's retention"
            if topic.compacted:
                counts = (topic.left, topic.taken_back, topic.since, topic.elsewhere)
                means = "erasure, then compaction" + ("; on other partitions, retention" if topic.elsewhere else "")
            table.add_row(topic.topic, *(f"{count:,}" if count != "" else "" for count in counts), means)
        wide_console().print(table)
        click.echo(verdict(report))
    if not report.clean:
        raise SystemExit(1)


def verdict(report: Report) -> str:
    """Return in one sentence how it stands."""
    user = report.user
    if not report.requested:
        return f"No erasure of {user!r} was applied: `pricetide forget` asks for one."
    if not report.carried_out:
        return f"The erasure of {user!r} is under way: the partition's owner is reading what it has published."
    if not report.clean:
        return (
            f"The erasure of {user!r} is carried out, but records of before it are left: run `pricetide forget` again."
        )
    return f"The erasure of {user!r} is carried out; what stands above goes by compaction and by retention."
