"""What a backtest reads: the records of a log by partition and topic, and what a partition has seen of the reference topics.

Memory: each topic of the log is its own stream, read in chunks and only when a partition needs its next record of that
topic. What is read past for other partitions waits in a backlog, of which only the beginning lies in memory; the
manifest's counts say when there is none, so that no topic is ever read to its end in vain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from math import inf
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from backtest.backlog import Backlog
from contracts.catalogue import Catalogue
from contracts.errors import REFUSED, BadInput
from contracts.experiments import Experiment, RunningExperiments
from contracts.intake import Inbound, Intake
from contracts.learned import Learned
from contracts.log import (
    Addresses,
    Log,
    LogRecord,
    ReferenceRecord,
    catalogue_records,
    policy_records,
    record_chunks,
)
from contracts.policies import CurrentPolicy, Policy, PolicyBook, PolicyRecord

BACKLOG_RECORDS = 1 << 18
"""Most records that wait in memory, of all partitions together."""
PULLED_MAX = 4_096
"""Most records that a partition takes at once."""


class Feed:
    """The records of the input topics of some partitions, decoded by each partition's Intake."""

    def __init__(
        self,
        log: Log,
        work: Path,
        partitions: Collection[int],
        consumed: Mapping[int, Sequence[int]] = MappingProxyType({}),
        as_of: float = inf,
    ) -> None:
        """Begin.

        Args:
            log: an opened log.
            work: directory of what does not fit in memory; made when needed.
            partitions: whose records are wanted.
            consumed: of a partition, how many records of each topic an earlier run has had: those are passed over.
            as_of: time in ms; what arrived later, or is of a later event time, is passed over, too.
        """
        manifest = log.manifest
        topology = manifest.topology
        addresses = Addresses(topology)
        self._topics = topology.sources
        self._wanted = frozenset(partitions)
        self._as_of = as_of
        self._intakes = {number: Intake(manifest.semantics, topology, number) for number in partitions}
        self._streams: list[Iterator[list[LogRecord]]] = [
            record_chunks(log, source, addresses, self._wanted) for source in range(len(topology.sources))
        ]
        self._unread = [list(manifest.records[topic]) for topic in topology.sources]
        none = [0] * len(topology.sources)
        self._passed = {number: list(consumed.get(number, none)) for number in partitions}
        each = max(BACKLOG_RECORDS // (len(self._wanted) * len(topology.sources) or 1), 64)
        self._waiting = [
            {number: Backlog(work / f"backlog-{source}-{number}", each) for number in partitions}
            for source in range(len(topology.sources))
        ]
        self._unknown = dict.fromkeys(partitions, 0)

    def pull(self, source: int, partition: int) -> list[Inbound]:
        """Return records of a topic that nobody has had yet, in offset order; none only when there are no more."""
        while self._await(source, partition):
            records = self._decoded(source, partition, PULLED_MAX)
            if records:
                return records
        return []

    def next(self, source: int, partition: int) -> Inbound | None:
        """Return the next record of a topic, or None when there are no more."""
        while self._await(source, partition):
            records = self._decoded(source, partition, 1)
            if records:
                return records[0]
        return None

    def left(self) -> int:
        """Return how many records nobody has had; of those that nobody knew of, the ones that were not read."""
        unread = sum(counts[partition] for counts in self._unread for partition in self._wanted)
        return unread + sum(len(backlog) for backlogs in self._waiting for backlog in backlogs.values())

    def unknown_of(self, partition: int) -> int:
        """Return how many records were passed over because nobody knew of them at `as_of`, so far."""
        return self._unknown[partition]

    @property
    def unknown(self) -> int:
        """Of all partitions."""
        return sum(self._unknown.values())

    def close(self) -> None:
        """Let go of what does not fit in memory."""
        for backlogs in self._waiting:
            for backlog in backlogs.values():
                backlog.close()

    def _decoded(self, source: int, partition: int, limit: int) -> list[Inbound]:
        """Return the next records that were known at `as_of`."""
        read, as_of = self._intakes[partition].read, self._as_of
        records = [
            read(source, one.offset, one.key, one.value, one.arrival_ms)
            for one in self._waiting[source][partition].take(limit)
        ]
        if as_of == inf:
            return records
        known = [one for one in records if one.arrival_ms <= as_of and one.order_ms <= as_of]
        self._unknown[partition] += len(records) - len(known)
        return known

    def _await(self, source: int, partition: int) -> bool:
        """Return whether there is a record that nobody has had."""
        waiting, unread = self._waiting[source][partition], self._unread[source]
        while not len(waiting) and unread[partition]:
            self._read(source)
        return len(waiting) > 0

    def _read(self, source: int) -> None:
        chunk = next(self._streams[source], None)
        if chunk is None:
            raise BadInput(f"The log ends before its manifest's count of {self._topics[source]}: write the log anew")
        unread, waiting, passed = self._unread[source], self._waiting[source], self._passed
        for record in chunk:
            partition = record.partition
            unread[partition] -= 1
            if passed[partition][source]:
                passed[partition][source] -= 1
            else:
                waiting[partition].append(record)


class References:
    """The records of the catalogue and policies topics, in memory, as a worker holds them."""

    def __init__(self, log: Log, as_of: float = inf) -> None:
        """Read them, up to the first that arrived after `as_of`; a record without an arrival was always there."""
        self.items = _known(catalogue_records(log), as_of)
        self.policies = _known(policy_records(log), as_of)
        whole = as_of == inf
        self.ends = tuple([inf if whole else _end(records) for records in (self.items, self.policies)])
        """Of catalogue and policies: the offset after the last record that is known."""


def _known(records: Iterator[ReferenceRecord], as_of: float) -> list[ReferenceRecord]:
    return list(takewhile(lambda record: (record.arrival_ms or 0) <= as_of, records))


def _end(records: list[ReferenceRecord]) -> int:
    return records[-1].offset + 1 if records else 0


class WhatIf(PolicyBook):
    """The policies of a log with one policy in the place of those that price: no experiments, but the kill switch as it was.

    A policy that learns knows what its twin on the topic had learned.
    """

    def __init__(self, policy: Policy, name: str) -> None:
        """Begin; `name` is what decisions call `policy`, which nobody was priced by."""
        super().__init__()
        self._policy = policy
        self.current = self._fallback = replace(policy, name=name)

    def knowledge_of(self, policy: Policy) -> Learned | None:
        """Return what the twin of the policy that prices has learned."""
        twin = self.twin_of(self._policy)
        return None if twin is None else super().knowledge_of(twin)

    def _apply(self, record: PolicyRecord) -> None:
        if not isinstance(record, CurrentPolicy | Experiment | RunningExperiments):
            super()._apply(record)


class Seen:
    """Catalogue and policies as one partition has seen them, record by record."""

    def __init__(self, references: References, policies: PolicyBook, currency: str) -> None:
        """Begin with nothing seen; `policies` is an empty book, `currency` that of the log."""
        self.catalogue = Catalogue(currency)
        self.policies = policies
        self.refused = 0
        """Records that are no catalogue item or policy, or must not be used; a worker goes past them, too."""
        self._items = deque(references.items)
        self._policies = deque(references.policies)

    def advance(self, catalogue_seen: float, policies_seen: float) -> None:
        """Apply the records below these offsets."""
        self._apply(self._items, self.catalogue, catalogue_seen)
        self._apply(self._policies, self.policies, policies_seen)

    def arrive(self, now_ms: int) -> None:
        """Apply the records that have arrived by `now_ms`, and all before them."""
        self._apply(self._items, self.catalogue, _offset_after(self._items, now_ms))
        self._apply(self._policies, self.policies, _offset_after(self._policies, now_ms))

    def next_arrival(self) -> float:
        """Return when the next of them arrives; infinity when there are no more."""
        heads = [records[0].arrival_ms or 0 for records in (self._items, self._policies) if records]
        return min(heads, default=inf)

    def _apply(self, records: deque[ReferenceRecord], book: Catalogue | PolicyBook, until: float) -> None:
        while records and records[0].offset < until:
            record = records.popleft()
            try:
                book.apply(record.offset, record.key, record.value)
            except REFUSED:
                self.refused += 1


def _offset_after(records: deque[ReferenceRecord], now_ms: int) -> float:
    """Return the offset of the first record that has not arrived by `now_ms`."""
    return next((record.offset for record in records if (record.arrival_ms or 0) > now_ms), inf)
