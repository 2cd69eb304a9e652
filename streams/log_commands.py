"""The commands that carry logs to Kafka and back: `pricetide produce`, `pricetide record`, `pricetide digest`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from contracts.errors import BadInput
from streams.options import with_settings
from streams.settings import Settings, TopicSettings

if TYPE_CHECKING:
    from contracts.digest import PublishedDigest
    from contracts.log import Manifest, Offers
    from contracts.log_files import Format

DEFAULT_PARTITIONS = TopicSettings().partitions


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), help="Times real time; without it, as fast as it goes."
)
@click.option(
    "--tick-ms", type=click.IntRange(1, 1_000), default=5, show_default=True,
    help="With --speed: send what is due within so long at once; longer makes fewer and larger batches.",
)  # fmt: skip
@click.option("--topics-create", is_flag=True, help="Create topics that are missing first.")
@with_settings
def produce(settings: Settings, directory: Path, speed: float | None, tick_ms: int, topics_create: bool) -> None:
    """Put the log at DIRECTORY into Kafka: catalogue and policies, then consents and events in production order."""
    from contracts.log import open_log
    from streams.produce import check_partitions, check_target
    from streams.produce import produce as send
    from streams.topics import create_topics

    log = open_log(directory)
    if topics_create:
        check_partitions(settings, log)
        create_topics(settings)
    for warning in check_target(settings, log):
        click.echo(f"warning: {warning}", err=True)
    total = sum(sum(counts) for counts in log.manifest.records.values())
    begun = time.monotonic()
    with _progress() as progress:
        task = progress.add_task("producing", total=total)
        count = send(
            settings, log, speed=speed, tick_s=tick_ms / 1000, progress=lambda sent: progress.update(task, advance=sent)
        )
    seconds = time.monotonic() - begun
    click.echo(f"produced {count} records in {seconds:.1f} s ({count / seconds:,.0f}/s)")
    click.echo(f"a worker that gives the prices of this log's backtest: pricetide worker {worker_flags(log.manifest)}")


def worker_flags(manifest: Manifest) -> str:
    """Return the flags with which a worker has the semantics and topology of a log, as far as they are not defaults."""
    from contracts.semantics import Semantics, Topology

    semantics, topology = manifest.semantics, manifest.topology
    flags = [f"--consent-default {'granted' if semantics.consent_default else 'denied'}"]
    for group, ours, theirs in (
        ("semantics", semantics, Semantics(consent_default=semantics.consent_default)),
        ("topics", topology, Topology(partitions=DEFAULT_PARTITIONS)),
    ):
        for field in ours.__struct_fields__:
            if getattr(ours, field) != getattr(theirs, field):
                flags.append(f"--set {group}.{field}={getattr(ours, field)}")
    return " ".join(flags)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory of the log; made if need be.")
@click.option("--until-idle", type=click.FloatRange(min=0), metavar="SECONDS",
              help="First wait until nothing was committed for so long; without it, capture what is there now.")  # fmt: skip
@click.option(
    "--no-applied",
    is_flag=True,
    help="Leave out the order in which workers applied the events, decisions and outcomes.",
)
@click.option("--source", default="recorded from Kafka", show_default=True, help="Attribution of the log.")
@click.option("--offers", type=click.Choice(["shown", "not_shown"]), default="not_shown", show_default=True,
              help="Whether shoppers saw the prices that were decided.")  # fmt: skip
@click.option("--format", "file_format", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@with_settings
def record(
    settings: Settings, out: Path, *, until_idle: float | None, no_applied: bool, source: str, offers: Offers,
    file_format: Format,
) -> None:  # fmt: skip
    """Capture inputs, catalogue, policies, the applied order, decisions and outcomes into a log, for backtests."""
    from contracts.log import Manifest
    from streams.record import record_log, wait_until_idle

    manifest = Manifest(
        semantics=settings.engine_semantics, topology=settings.topics.topology, source=source, offers=offers
    )
    with _progress() as progress:
        if until_idle is not None:
            waiting = progress.add_task("waiting until idle", total=None)
            wait_until_idle(settings, until_idle)
            progress.remove_task(waiting)
        tasks = {what: progress.add_task(what, total=None) for what in ("reference", "events", "applied", "outcomes")}
        written = record_log(
            settings, out, manifest, file_format=file_format, applied=not no_applied,
            progress=lambda what, count: progress.update(tasks[what], advance=count),
        )  # fmt: skip
    rows = ", ".join(f"{table.rows} {name}" for name, table in written.tables.items())
    click.echo(f"recorded {rows} into {out}")


class _Published(Struct):
    """What a digest needs of a row of a backtest's output."""

    key: bytes
    record: bytes


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--topic", is_flag=True, help="Digest the price-updates topic, to its end.")
@click.option("--decisions", is_flag=True, help="Digest the decisions topic, to its end.")
@with_settings
def digest(settings: Settings, file: Path | None, topic: bool, decisions: bool) -> None:
    """Print the digest of price updates or decisions in FILE, as a backtest writes them, or on the topic.

    Equal digests mean equal bytes, record by record, in the order of each user. A topic that compaction has begun to
    thin out has another digest than the run that filled it.
    """
    if sum((file is not None, topic, decisions)) != 1:
        raise click.UsageError("give FILE, or --topic, or --decisions")
    published = _digest_file(file) if file is not None else _digest_topic(settings, decisions)
    click.echo(f"{published.hexdigest()}  {published.records} records")


def _digest_file(file: Path) -> PublishedDigest:
    from contracts.log_files import read_rows

    published = _digest((row.key, row.record) for rows in read_rows(file, _Published) for row in rows)
    if not published.records:
        raise BadInput(
            f"{file} has no records: any two such files would be equal. Name one that something was written to"
        )
    return published


def _digest_topic(settings: Settings, decisions: bool) -> PublishedDigest:
    from streams.broker import committed_records

    name = settings.topics.decisions if decisions else settings.topics.price_updates
    return _digest(
        (record.key, record.value) for record in committed_records(settings, [name]) if record.value is not None
    )


def _digest(records: Iterator[tuple[bytes, bytes]]) -> PublishedDigest:
    from contracts.digest import PublishedDigest

    published = PublishedDigest()
    for key, value in records:
        published.add(key, value)
    return published
