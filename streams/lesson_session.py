"""What one policy learns, from the fence to the end: fence, find the last version, recall, then fetch, learn, publish.

The topic `outcomes` is the truth, and the last version says how far of it was learned: whatever happened to a learner, the next
one goes on from there, and nothing is learned twice. Outcomes of all partitions are merged by (resolve time, partition, offset)
within what has arrived: a partition whose fetch position is behind its stable end is waited for, one at its end is not. What
lies between two versions is learned sorted, so the versions on the topic say it all. Bounded: about `learner.version_outcomes`
records are buffered, and a fetch of each partition, and as many taken. Not here: what is learned from an outcome
(pricing.lessons), the transaction (streams.version_writer).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from msgspec import Struct

from contracts.errors import UNREADABLE, BadSettings
from contracts.learned import Learned
from contracts.merge import Merge
from contracts.outcomes import Outcome, decode_outcome
from contracts.policies import Policy
from contracts.rules import Features, LearningRule
from pricing.lessons import Lesson, Lessons
from streams.closing import stop
from streams.learner_metrics import LearnerMetrics
from streams.policy_log import PolicyLog, read_policy_log
from streams.reference import References
from streams.settings import Settings
from streams.source_consumer import FETCH_WAIT_MS, fetch, source_consumer
from streams.version_writer import VersionWriter

logger = logging.getLogger(__name__)
BUFFERED_MIN = 100
"""Records buffered of a partition before it is held back, at least; a fetch may bring more."""
in_order = attrgetter("order_ms", "partition", "offset")


class LessonBatch(Struct, eq=False):
    """What the agent gets: outcomes in the order of learning, and where to say that their version is committed."""

    session: LessonSession
    lessons: list[Lesson]
    done: asyncio.Future[None]


class Classroom(Struct, frozen=True, kw_only=True):
    """What all sessions of a learner share."""

    settings: Settings
    references: References
    metrics: LearnerMetrics
    hand_over: Callable[[LessonBatch], Coroutine[Any, Any, None]]


class LessonSession:
    """The learning of one policy. `run` until cancelled, then `close`."""

    def __init__(self, room: Classroom, policy: Policy) -> None:
        self.policy = policy
        self.opened = False
        self.progress_at = time.monotonic()
        """When it last published, or began."""
        self._room = room
        self._limit = room.settings.learner.version_outcomes
        self._gone: set[str] = set()
        """Versions of policies that outcomes name and that have left their topic."""
        partitions = range(room.settings.topics.partitions)
        self._places = [TopicPartition(room.settings.topics.outcomes, partition) for partition in partitions]
        self._merge = Merge[Lesson](len(self._places))
        self._room_each = max(self._limit // len(self._places), BUFFERED_MIN)
        self._highest = [0] * len(self._places)
        self._taken: list[Lesson] = []
        self._taken_at = 0.0
        self._writer = VersionWriter(room.settings, policy)
        self._consumer: AIOKafkaConsumer = source_consumer(room.settings)
        self.committing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Open, then learn until cancelled."""
        await self._open()
        more = False
        while True:
            self._pause_full()
            self._buffer(await fetch(self._consumer, timeout_ms=0 if more else FETCH_WAIT_MS))
            await self._take()
            more = len(self._taken) >= self._limit
            if self._due():
                await self._hand_over()

    # -- opening ---------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        await self._writer.open()  # before the last version is looked for: nobody can publish another one from here on
        log = await asyncio.to_thread(read_policy_log, self._room.settings)
        self._writer.know(log)
        last = log.book.learned.newest(self.policy.name, self.policy.number)
        self._lessons = Lessons(self.policy, len(self._places), last, self._features_of)
        await self._consumer.start()
        self._consumer.assign(self._places)
        await self._find_positions(last)
        recalled = await self._recall()
        for place, position in zip(self._places, self._lessons.positions, strict=True):
            self._consumer.seek(place, position)
        self.opened = True
        self._say_opened(last, recalled, log)

    def _features_of(self, version: str) -> Features | None:
        policy = self._room.references.policies.find(version)
        return policy.rule.features if policy is not None and isinstance(policy.rule, LearningRule) else None

    async def _find_positions(self, last: Learned | None) -> None:
        """See that the positions of the last version lie in the topic; without one, begin with what is retained.

        Raises:
            BadSettings: the topic is not the one that was learned from.
        """
        if last is not None and len(last.positions) != len(self._places):
            raise BadSettings(
                f"What {last.policy} has learned is from {len(last.positions)} partitions of outcomes, the settings say "
                f"{len(self._places)}: set topics.partitions back, or publish the policy under a new number"
            )
        firsts = await self._consumer.beginning_offsets(self._places)
        ends = await self._consumer.end_offsets(self._places)
        self._firsts = [firsts[place] for place in self._places]
        for partition, place in enumerate(self._places):
            at = self._lessons.positions[partition]
            if at > ends[place]:
                raise BadSettings(
                    f"{self.policy.version} has learned {place.topic}/{partition} up to {at}, it ends at {ends[place]}: the "
                    "topic was recreated. Publish the policy under a new number"
                )
            if at < firsts[place] and last is not None:
                logger.warning("%s: retention removed %d outcomes of partition %d that were never learned; raise "
                               "topics.decisions_retention_ms", self.policy.version, firsts[place] - at, partition)  # fmt: skip
            self._lessons.positions[partition] = max(at, firsts[place])

    async def _recall(self) -> int:
        """Read what was learned again as far as users are remembered from it; return how many records."""
        count, until = 0, list(self._lessons.positions)
        starts = [max(begin, first) for begin, first in zip(self._lessons.begins, self._firsts, strict=True)]
        for place, start in zip(self._places, starts, strict=True):
            self._consumer.seek(place, start)
        left = {place for place, start, end in zip(self._places, starts, until, strict=True) if start < end}
        while left:
            self._consumer.pause(*(set(self._places) - left))
            for place, records in (await fetch(self._consumer, timeout_ms=FETCH_WAIT_MS)).items():
                for lesson in self._read(
                    place.partition, (one for one in records if one.offset < until[place.partition])
                ):
                    self._lessons.recall(lesson)
                    count += 1
            left = {place for place in left if await self._consumer.position(place) < until[place.partition]}
        self._consumer.resume(*self._consumer.paused())
        return count

    def _say_opened(self, last: Learned | None, recalled: int, log: PolicyLog) -> None:
        lag = sum(self._ends_behind())
        known = "nothing yet" if last is None else f"version {last.version}, {last.outcomes} outcomes"
        logger.info("%s: knows %s; recalled %d records, at least %d to go", self.policy.version, known, recalled, lag)

    # -- fetching --------------------------------------------------------------------------------------------------

    def _read(self, partition: int, records: Iterable[ConsumerRecord]) -> list[Lesson]:
        """Decode records of one partition; its time never falls."""
        lessons, now = [], time.monotonic()
        for record in records:
            outcome: Any = None
            if record.value is not None:  # else erased
                try:
                    outcome = decode_outcome(record.value)
                except UNREADABLE as error:
                    topic = self._room.settings.topics.outcomes
                    logger.error("%s/%d offset %d is no outcome: %s", topic, partition, record.offset, error)
                    self._room.metrics.unreadable.labels(self.policy.version).inc()
            outcome = outcome if isinstance(outcome, Outcome) else None
            if outcome is not None:
                self._highest[partition] = max(self._highest[partition], outcome.resolved_ms)
            lessons.append(Lesson(self._highest[partition], partition, record.offset, outcome, now))
        return lessons

    def _buffer(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        for place, records in fetched.items():
            self._merge.push(place.partition, self._read(place.partition, records))

    def _pause_full(self) -> None:
        """Hold back partitions that run ahead while another is waited for."""
        full = {place for place in self._places if self._merge.buffered(place.partition) >= self._room_each}
        paused = self._consumer.paused()
        if full - paused:
            self._consumer.pause(*(full - paused))
        if paused - full:
            self._consumer.resume(*(paused - full))

    async def _take(self) -> None:
        """Take what nothing of a partition that has more can precede; wait for policies that it names and nobody knows."""
        idle = []
        for partition in self._merge.empty_sources():
            place = self._places[partition]
            end = self._consumer.last_stable_offset(place)
            if end is not None and await self._consumer.position(place) >= end:
                idle.append(partition)
        taken = self._merge.take(self._limit - len(self._taken), idle)
        if taken and not self._taken:
            self._taken_at = time.monotonic()
        self._taken += taken
        named = {one.outcome.policy for one in taken if one.outcome is not None} - self._gone
        find = self._room.references.policies.find
        if any(find(version) is None for version in named):
            await self._room.references.caught_up()
            self._gone |= {version for version in named if find(version) is None}

    def _due(self) -> bool:
        waited_s = time.monotonic() - self._taken_at
        return len(self._taken) >= self._limit or (
            len(self._taken) > 0 and waited_s >= self._room.settings.learner.version_seconds
        )

    # -- learning --------------------------------------------------------------------------------------------------

    async def _hand_over(self) -> None:
        done = asyncio.get_running_loop().create_future()
        lessons, self._taken = sorted(self._taken, key=in_order), []
        await self._room.hand_over(LessonBatch(session=self, lessons=lessons, done=done))
        await done

    def apply(self, batch: LessonBatch) -> None:
        """Learn a batch, now, and start to publish the version. Called by the agent, which never waits here."""
        begun, version = time.perf_counter(), self.policy.version
        metrics, before = self._room.metrics, self._lessons.knowledge.outcomes
        for lesson in batch.lessons:
            why = self._lessons.learn(lesson)
            if why is not None:
                metrics.left.labels(version, why).inc()
        record = self._lessons.version()
        metrics.learned.labels(version).inc(record.outcomes - before)
        metrics.seconds.labels(version).inc(time.perf_counter() - begun)
        self.committing = asyncio.create_task(self._publish(batch, record), name=f"publish-{version}")

    async def _publish(self, batch: LessonBatch, record: Learned) -> None:
        now_s = time.time()
        await self._writer.publish(record, int(now_s * 1000))
        self.progress_at = time.monotonic()
        self._room.metrics.observe(record, now_s)
        logger.info("%s: version %d, %d records gone past, %d outcomes in all, lambda %.4g, %d stragglers", record.policy,
                    record.version, len(batch.lessons), record.outcomes, record.discount_weight, record.stragglers)  # fmt: skip
        if not batch.done.done():
            batch.done.set_result(None)

    # -- state -----------------------------------------------------------------------------------------------------

    def _ends_behind(self) -> list[int]:
        """Return, per partition, the records beyond the last version, as far as the last fetch has told."""
        ends = [self._consumer.last_stable_offset(place) for place in self._places]
        return [max(0, (end or 0) - at) for end, at in zip(ends, self._lessons.positions, strict=True)]

    @property
    def lag(self) -> int:
        """Records of the topic beyond what was learned."""
        return sum(self._ends_behind()) if self.opened else 0

    async def close(self, timeout_s: float) -> None:
        """Wait for a version under way, at most `timeout_s`, then let go of everything."""
        if self.committing is not None and not self.committing.done():
            await asyncio.wait({self.committing}, timeout=timeout_s)
            self.committing.cancel()
        await stop(self._consumer, self._writer, timeout_s=timeout_s)
