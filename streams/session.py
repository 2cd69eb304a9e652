"""One partition, from its assignment to its revocation: fence, restore, then fetch, merge, hand over, commit.

A session owns everything it touches: transactional producer, store, consumer, position ledger, merge buffer. It is opened
by an assignment and closed by the next revocation, and nothing of it outlives that. Bounded: `buffer_max` records and
BUFFER_BYTES_MAX bytes wait in the merge, one batch is with the agent. What an event does is not decided here
(pricing.engine), nor in which order events come (contracts.merge).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from msgspec import Struct

from contracts.errors import BadSettings
from contracts.intake import Inbound, Intake, arrival_of
from contracts.merge import Merge
from contracts.semantics import Semantics
from pricing.engine import Engine, PartitionState, Step
from pricing.menus import MenuShelf
from pricing.timers import Timers
from streams import recovery
from streams.closing import stop
from streams.commit import Commit
from streams.crashes import CrashCounts
from streams.eraser import Eraser
from streams.ledger import Ledger, PositionLedger, decode_ledger, starting_point
from streams.metrics import Metrics
from streams.models import Models
from streams.producer import transactional_producer
from streams.reference import References
from streams.settings import Settings
from streams.source_consumer import FETCH_WAIT_MS, fetch, group_offsets, source_consumer
from streams.store import StateStore

logger = logging.getLogger(__name__)

BUFFER_BYTES_MAX = 64 << 20
TOPIC_GONE_S = 10.0
SWEEP_EVERY_S = 1.0
SWEEP_KEYS = 256
"""Users looked at for expiry at a time: a million in an hour, per partition."""


class Batch(Struct, eq=False):
    """What the agent gets: records of one partition in their order, and where to say that they are committed."""

    session: Session
    records: list[Inbound]
    oldest: float
    """When the first of them was received, in monotonic seconds."""
    done: asyncio.Future[None]


class Worker(Struct, frozen=True, kw_only=True):
    """What all sessions of a worker share."""

    settings: Settings
    semantics: Semantics
    references: References
    models: Models
    metrics: Metrics
    crashes: CrashCounts
    menus: MenuShelf
    open_store: Callable[[int], StateStore]
    hand_over: Callable[[Batch], Coroutine[Any, Any, None]]


class Session:
    """The life of one partition in this worker. `run` until cancelled, then `close`."""

    def __init__(self, worker: Worker, partition: int) -> None:
        self.partition = partition
        self.restored = False
        self.closing = False
        self.opened_at = time.monotonic()
        self.committed_at: float | None = None
        self._worker = worker
        self._settings = settings = worker.settings
        self._topology = settings.topics.topology
        self._places = [TopicPartition(source, partition) for source in self._topology.sources]
        self._source_of = {place: source for source, place in enumerate(self._places)}
        self._merge = Merge[Inbound](len(self._places))
        self._bytes = 0
        self._gone_since = math.inf
        self._starved = False
        self._swept_at = 0.0
        self._room, self._arrived = asyncio.Event(), asyncio.Event()
        self._intake = Intake(worker.semantics, self._topology, partition)
        self._engine = Engine(worker.semantics, self._topology, partition, worker.menus)
        self._grace_s = settings.merge_grace_ms / 1000
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._store: StateStore | None = None
        self.committing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Open the partition, then fetch and hand over until cancelled."""
        await self._open()
        await asyncio.gather(self._fetch(), self._deliver(), self._eraser.run())

    # -- opening ---------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._producer = transactional_producer(self._settings, self.partition)
        async with asyncio.timeout(self._settings.commit_timeout_s):
            await self._producer.start()  # fences the old owner, aborts what it left open
            marker = await recovery.commit_marker(self._producer, self._settings.topics.changelog, self.partition)
        self._store = self._worker.open_store(self.partition)
        await self._restore(self._store, marker)
        self._consumer = source_consumer(self._settings)
        await self._consumer.start()
        ledger = await self._starting_point(self._store, self._consumer)
        self._state = PartitionState(applied=ledger.applied, watermark_ms=ledger.watermark_ms)
        self._timers = Timers(self._store.timers())
        self._ledger = ledger
        self._positions = PositionLedger(ledger.positions)
        self._isolated = self._worker.crashes.isolated(self._topology.sources, self.partition)
        self._commit = Commit(self._settings, self.partition, self._producer, self._store, self._isolated)
        self._eraser = Eraser(self._settings, self._commit, self._worker.metrics, self._arrived.set)
        for place, position in zip(self._places, ledger.positions, strict=True):
            self._consumer.seek(place, position)
        self.restored = True

    async def _restore(self, store: StateStore, marker: int) -> None:
        gauge = self._worker.metrics.restoring.labels(self.partition)
        begun = time.monotonic()
        count = await recovery.restore(self._settings, self.partition, store, marker, gauge.set)
        gauge.set(0)
        took = time.monotonic() - begun
        self._worker.metrics.restored.inc(count)
        self._worker.metrics.restore_seconds.inc(took)
        logger.info("partition %d: restored %d records in %.2f s", self.partition, count, took)

    async def _starting_point(self, store: StateStore, consumer: AIOKafkaConsumer) -> Ledger:
        """Agree on where to go on: state, group and log. The consumer is assigned here, and sought before it fetches."""
        stored = store.ledger
        expected = Ledger(
            epoch=self._worker.semantics.epoch,
            partitions=self._topology.partitions,
            sources=self._topology.sources,
            positions=(),
            applied=0,
            watermark_ms=0,
            lineage=uuid4().hex,
        )
        beginnings = await consumer.beginning_offsets(self._places)
        ends = await consumer.end_offsets(self._places)
        group = await group_offsets(self._settings, self._places)
        ledger = starting_point(
            decode_ledger(stored) if stored is not None else None,
            expected,
            [group.get(place) for place in self._places],
            [beginnings[place] for place in self._places],
            [ends[place] for place in self._places],
            f"Partition {self.partition}",
        )
        consumer.assign(self._places)
        return ledger

    # -- fetching --------------------------------------------------------------------------------------------------

    def _full(self) -> bool:
        return self._merge.size >= self._settings.buffer_max or self._bytes >= BUFFER_BYTES_MAX

    async def _fetch(self) -> None:
        """Fetch for ever, while there is room; the grace of what comes runs while the batch before it is committed."""
        consumer = self._open_part(self._consumer)
        while True:
            while self._full() and not self._starved:
                self._room.clear()
                await self._room.wait()
            self._pause_full_sources(consumer)
            fetched = await fetch(consumer, timeout_ms=FETCH_WAIT_MS)
            if fetched:
                self._buffer(fetched)
            else:
                self._require_topics(consumer)
            self._arrived.set()

    def _buffer(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Decode what was fetched into the merge. No await between the fetch and this: `_idle` goes by positions."""
        begun, dropped = time.perf_counter(), self._positions.dropped
        for place, records in fetched.items():
            source = self._source_of[place]
            self._merge.push(source, self._read(source, self._positions.accept(source, records)))
        self._worker.metrics.dropped.inc(self._positions.dropped - dropped)
        self._worker.metrics.seconds["decode"].inc(time.perf_counter() - begun)

    def _require_topics(self, consumer: AIOKafkaConsumer) -> None:
        """Raise BadSettings for a source topic that is gone for longer than metadata takes to settle: it was deleted."""
        gone = [place.topic for place in self._places if consumer.partitions_for_topic(place.topic) is None]
        if not gone:
            self._gone_since = math.inf
            return
        now = time.monotonic()
        self._gone_since = min(self._gone_since, now)
        if now - self._gone_since > TOPIC_GONE_S:
            raise BadSettings(
                f"Topics are gone: {', '.join(gone)}. Create them again, and raise semantics.epoch by one"
            )

    def _read(self, source: int, records: Sequence[ConsumerRecord]) -> list[Inbound]:
        read, now = self._intake.read, time.monotonic()
        out = []
        for record in records:
            arrival_ms = arrival_of(record.timestamp, record.headers)
            inbound = read(source, record.offset, record.key, record.value, arrival_ms)
            inbound.received = now
            self._bytes += len(record.value or b"")
            out.append(inbound)
        return out

    def _pause_full_sources(self, consumer: AIOKafkaConsumer) -> None:
        """Hold back topics that run ahead while another is waited for, so that none can starve another."""
        limit = self._settings.buffer_max
        full = {place for source, place in enumerate(self._places) if self._merge.buffered(source) >= limit}
        paused = consumer.paused()
        if full - paused:
            consumer.pause(*(full - paused))
        if paused - full:
            consumer.resume(*(paused - full))

    async def _idle(self) -> list[int]:
        """Return the empty topics that are at their end, by position: a log may end in control records that nobody sees."""
        consumer = self._open_part(self._consumer)
        idle = []
        for source in self._merge.empty_sources():
            place = self._places[source]
            end = consumer.last_stable_offset(place)
            if end == -1:  # a broker without transactions says so (librdkafka's mock)
                end = consumer.highwater(place)
            if end is not None and await consumer.position(place) >= end:
                idle.append(source)
        return idle

    def _patience_s(self, idle: list[int]) -> float | None:
        """Return how long until the grace of the first record is over, if that is all it waits for; None for an arrival."""
        first = self._merge.first_received()
        if first is None or len(idle) < len(self._merge.empty_sources()):
            return None
        return max(0.0, first + self._grace_s - time.monotonic())

    # -- batches ---------------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        """Hand over batch after batch, each when the one before is committed."""
        while True:
            self._arrived.clear()
            await self._eraser.finish()
            idle = await self._idle()
            begun = time.perf_counter()
            records = self._merge.take(self._settings.batch_max, idle, time.monotonic() - self._grace_s)
            self._worker.metrics.seconds["merge"].inc(time.perf_counter() - begun)
            self._starved = not records  # with full buffers: a topic is waited for, and only fetching helps
            self._room.set()
            if records:
                await self._hand_over(records)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience_s(idle)):
                        await self._arrived.wait()

    async def _hand_over(self, records: list[Inbound]) -> None:
        self._bytes -= sum(len(record.value or b"") for record in records)
        oldest = min(map(attrgetter("received"), records))
        self._worker.metrics.waited.observe(time.monotonic() - oldest)
        done = asyncio.get_running_loop().create_future()
        await self._worker.hand_over(Batch(session=self, records=records, oldest=oldest, done=done))
        await done

    def apply(self, batch: Batch) -> None:
        """Compute a batch, now, and start its commit. Called by the agent, which never waits here.

        Raises:
            EventCrash: the engine raised on an event.
        """
        store = self._open_part(self._store)
        references, models = self._worker.references, self._worker.models
        begun, asked = time.perf_counter(), models.seconds
        step = self._engine.step(
            batch.records,
            store.get,
            self._state,
            references.catalogue,
            references.policies,
            self._isolated,
            models.current,
            timers=self._timers,
        )
        in_model = models.seconds - asked
        self._worker.metrics.seconds["model"].inc(in_model)
        self._worker.metrics.seconds["engine"].inc(time.perf_counter() - begun - in_model)
        self.committing = asyncio.create_task(self._commit_batch(batch, step), name=f"commit-{self.partition}")

    async def _commit_batch(self, batch: Batch, step: Step) -> None:
        begun, store = time.perf_counter(), self._open_part(self._store)
        positions = list(self._ledger.positions)
        for record in batch.records:
            positions[record.source] = record.offset + 1
        ledger = Ledger(
            epoch=self._worker.semantics.epoch,
            partitions=self._topology.partitions,
            sources=self._topology.sources,
            positions=tuple(positions),
            applied=step.partition.applied,
            watermark_ms=step.partition.watermark_ms,
            lineage=self._ledger.lineage,
        )
        expired = self._sweep(store, ledger.watermark_ms - self._worker.semantics.state_ttl_ms)
        async with asyncio.timeout(self._settings.commit_timeout_s):  # aiokafka retries a transaction without end
            await self._commit.commit(step, ledger, expired)
        self._state, self._ledger = step.partition, ledger
        self._timers.apply(step.timers)
        if step.erased:
            self._eraser.ask()
        self._observe(batch, step, begun)
        if not batch.done.done():
            batch.done.set_result(None)

    def _sweep(self, store: StateStore, before_ms: int) -> list[tuple[bytes, bytes]]:
        """Return users to expire, from a walk over some of them now and then; when does not matter, they read as empty."""
        now = time.monotonic()
        if now - self._swept_at < SWEEP_EVERY_S:
            return []
        self._swept_at = now
        return store.expired(before_ms, SWEEP_KEYS)

    def _observe(self, batch: Batch, step: Step, begun: float) -> None:
        self.committed_at = now = time.monotonic()
        commit_s, store_s = time.perf_counter() - begun, self._commit.write_s
        self._worker.metrics.committed(step, len(batch.records), commit_s, store_s, now - batch.oldest)
        if self._isolated:
            self._worker.crashes.forget(self._topology.sources, self.partition, self._ledger.positions)

    def gauge(self, now: float, now_s: float) -> None:
        """Set this partition's gauges, for whoever reads the metrics; `now` is monotonic, `now_s` Unix time, in seconds."""
        if self._consumer is None or self._store is None or not self.restored:
            return
        metrics = self._worker.metrics
        for place, at in zip(self._places, self._ledger.positions, strict=True):
            behind = (self._consumer.highwater(place) or 0) - at
            metrics.lag.labels(place.topic, self.partition).set(max(0, behind))
        metrics.users.labels(self.partition).set(self._store.users())
        metrics.pending_draws.labels(self.partition).set(len(self._timers))
        committed_at = self.committed_at or self.opened_at  # a marker was, as it was opened
        metrics.last_commit.labels(self.partition).set(now_s - (now - committed_at))

    # -- state -----------------------------------------------------------------------------------------------------

    @property
    def lag(self) -> int:
        """Records of the sources beyond what is committed, as far as the last fetch has told."""
        if self._consumer is None or not self.restored:
            return 0
        ends = (self._consumer.highwater(place) for place in self._places)
        return sum(max(0, (end or 0) - at) for end, at in zip(ends, self._ledger.positions, strict=True))

    def broker_answered_ms(self) -> int:
        """Return the Unix time in ms of the last fetch response, 0 before the first."""
        if self._consumer is None or not self.restored:
            return 0
        return max(self._consumer.last_poll_timestamp(place) or 0 for place in self._places)

    @staticmethod
    def _open_part(part: Any) -> Any:  # noqa: ANN401 - one guard for four kinds of part
        if part is None:
            raise asyncio.CancelledError  # closed meanwhile
        return part

    def state_of(self, user: str) -> bytes | None:
        """Return the stored state of `user`, None if there is none here."""
        return self._store.get(user.encode()) if self._store is not None and self.restored else None

    async def close(self, timeout_s: float) -> None:
        """Wait for the batch in flight, at most `timeout_s`, then let go of everything.

        A commit that takes longer is left to its fate: the next owner's producer fences it, and either it has happened or
        it has not; nothing was written here that says otherwise.
        """
        self.closing = True
        if self.committing is not None and not self.committing.done():
            await asyncio.wait({self.committing}, timeout=timeout_s)
            self.committing.cancel()
        await stop(self._consumer, self._producer, timeout_s=timeout_s)
        if self._store is not None:
            await self._store.settle()
            self._store.close()
        self._worker.models.release(self._engine)
        self._consumer = self._producer = self._store = None
