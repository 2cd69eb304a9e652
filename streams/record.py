"""Capturing what lies in Kafka into a log (contracts.log): inputs, catalogue, policies, the order a worker applied, and
what it published of decisions and outcomes.

Reads committed records only. The applied order comes from the decisions topic, so a backtest of the log repeats what
really happened, also where events came live and late. Ends are taken of outcomes and decisions first and of the
inputs after, so every record that was applied is in the log. Not here: the form of the rows (contracts.log_capture).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from heapq import merge
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from contracts.decisions import decode_decision
from contracts.errors import UNREADABLE, BadInput
from contracts.intake import arrival_of
from contracts.log import LogRecord, Manifest, open_log
from contracts.log_capture import applied_row, catalogue_row, event_row, policy_row
from contracts.log_files import Format
from contracts.log_rows import AppliedRow, PublishedRow
from contracts.log_writer import LogWriter
from streams.broker import administering, chunks_until, partitions_of, reading, require_topics, stable_ends
from streams.settings import Settings

IDLE_POLL_S = 0.5

Ends = dict[TopicPartition, int]
Progress = Callable[[str, int], None]
"""Called with what was captured (`events`, `applied`, ...) and how many records of it."""


def record_log(
    settings: Settings,
    out: Path,
    manifest: Manifest,
    *,
    file_format: Format = "parquet",
    applied: bool = True,
    progress: Progress = lambda _what, _count: None,
) -> Manifest:
    """Write everything that is committed now into a log at `out`; return its manifest.

    Args:
        settings: where Kafka is.
        out: directory of the log.
        manifest: with the Semantics and Topology of the settings.
        file_format: of the log's tables.
        applied: also capture the order in which the events were applied, and the decisions and outcomes that followed.
        progress: told how many records were captured.

    Raises:
        BadInput: there is a log at `out`; or the decisions topic no longer holds the whole order.
        BadSettings, BrokerUnavailable: as of streams.broker.
    """
    topics = settings.topics
    sources = topics.topology.sources
    counts = require_topics(settings, [*sources, topics.catalogue, topics.policies, topics.decisions, topics.outcomes])
    with administering(settings) as admin:
        outcome_ends = stable_ends(admin, partitions_of({topics.outcomes: counts[topics.outcomes]}))
        decision_ends = stable_ends(admin, partitions_of({topics.decisions: counts[topics.decisions]}))
        input_ends = stable_ends(admin, partitions_of({topic: counts[topic] for topic in sources}))
        reference_ends = stable_ends(admin, partitions_of({topics.catalogue: 1, topics.policies: 1}))
    with LogWriter(out, manifest, file_format) as writer:
        _capture_reference(settings, writer, reference_ends, progress)
        begins = _capture_events(settings, writer, input_ends, progress)
        if applied:
            _capture_applied(settings, writer, decision_ends, _Order(settings, begins, input_ends), progress)
            _capture_outcomes(settings, writer, outcome_ends, progress)
    return open_log(out, verify=False).manifest


def wait_until_idle(settings: Settings, idle_s: float) -> None:
    """Return when nothing has been committed to inputs or decisions for `idle_s` seconds."""
    topics = settings.topics
    counts = require_topics(settings, [*topics.topology.sources, topics.decisions])
    with administering(settings) as admin:
        known, since = stable_ends(admin, partitions_of(counts)), time.monotonic()
        while time.monotonic() - since < idle_s:
            time.sleep(min(IDLE_POLL_S, idle_s))
            ends = stable_ends(admin, partitions_of(counts))
            if ends != known:
                known, since = ends, time.monotonic()


def _chunks(settings: Settings, ends: Ends) -> Iterator[dict[TopicPartition, list[Any]]]:
    with reading(settings) as consumer:
        consumer.assign(list(ends))
        consumer.seek_to_beginning(*ends)
        yield from chunks_until(consumer, ends)


def _capture_reference(settings: Settings, writer: LogWriter, ends: Ends, progress: Progress) -> None:
    for chunk in _chunks(settings, ends):
        for place, records in chunk.items():
            if place.topic == settings.topics.catalogue:
                writer.catalogue([catalogue_row(*_reference(record)) for record in records])
            else:
                writer.policies([policy_row(*_reference(record)) for record in records])
            progress("reference", len(records))


def _capture_events(settings: Settings, writer: LogWriter, ends: Ends, progress: Progress) -> Ends:
    """Write the input records, by arrival as far as one fetch of all partitions shows it; return the first offsets."""
    semantics, topology = settings.engine_semantics, settings.topics.topology
    begins: Ends = {}
    for chunk in _chunks(settings, ends):
        captured = []
        for place, records in chunk.items():
            begins.setdefault(place, records[0].offset)
            source = topology.sources.index(place.topic)
            captured.append([_log_record(source, record) for record in records])
        in_order = merge(*captured, key=lambda record: record.arrival_ms)
        rows = [event_row(record, semantics, topology) for record in in_order]
        writer.rows(rows)
        progress("events", len(rows))
    return begins


def _reference(record: Any) -> tuple[int, bytes | None, bytes | None, int | None]:  # noqa: ANN401 - kafka-python ships no types
    return record.offset, record.key, record.value, arrival_of(record.timestamp, record.headers) or None


def _log_record(source: int, record: Any) -> LogRecord:  # noqa: ANN401 - kafka-python ships no types
    arrival_ms = arrival_of(record.timestamp, record.headers)
    return LogRecord(source, record.partition, record.offset, record.key, record.value, arrival_ms)


def _capture_applied(settings: Settings, writer: LogWriter, ends: Ends, order: _Order, progress: Progress) -> None:
    for chunk in _chunks(settings, ends):
        for records in chunk.values():
            rows = order.rows(records)
            writer.applied(rows)
            writer.published("decisions", list(map(_published_row, records)))
            progress("applied", len(rows))


def _capture_outcomes(settings: Settings, writer: LogWriter, ends: Ends, progress: Progress) -> None:
    writer.published("outcomes", [])
    for chunk in _chunks(settings, ends):
        for records in chunk.values():
            rows = [_published_row(record) for record in records if record.value is not None]
            writer.published("outcomes", rows)
            progress("outcomes", len(rows))


def _published_row(record: Any) -> PublishedRow:  # noqa: ANN401 - kafka-python ships no types
    return PublishedRow(record.partition, record.key or b"", record.value or b"")


class _Order:
    """The applied order of every partition as its decisions tell it; complete, or an error."""

    def __init__(self, settings: Settings, begins: Ends, ends: Ends) -> None:
        self._topology = settings.topics.topology
        self._where = f"topic {settings.topics.decisions!r}"
        self._begins = begins
        self._ends = ends
        self._versions: dict[int, int] = {}

    def rows(self, records: list[Any]) -> list[AppliedRow]:
        """Return the rows of records of one partition that follow those seen before; several decisions of one event give one.

        A tombstone tells of no event. What it takes back is there until compaction, and part of the order until then.
        """
        rows = []
        for record in records:
            if record.value is None:
                continue
            row = self._row(record)
            last = self._versions.get(row.partition, 0)
            if row.version == last:
                continue
            if row.version != last + 1:
                raise BadInput(
                    f"{self._where} partition {row.partition} goes from version {last} to {row.version}: retention or an "
                    "erasure removed decisions, and the applied order with them. Capture with --no-applied"
                )
            self._versions[row.partition] = row.version
            rows.append(row)
        return rows

    def _row(self, record: Any) -> AppliedRow:  # noqa: ANN401 - kafka-python ships no types
        place = f"{self._where} partition {record.partition} offset {record.offset}"
        try:
            decision = decode_decision(record.value or b"")
        except UNREADABLE as error:
            raise BadInput(f"{place} is no decision ({error}): capture with --no-applied") from None
        source = TopicPartition(decision.source.topic, decision.source.partition)
        if source not in self._ends:
            raise BadInput(
                f"{place} names input {source.topic}/{source.partition}, which the settings do not: correct `topics`"
            )
        if not self._begins.get(source, 0) <= decision.source.offset < self._ends[source]:
            raise BadInput(
                f"{place} names {source.topic}/{source.partition} offset {decision.source.offset}, which is not on the topic: "
                "retention removed it, or the topic was recreated. Capture with --no-applied"
            )
        return applied_row(decision, self._topology)
