"""The logs that benchmarks run on: the public REES46 log, else generated shoppers; and the same events in other clothes.

Every benchmark has its own topics, so a log is renamed to them: decision ids are made from topic names. Nothing here is
measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from msgspec.structs import replace

from backtest.rees46 import import_rees46
from backtest.shoppers import generate_log
from contracts.log import Log, Manifest, open_log
from contracts.log_rows import EventRow
from contracts.log_writer import LogWriter
from contracts.semantics import Semantics, Topology

PARTITIONS = 4
GENERATED_USERS = 40_000
GENERATED_EVENTS = 240_000
_ROWS_AT_A_TIME = 4_096
_BETWEEN_MS = 60_000


def rees46_file() -> Path | None:
    """Return the Parquet file of the REES46 log, in PRICETIDE_DATA or in data/ of or beside the repository."""
    root = Path(__file__).resolve().parents[1]
    given = os.environ.get("PRICETIDE_DATA")
    folders = [Path(given)] if given else [root / "data", *sorted(root.parent.glob("*/data"))]
    files = (file for folder in folders for file in sorted((folder / "rees46_nov").glob("*.parquet")))
    return next(files, None)


def source_log(work: Path, rows: int | None) -> Log:
    """Return the log to measure with, made in `work`; its first `rows` events only, if given."""
    whole = work / "log"
    file = rees46_file()
    if file is not None:
        import_rees46(file, whole, Topology(partitions=PARTITIONS))
    else:
        generate_log(whole, GENERATED_USERS, rows or GENERATED_EVENTS, 1, Topology(partitions=PARTITIONS))
    log = open_log(whole, verify=False)
    return log if rows is None else rewritten(log, work / "log-short", log.manifest.topology, rows)


def rewritten(log: Log, directory: Path, topology: Topology, rows: int | None = None) -> Log:
    """Write the rows of `log` for another mapping of kinds to topics; return the new log.

    Args:
        log: an opened log.
        directory: of the new log.
        topology: of the new log.
        rows: how many events and consents to keep, None for all; the catalogue stays whole.
    """
    manifest = replace(log.manifest, topology=topology)
    with LogWriter(directory, manifest) as out:
        kept = islice(_sound(log.rows(), manifest.semantics), rows)
        while chunk := list(islice(kept, _ROWS_AT_A_TIME)):
            out.rows(chunk)
        for items in log.catalogue():
            out.catalogue(items)
        for policies in log.policies():
            out.policies(policies)
    return open_log(directory, verify=False)


def repeated(log: Log, directory: Path, times: int, rows: int) -> Log:
    """Write the first `rows` events and consents of `log` so many times, each time later and by other users; return the new log.

    Items and their prices stay the same, so that of all that a backtest may remember only users, events and time grow.
    """
    old = log.manifest
    manifest = Manifest(semantics=old.semantics, topology=old.topology, source=old.source, offers="not_shown")
    with LogWriter(directory, manifest) as out:
        for items in log.catalogue():
            out.catalogue(items)
        for policies in log.policies():
            out.policies(policies)
        for number in range(times):
            kept = islice(_sound(log.rows(), manifest.semantics), rows)
            while chunk := list(islice(kept, _ROWS_AT_A_TIME)):
                for row in chunk:
                    _make_another(row, number, number * (old.last_ms - old.first_ms + _BETWEEN_MS))
                out.rows(chunk)
    return open_log(directory, verify=False)


def _make_another(row: EventRow, number: int, later_ms: int) -> None:
    """Let the row be of somebody else, `later_ms` later, as a row of the same `number` whose user was the same."""
    row.arrival_ms += later_ms
    row.event_time_ms = (row.event_time_ms or 0) + later_ms
    row.user = f"{row.user}-{number}"
    row.event_id = row.event_id and f"{row.event_id}-{number}"
    row.session = row.session and f"{row.session}-{number}"


def with_window(log: Log, outcome_window_ms: int) -> Log:
    """Return `log` with another window for the outcomes of its draws; 0: none are kept."""
    semantics = replace(log.manifest.semantics, outcome_window_ms=outcome_window_ms)
    return Log(log.directory, replace(log.manifest, semantics=semantics))


def _sound(rows: Iterator[EventRow], semantics: Semantics) -> Iterator[EventRow]:
    """Leave out what the generator breaks on purpose, which a stock Faust app would stumble over; a price of zero stays."""
    for row in rows:
        sound = row.raw is None and row.currency in (None, semantics.currency)
        if sound and (row.event_time_ms or 0) <= row.arrival_ms + semantics.skew_max_ms:
            yield row


def one_topic(topology: Topology) -> Topology:
    """Return the topology that carries all kinds of event on one topic."""
    return Topology(
        partitions=topology.partitions, consents="events", views="events", clicks="events", purchases="events"
    )


def renamed(log: Log, prefix: str) -> Log:
    """Return `log` as it is on topics whose names begin with `prefix`."""
    old = log.manifest.topology
    new = replace(
        old,
        consents=prefix + old.consents,
        views=prefix + old.views,
        clicks=prefix + old.clicks,
        purchases=prefix + old.purchases,
    )
    records = {prefix + topic: counts for topic, counts in log.manifest.records.items()}
    return Log(log.directory, replace(log.manifest, topology=new, records=records))
