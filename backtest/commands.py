"""The command line of this room: import, generate, perturb, backtest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contracts.log import Manifest
from contracts.log_files import Format
from contracts.semantics import Topology

_out = click.option("--out", "out", type=click.Path(path_type=Path), required=True, help="Directory of the new log.")
_format = click.option(
    "--format", "file_format", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True
)
_partitions = click.option(
    "--partitions", type=click.IntRange(1, 4096), default=4, show_default=True, help="Of every input topic."
)
_directory = click.argument("directory", type=click.Path(path_type=Path))


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on stderr; yields the function that moves it to (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _tell(directory: Path, manifest: Manifest) -> None:
    for topic, counts in manifest.records.items():
        click.echo(f"{topic}: {sum(counts):,} records on {len(counts)} partitions")
    click.echo(f"catalogue: {manifest.tables['catalogue'].rows:,} versions")
    click.echo(f"log in {directory}; its manifest.json says which rows are synthetic")


@click.group("import")
def import_group() -> None:
    """Turn a public log into one of ours."""


@import_group.command()
@click.argument("file", type=click.Path(path_type=Path))
@_out
@_partitions
@_format
def rees46(file: Path, out: Path, partitions: int, file_format: Format) -> None:
    """Import the REES46 log FILE: its CSV, csv.gz or Parquet."""
    from backtest.rees46 import import_rees46

    with _bar("import") as progress:
        imported = import_rees46(file, out, Topology(partitions=partitions), file_format, progress)
    _tell(out, imported.manifest)
    click.echo(f"{imported.users:,} users, {imported.items:,} items, {imported.unpriced:,} rows without a price")


@click.command()
@_out
@click.option("--users", type=click.IntRange(1), default=300, show_default=True)
@click.option("--events", type=click.IntRange(1), default=5_000, show_default=True, help="Consents come on top.")
@click.option("--seed", type=int, default=1, show_default=True)
@_partitions
@_format
def generate(out: Path, users: int, events: int, seed: int, partitions: int, file_format: Format) -> None:
    """Write a log of generated shoppers; equal options give equal files."""
    from backtest.shoppers import generate_log

    _tell(out, generate_log(out, users, events, seed, Topology(partitions=partitions), file_format))


_share = click.FloatRange(0.0, 1.0)


@click.command()
@_directory
@_out
@click.option("--late", type=_share, default=0.02, show_default=True, help="Share of rows that come late.")
@click.option("--duplicates", type=_share, default=0.01, show_default=True, help="Share of events that come twice.")
@click.option("--consents", type=_share, default=0.01, show_default=True, help="Share of events with a new consent.")
@click.option("--erasures", type=_share, default=0.0, show_default=True, help="Share of events with an erasure.")
@click.option("--catalogue", type=_share, default=0.1, show_default=True, help="Share of items with a new price.")
@click.option("--seed", type=int, default=1, show_default=True)
@_format
def perturb(
    directory: Path,
    out: Path,
    late: float,
    duplicates: float,
    consents: float,
    erasures: float,
    catalogue: float,
    seed: int,
    file_format: Format,
) -> None:
    """Write the log in DIRECTORY again, with late and repeated events, changing consents and list prices."""
    from backtest.perturb import Perturbation, perturb_log

    _tell(
        out,
        perturb_log(directory, out, seed, Perturbation(late, duplicates, consents, catalogue, erasures), file_format),
    )


@click.command()
@_directory
@click.option("--out", "prices", type=click.Path(path_type=Path), help="Parquet file of the price updates.")
@click.option("--decisions", type=click.Path(path_type=Path), help="Parquet file of the decisions.")
@click.option("--outcomes", type=click.Path(path_type=Path), help="Parquet file of the outcomes of draws.")
@click.option(
    "--shadow-decisions", type=click.Path(path_type=Path), help="Parquet file of what the log's shadow policy decided."
)
@click.option("--dead-letters", type=click.Path(path_type=Path), help="JSON lines of the dead letters.")
@click.option(
    "--policy",
    "policies",
    type=click.Path(path_type=Path),
    multiple=True,
    help="TOML file of a policy that prices the log's events in the place of its own, as a what-if of its own.",
)
@click.option(
    "--draws",
    type=click.Path(path_type=Path),
    help="Parquet file of the logged draws, with the probabilities of each --policy there.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="HTML page of what came out, and of what each --policy would have earned, with its figures in files beside it.",
)
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    help="With --report: what simulated shoppers would have paid, as `shoppers --out` wrote it; else what lies beside the log.",
)
@click.option(
    "--planned",
    type=click.IntRange(1),
    help="With --report: draws with a choice to be looked at in all, if the log is judged again and again as it grows; the same "
    "number at every look. Intervals that judge hold at all looks then; else they are for one look.",
)
@click.option("--as-of", metavar="TIME", help="See only what was known then: ISO 8601 (UTC), or milliseconds.")
@click.option(
    "--order",
    type=click.Choice(["merged", "arrival"]),
    default="merged",
    show_default=True,
    help="Of a log that was not recorded: by event time, as if all lay in Kafka, or as it arrived.",
)
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Changes no byte.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="Directory to keep progress in: after a kill, the same command goes on from there.",
)
@click.option(
    "--memory", type=click.IntRange(16), default=1_024, show_default=True, help="MiB for states; changes no byte."
)
@click.option("--batch", type=click.IntRange(1), default=2_048, show_default=True, help="Changes no byte.")
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Directory of the artifact in force. Of a log that `record` captured each one that was, in any order.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def backtest(
    directory: Path,
    policies: tuple[Path, ...],
    report: Path | None,
    truth: Path | None,
    planned: int | None,
    as_of: str | None,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the fields of Wanted
) -> None:
    """Replay the log in DIRECTORY through the engine that workers run, and say what came out.

    Each --policy is replayed besides as a what-if: the prices that it would publish, without outcomes, in files of their
    own (prices.what-if-NAME.parquet). What it would earn, only the logged draws can tell: see --draws and --report.
    """
    from backtest.summary import table_of
    from backtest.what_if import Wanted, backtest_all, time_of

    wanted = Wanted(directory=directory, as_of=inf if as_of is None else time_of(as_of), **given)
    if report is not None:
        from backtest.report.command import report as write_page

        write_page(wanted, policies, report, truth, planned)
        return
    for option, given_one in (("--truth", truth), ("--planned", planned)):
        if given_one is not None:
            raise click.UsageError(f"{option} is for a report: name its page with --report, too")
    with _bar("backtest") as progress:
        found = backtest_all(wanted, policies, progress)
    if as_json:
        whole = msgspec.to_builtins(found.logged) | ({"what_if": found.what_ifs} if policies else {})
        click.echo(msgspec.json.format(msgspec.json.encode(whole), indent=2))
        return
    console = Console()
    console.print(table_of(found.logged))
    for name, summary in found.what_ifs.items():
        console.print(table_of(summary, f"What if {name} had priced"))
