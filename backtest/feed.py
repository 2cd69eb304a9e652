"""What a backtest reads: the records of a log by partition and topic, and what a partition has seen of the reference topics.

Memory: each topic of the log is its own stream, read in chunks and only when a partition needs its next record of that
topic. What is read ahead for other partitions is what lies in that topic before that record; the manifest's counts say
when there is none, so that no topic is ever read to its end in vain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from contracts.catalogue import Catalogue
from contracts.errors import BadInput, BadReference
from contracts.intake import Inbound, Intake
from contracts.log import (
    Addresses,
    Log,
    LogRecord,
    ReferenceRecord,
    catalogue_records,
    policy_records,
    record_chunks,
)
from contracts.policies import PolicyBook


class Feed:
    """The records of the input topics, decoded by each partition's Intake."""

    def __init__(self, log: Log) -> None:
        manifest = log.manifest
        topology = manifest.topology
        partitions = range(topology.partitions)
        addresses = Addresses(topology)
        self._topics = topology.sources
        self._intakes = [Intake(manifest.semantics, topology, partition) for partition in partitions]
        self._streams: list[Iterator[list[LogRecord]]] = [
            record_chunks(log, source, addresses) for source in range(len(topology.sources))
        ]
        self._unread = [list(manifest.records[topic]) for topic in topology.sources]
        self._waiting: list[list[deque[Inbound]]] = [[deque() for _ in partitions] for _ in topology.sources]

    def pull(self, source: int, partition: int) -> list[Inbound]:
        """Return records of a topic that nobody has had yet, in offset order; none only when there are no more."""
        self._await(source, partition)
        waiting = self._waiting[source][partition]
        records = list(waiting)
        waiting.clear()
        return records

    def next(self, source: int, partition: int) -> Inbound | None:
        """Return the next record of a topic, or None when there are no more."""
        self._await(source, partition)
        waiting = self._waiting[source][partition]
        return waiting.popleft() if waiting else None

    def left(self) -> int:
        """Return how many records nobody has had."""
        return sum(map(sum, self._unread)) + sum(len(queue) for queues in self._waiting for queue in queues)

    def _await(self, source: int, partition: int) -> None:
        while not self._waiting[source][partition] and self._unread[source][partition]:
            self._read(source)

    def _read(self, source: int) -> None:
        chunk = next(self._streams[source], None)
        if chunk is None:
            raise BadInput(f"The log ends before its manifest's count of {self._topics[source]}: write the log anew")
        unread, waiting = self._unread[source], self._waiting[source]
        for record in chunk:
            partition = record.partition
            unread[partition] -= 1
            inbound = self._intakes[partition].read(source, record.offset, record.key, record.value, record.arrival_ms)
            waiting[partition].append(inbound)


class References:
    """The records of the catalogue and policies topics, in memory, as a worker holds them."""

    def __init__(self, log: Log) -> None:
        self.items = list(catalogue_records(log))
        self.policies = list(policy_records(log))


class Seen:
    """Catalogue and policies as one partition has seen them, record by record."""

    def __init__(self, references: References) -> None:
        self.catalogue = Catalogue()
        self.policies = PolicyBook()
        self.refused = 0
        """Records that are no catalogue item or policy, or must not be used; a worker goes past them, too."""
        self._items = deque(references.items)
        self._policies = deque(references.policies)

    def advance(self, catalogue_seen: float, policies_seen: float) -> None:
        """Apply the records below these offsets."""
        self._apply(self._items, self.catalogue, catalogue_seen)
        self._apply(self._policies, self.policies, policies_seen)

    def _apply(self, records: deque[ReferenceRecord], book: Catalogue | PolicyBook, until: float) -> None:
        while records and records[0].offset < until:
            record = records.popleft()
            try:
                book.apply(record.offset, record.key, record.value)
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError, BadReference):
                self.refused += 1
