"""`pricetide backtest LOG --report PAGE` at the terminal: progress while it works, then the verdicts and the files.

Not here: the option itself (backtest.commands).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from backtest.estimates import Settings
from backtest.report.study import Ask, files_of, write_report
from backtest.what_if import Wanted


def report(
    wanted: Wanted, policies: Sequence[Path], page: Path, truth: Path | None = None, planned: int | None = None
) -> None:
    """Write the report to `page`, and say what came out; see write_report, and Settings for `planned`."""
    if any((wanted.prices, wanted.decisions, wanted.outcomes, wanted.dead_letters, wanted.draws)):
        raise click.UsageError(
            "--report has files of its own, beside the page: leave other outputs to a run without it"
        )
    if page.suffix not in (".html", ".htm"):
        raise click.UsageError(f"--report {page} is not the name of a page: let it end in .html")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def move(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title)
            progress.update(tasks[title], completed=done, total=total)

        figures = write_report(Ask(wanted, policies, Settings(planned=planned), truth), page, move)
    for _, row in figures.where("verdict", measure="verdict"):
        why = figures.where("verdict", policy=row.policy, measure="why")
        click.echo(f"{row.policy}: {row.text}" + (f" ({why[0][1].text})" if why else ""))
        for _, limit in figures.where("scope", measure="limit", policy=row.policy):
            click.echo(f"  {limit.text}")
    for measure in ("reward", "intervals"):
        for _, row in figures.where("scope", measure=measure):
            click.echo(row.text)
    files = files_of(page)
    click.echo(f"report in {files.page}; its figures in {files.figures_json} and {files.figures_parquet}")
