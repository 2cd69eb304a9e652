"""`pricetide explain`: why a price is what it is, and whether its record agrees with itself and with what stands behind it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from pricing.sentences import Language

_path = click.Path(path_type=Path)


@click.command()
@click.argument("decision_id", metavar="DECISION")
@click.option("--user", help="Whose decision it is: then one partition is searched only.")
@click.option("--shadow", is_flag=True, help="What a shadow policy decided of that draw, on its own topic.")
@click.option(
    "--file", type=_path, help="Search this file of decisions (`pricetide backtest --decisions`, or JSON lines)."
)
@click.option("--log", type=_path, help="With --file: the log that it was made from, which has policies and catalogue.")
@click.option("--language", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@with_settings
def explain(
    settings: Settings,
    decision_id: str,
    user: str | None,
    shadow: bool,
    file: Path | None,
    log: Path | None,
    language: Language,
    as_json: bool,
) -> None:
    """Explain the price of DECISION, a decision id; exit with 1 if its record does not agree with itself."""
    from contracts.decisions import Applied
    from pricing.explanation import explain_decision
    from streams import decision_search, explain_pages
    from streams.console import wide_console

    if log is not None and file is None:
        raise click.UsageError("--log goes with --file; without it the decision is looked for on the topic")
    if shadow and file is not None:
        raise click.UsageError("--shadow is of the topic: name the file of the shadow's decisions instead")
    if file is None:
        case = decision_search.on_topics(settings, decision_id, user, shadow=shadow)
    else:
        case = decision_search.in_files(file, log, decision_id)
    if isinstance(case.record, Applied):
        sentence = explain_pages.applied_page(case.record, language)
        click.echo(msgspec.json.encode({"sentence": sentence, "record": case.record}) if as_json else sentence)
        return
    explanation = explain_decision(case.record, case.background, case.behind_draw)
    if as_json:
        plain = explain_pages.as_json(explanation, language)
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2))
    else:
        wide_console().print(explain_pages.page(explanation, language))
    if any(check.agrees is False for check in explanation.checks):
        raise SystemExit(1)
