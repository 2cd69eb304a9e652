"""One order across topics: the co-partitioned heads, merged by (event time, topic rank, offset). Pure.

Kafka orders records within a partition of one topic only, but consent before view before click before purchase matters.
Each topic keeps its own offset order; among the heads the smallest (event time, rank, offset) goes first. A record that
is no event has event time -1 and goes as soon as it is a head.

Rule: a topic with nothing buffered blocks the others until its owner says that it is *idle* (nothing more is there, and
the grace has passed). A backtest says so at the end of a file, a worker by the log's stable end and the clock; who says
so when is not decided here, and with everything present beforehand the order never depends on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from math import inf
from typing import Generic, Protocol, TypeVar

_LAST = (1 << 62, 0, 0)


class Ordered(Protocol):
    """A record that can be merged; its source is told when it is pushed."""

    order_ms: int
    offset: int
    received: float
    """Monotonic seconds."""


R = TypeVar("R", bound=Ordered)


class Merge(Generic[R]):
    """The merge of the topics of one partition (of the outcomes of all partitions, for a learner). Holds what was pushed and
    not yet taken.
    """

    __slots__ = ("_queues", "size")

    def __init__(self, sources: int) -> None:
        self._queues: list[deque[R]] = [deque() for _ in range(sources)]
        self.size = 0

    def push(self, source: int, records: Sequence[R]) -> None:
        """Append records of topic `source`, in offset order, behind what is buffered of it."""
        self._queues[source].extend(records)
        self.size += len(records)

    def buffered(self, source: int) -> int:
        """Return how many records of topic `source` wait."""
        return len(self._queues[source])

    def empty_sources(self) -> list[int]:
        """Return the topics with nothing buffered: those that hold the others back unless they are idle."""
        return [source for source, queue in enumerate(self._queues) if not queue]

    def first_received(self) -> float | None:
        """Return `received` of the head that has waited longest, or None when nothing is buffered."""
        return min((queue[0].received for queue in self._queues if queue), default=None)

    def take(self, limit: int, idle: Collection[int] = (), due: float = inf) -> list[R]:
        """Remove and return at most `limit` records, in order, that nothing still to come can precede.

        Args:
            limit: most records to return.
            idle: empty topics that hold the others back only until the grace has passed.
            due: a record that passes an empty idle topic must have been received at or before this.
        """
        queues = self._queues
        out: list[R] = []
        while len(out) < limit:
            best, bound = -1, _LAST
            best_key = _LAST
            latest = inf
            for source, queue in enumerate(queues):
                if not queue:
                    if source not in idle:
                        self.size -= len(out)
                        return out
                    latest = due
                    continue
                head = queue[0]
                key = (head.order_ms, source, head.offset)
                if key < best_key:
                    best, best_key, bound = source, key, best_key
                elif key < bound:
                    bound = key
            if best < 0:
                break
            # Equal times: the lower rank goes first. The run ends where another head precedes.
            last_ms = bound[0] if best < bound[1] else bound[0] - 1
            if not _take_run(queues[best], last_ms, latest, limit - len(out), out):
                break
        self.size -= len(out)
        return out


def _take_run(queue: deque[R], last_ms: int, latest: float, room: int, out: list[R]) -> int:
    """Move the run of `queue` up to event time `last_ms`, received by `latest`; return how many records moved."""
    before = len(out)
    while len(out) - before < room and queue and queue[0].order_ms <= last_ms and queue[0].received <= latest:
        out.append(queue.popleft())
    return len(out) - before
