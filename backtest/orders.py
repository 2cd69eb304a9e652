"""In which order a partition of a log that was not recorded from workers gets its records, batch by batch.

`Merged`: by event time, as a worker that finds everything in Kafka applies them (contracts.merge). `Arrived`: as they
arrived, which is what could be known at the time: nothing that arrived later comes before what arrived earlier.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from backtest.feed import Feed, Seen
from contracts.intake import Inbound
from contracts.merge import Merge


class Batches(Protocol):
    """The records of a partition, in their order."""

    def take(self, limit: int) -> list[Inbound]:
        """Return the next records, at most `limit`; none when there are no more."""


class Merged:
    """By event time, topic rank and offset among the heads of the topics."""

    def __init__(self, feed: Feed, partition: int, sources: int) -> None:
        self._feed, self._partition = feed, partition
        self._merge = Merge[Inbound](sources)

    def take(self, limit: int) -> list[Inbound]:
        """Return the next records; see Batches."""
        batch: list[Inbound] = []
        merge = self._merge
        while len(batch) < limit:
            idle = []
            for source in merge.empty_sources():
                merge.push(source, self._feed.pull(source, self._partition))
                if not merge.buffered(source):
                    idle.append(source)
            taken = merge.take(limit - len(batch), idle)
            if not taken:
                break
            batch += taken
        return batch


class Arrived:
    """By arrival, topic rank and offset among the heads of the topics; catalogue and policies come as they arrived, too.

    A record that claims to have arrived before one that its topic has ahead of it came with that one.
    """

    def __init__(self, feed: Feed, partition: int, sources: int, seen: Seen) -> None:
        self._feed, self._partition, self._seen = feed, partition, seen
        self._heads: list[deque[Inbound]] = [deque() for _ in range(sources)]
        self._now_ms = 0

    def take(self, limit: int) -> list[Inbound]:
        """Return the next records, all of which were decided with the catalogue and policies that the partition sees now."""
        batch: list[Inbound] = []
        while len(batch) < limit:
            source = self._next_source()
            if source is None:
                break
            arrival_ms = max(self._heads[source][0].arrival_ms, self._now_ms)
            if self._seen.next_arrival() <= arrival_ms:
                if batch:
                    break
                self._seen.arrive(arrival_ms)
            self._now_ms = arrival_ms
            batch.append(self._heads[source].popleft())
        return batch

    def _next_source(self) -> int | None:
        """Return the topic whose head has arrived first; None when all are at their end."""
        first, first_ms = None, 0
        for source, head in enumerate(self._heads):
            if not head:
                head.extend(self._feed.pull(source, self._partition))
            if head and (first is None or head[0].arrival_ms < first_ms):
                first, first_ms = source, head[0].arrival_ms
        return first
