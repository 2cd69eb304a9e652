"""Carrying out erasures: the owner of a partition takes back what it has published of users who asked to be forgotten.

The batch of the request has deleted state and pending draws already, and has left an erasure in store and changelog
(pricing.erasure). What readers hold is left, under keys that nobody remembers. A round:

    1 sweep    reads the partition's outputs from their beginning, a part of a core at most, while batches go on
    2 finish   between two batches: reads what was published meanwhile, then one transaction of the partition's producer
               with a tombstone per key of these users up to their requests, and the erasures marked as done
    3 purge    rewrites the store's files, which still hold what was deleted

A kill before the transaction of 2 leaves the erasures undone, and the next owner begins the round anew; after it, the store
asks for its purge until it is over. A worker that was fenced commits nothing. Input topics are not compacted: what is in them
goes by retention, and so do dead letters of records on another partition than the user's. Not here: who is to be forgotten
(pricing.run), which keys are theirs (pricing.traces).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import Struct

from pricing.erasure import Erasure, decode_erasure, encode_erasure, erasure_key
from pricing.pending import ERASED, decode_pending, encode_pending, user_key_of
from pricing.traces import Traces
from streams.closing import stop
from streams.commit import Commit
from streams.metrics import Metrics
from streams.settings import Settings
from streams.source_consumer import fetch

logger = logging.getLogger(__name__)

FETCH_BYTES_MAX = 1 << 20
FETCH_WAIT_MS = 100
RECORDS_AT_ONCE = 500
REST = 3.0
"""Seconds of rest per second of sweeping or purging: other partitions and the events of this one come first."""
NEAR_RECORDS = 5_000
"""A sweep that has so few records to go may be finished while events wait: a twentieth of a second."""
DRAWS_AT_ONCE = 1_000


class _Round(Struct, eq=False):
    """What one round has found."""

    erasures: dict[bytes, Erasure]
    """By key; not done."""
    sweep: Sweep
    draws: list[bytes]
    """Keys of pending draws which the users' states did not remember any more."""


class Sweep:
    """Reads what a partition has published, from the beginning of its outputs."""

    def __init__(self, settings: Settings, partition: int, erasures: dict[bytes, Erasure]) -> None:
        self.traces = Traces(erasures)
        self._places = [TopicPartition(topic, partition) for topic in settings.topics.outputs]
        self._consumer = AIOKafkaConsumer(
            **settings.kafka.consumer() | {"fetch_max_wait_ms": FETCH_WAIT_MS},
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            request_timeout_ms=settings.kafka.request_timeout_ms,
        )

    async def start(self) -> None:
        """Connect, and go to the beginning."""
        await self._consumer.start()
        self._consumer.assign(self._places)
        await self._consumer.seek_to_beginning(*self._places)

    async def read_to_end(self, rest: float) -> int:
        """Read on to what is published now, with `rest` seconds of rest per second of work; return how many records."""
        count = 0
        ends = await self._consumer.end_offsets(self._places)
        while await self._behind(ends):
            fetched = await fetch(self._consumer, timeout_ms=FETCH_WAIT_MS, max_records=RECORDS_AT_ONCE)
            begun = time.perf_counter()
            for place, records in fetched.items():
                for record in records:
                    self.traces.see(place.topic, record.key, record.value)
                count += len(records)
            await asyncio.sleep((time.perf_counter() - begun) * rest)
        return count

    async def _behind(self, ends: dict[TopicPartition, int]) -> bool:
        for place, end in ends.items():
            if await self._consumer.position(place) < end:
                return True
        return False

    async def stop(self) -> None:
        """Disconnect."""
        await stop(self._consumer)


class Eraser:
    """The erasures of one partition. `run` beside the session's batches; the session calls `finish` between them."""

    def __init__(self, settings: Settings, commit: Commit, metrics: Metrics, ready: Callable[[], None]) -> None:
        """Begin with what the store has left to do.

        Args:
            settings: where the outputs are.
            commit: of the partition, and its store.
            metrics: of the worker.
            ready: called when `finish` has something to do.
        """
        self._settings = settings
        self._partition = commit.partition
        self._store = commit.store
        self._commit = commit
        self._waiting = metrics.erasures_waiting.labels(commit.partition)
        self._call = ready
        self._round: _Round | None = None
        self._finished = asyncio.Event()
        self._asked = asyncio.Event()
        self.ask()

    def ask(self) -> None:
        """Look for erasures that are not done."""
        self._waiting.set(len(self._undone()))
        self._asked.set()

    def _undone(self) -> dict[bytes, Erasure]:
        erasures = {key: decode_erasure(value) for key, value in self._store.erasures().items()}
        return {key: erasure for key, erasure in erasures.items() if not erasure.done}

    async def run(self) -> None:
        """Go round whenever asked, for ever; rest as long as a round took."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            begun = time.monotonic()
            erasures = self._undone()
            if erasures:
                await self._take_back(erasures)
            if self._store.to_purge:
                await self._store.purge(REST)
                logger.info("partition %d: the store holds nothing of erased users any more", self._partition)
            await asyncio.sleep(time.monotonic() - begun)

    async def _take_back(self, erasures: dict[bytes, Erasure]) -> None:
        sweep = Sweep(self._settings, self._partition, erasures)
        await sweep.start()
        try:
            rest = REST
            while await sweep.read_to_end(rest) > NEAR_RECORDS:
                rest /= 2  # what came meanwhile takes less time, whatever the rate
            self._round = _Round(erasures, sweep, await self._draws_of(erasures))
            self._finished.clear()
            self._call()
            await self._finished.wait()
        finally:
            self._round = None
            await sweep.stop()

    async def _draws_of(self, erasures: dict[bytes, Erasure]) -> list[bytes]:
        """Return the keys of the users' pending draws. No more can come: what is drawn now is of after the request."""
        found, last = [], b""
        while some := self._store.draws(last, DRAWS_AT_ONCE):
            for key, value in some:
                erasure = erasures.get(erasure_key(user_key_of(decode_pending(value))))
                if erasure is not None and int.from_bytes(key[-8:], "big") <= erasure.version:
                    found.append(key)
            last = some[-1][0]
            await asyncio.sleep(0)
        return found

    async def finish(self) -> None:
        """Take back what was found and what came since, if a sweep is ready for it. No batch may be under way."""
        found = self._round
        if found is None:
            return
        async with asyncio.timeout(self._settings.commit_timeout_s):
            await found.sweep.read_to_end(0.0)
            records: list[tuple[bytes, bytes | None]] = [
                (key, encode_pending(ERASED)) for key in found.draws if self._store.get(key) is not None
            ]
            now = self._store.erasures()
            for key, erasure in found.erasures.items():
                if now[key] == encode_erasure(erasure):  # else the user has asked again meanwhile
                    done = Erasure(erasure.version, erasure.denied_ms, done=True)
                    records.append((key, encode_erasure(done)))
            await self._commit.erase(found.sweep.traces.keys, records)
        self._round = None
        counts = {topic: len(keys) for topic, keys in found.sweep.traces.keys.items()}
        logger.info("partition %d: took back %s of %d erased users", self._partition, counts, len(found.erasures))
        self.ask()
        self._finished.set()
