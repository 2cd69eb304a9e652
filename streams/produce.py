"""Putting a log (contracts.log) into Kafka: reference topics first, then consents and events in production order.

Records are packed into batches here and sent with explicit partitions, so that a log gives the same offsets as the
backtest counts. The record's timestamp is the time of sending (one of 2019 would fall to retention); when the shop sent
it travels in the header `arrival_ms`. Not here: making logs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from contracts.errors import BadInput, BadSettings, BrokerUnavailable
from contracts.intake import ARRIVAL_HEADER
from contracts.log import Log, ReferenceRecord, catalogue_records, policy_records, records
from contracts.semantics import KINDS, Topology
from streams.broker import SCHEMA_HEADER, administering, require_topics, stable_ends
from streams.broker import partitions_of as places_of
from streams.producer import BATCH_BYTES_MAX, REQUEST_BYTES_MAX
from streams.settings import Settings

STOP_S_MAX = 5.0
IN_FLIGHT_MAX = 64
"""Batches sent and not yet acknowledged."""
TICK_S = 0.005
"""Events due within it are sent at once, in one batch per partition."""
PROGRESS_EVERY = 1_000

Progress = Callable[[int], None]


def check_partitions(settings: Settings, log: Log) -> None:
    """Refuse to make topics that `log` does not fit.

    Raises:
        BadSettings: `topics.partitions` is not what the log's manifest says.
    """
    if settings.topics.partitions != log.manifest.topology.partitions:
        raise BadSettings(
            f"topics.partitions is {settings.topics.partitions}, the log at {log.directory} was made for "
            f"{log.manifest.topology.partitions}: give --partitions {log.manifest.topology.partitions}"
        )


def check_target(settings: Settings, log: Log) -> list[str]:
    """Return warnings about producing `log` where `settings` point.

    Raises:
        BadSettings: a topic is missing, or partitions or the mapping of kinds to topics differ from the log's manifest.
    """
    theirs, ours = log.manifest.topology, settings.topics.topology
    topics = settings.topics
    counts = require_topics(settings, [*ours.sources, topics.catalogue, topics.policies])
    for topic in ours.sources:
        if counts[topic] != theirs.partitions:
            raise BadSettings(
                f"Topic {topic!r} has {counts[topic]} partitions, the log at {log.directory} was made for "
                f"{theirs.partitions}: make the log or the topics anew with --partitions"
            )
    if any(ours.source_of(kind) != theirs.source_of(kind) for kind in KINDS):
        raise BadSettings(
            f"The log maps kinds of events to the topics {list(theirs.sources)}, the settings to {list(ours.sources)}: "
            "let the same kinds share a topic in the settings under `topics`"
        )
    return [*_names_differ(ours, theirs), *_not_empty(settings, counts)]


def _names_differ(ours: Topology, theirs: Topology) -> list[str]:
    if ours.sources == theirs.sources:
        return []
    return [
        f"the log's topics are {', '.join(theirs.sources)}, here they are {', '.join(ours.sources)}: decision ids are made "
        "from topic names, so they will differ from a backtest of this log"
    ]


def _not_empty(settings: Settings, counts: dict[str, int]) -> list[str]:
    with administering(settings) as admin:
        ends = stable_ends(admin, places_of(counts))
    full = sorted({place.topic for place, end in ends.items() if end > 0})
    if not full:
        return []
    return [
        f"not empty: {', '.join(full)}. Offsets, and with them decision ids, will differ from a backtest of this log; "
        "`pricetide record` captures what really happened"
    ]


def produce(
    settings: Settings,
    log: Log,
    *,
    speed: float | None = None,
    tick_s: float = TICK_S,
    progress: Progress = lambda _: None,
) -> int:
    """Send the whole log and wait for the broker's word; return the number of event and consent records.

    Args:
        settings: where Kafka is; see `check_target` for what must fit.
        log: an opened log.
        speed: times real time by `arrival_ms`; None: as fast as it goes.
        tick_s: how far events may be sent ahead of their time, in one batch with those before; with `speed` only.
        progress: called with numbers of records that were sent.

    Raises:
        BrokerUnavailable: the broker stopped answering; what was sent before remains there.
        BadInput: a record is too large for its topic.
    """
    try:
        return asyncio.run(_produce(settings, log, _Pace(speed, tick_s) if speed is not None else None, progress))
    except MessageSizeTooLargeError as error:
        raise BadInput(
            f"The broker refused a batch as too large: {error}. Raise max.message.bytes of the topic"
        ) from error
    except (KafkaError, TimeoutError) as error:
        raise BrokerUnavailable(
            f"Producing to {settings.kafka.bootstrap_servers} failed: {error!r}. Try again"
        ) from error


async def _produce(settings: Settings, log: Log, pace: _Pace | None, progress: Progress) -> int:
    producer = AIOKafkaProducer(
        **settings.kafka.client(),
        enable_idempotence=True,
        acks="all",
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=REQUEST_BYTES_MAX,
        request_timeout_ms=settings.kafka.request_timeout_ms,
        compression_type=settings.kafka.compression,
    )
    await producer.start()
    try:
        lanes = _Lanes(producer, 2 * settings.kafka.request_timeout_ms / 1000)
        await _send_reference(lanes, settings.topics.catalogue, catalogue_records(log))
        await _send_reference(lanes, settings.topics.policies, policy_records(log))
        await lanes.finish()
        return await _send_events(lanes, settings.topics.topology.sources, log, pace, progress)
    finally:
        with suppress(TimeoutError):  # it would flush first, for ever if the broker is gone
            async with asyncio.timeout(STOP_S_MAX):
                await producer.stop()


async def _send_reference(lanes: _Lanes, topic: str, reference: Iterable[ReferenceRecord]) -> None:
    for record in reference:  # events keep the arrivals of the log, so what was there before them must, too
        headers = [(ARRIVAL_HEADER, b"%d" % (record.arrival_ms or 0)), SCHEMA_HEADER]
        await lanes.send(topic, 0, record.key, record.value, headers)


async def _send_events(lanes: _Lanes, topics: tuple[str, ...], log: Log, pace: _Pace | None, progress: Progress) -> int:
    arrival_ms, headers = -1, [SCHEMA_HEADER]
    count = reported = 0
    for record in records(log):
        if record.arrival_ms != arrival_ms:
            arrival_ms = record.arrival_ms
            headers = [(ARRIVAL_HEADER, b"%d" % arrival_ms), SCHEMA_HEADER]
            if pace is not None and (wait_s := pace.until(arrival_ms)) > pace.tick_s:
                await lanes.flush()
                progress(count - reported)
                reported = count
                await asyncio.sleep(wait_s)
        topic, partition = topics[record.source], record.partition
        if not lanes.append(topic, partition, record.key, record.value, headers):
            await lanes.send(topic, partition, record.key, record.value, headers)
        count += 1
        if count - reported >= PROGRESS_EVERY:
            progress(count - reported)
            reported = count
    await lanes.finish()
    progress(count - reported)
    return count


class _Pace:
    """When a record is due: its distance from the first record, divided by the speed."""

    def __init__(self, speed: float, tick_s: float) -> None:
        self.tick_s = tick_s
        self._speed = speed
        self._first_ms: int | None = None
        self._begun_s = 0.0

    def until(self, arrival_ms: int) -> float:
        """Return the seconds until a record of `arrival_ms` is due; negative when it is late."""
        if self._first_ms is None:
            self._first_ms, self._begun_s = arrival_ms, time.monotonic()
        return self._begun_s + (arrival_ms - self._first_ms) / 1000 / self._speed - time.monotonic()


class _Lanes:
    """One open batch per topic partition. A full one is sent; its order among the others does not matter to anyone."""

    def __init__(self, producer: AIOKafkaProducer, patience_s: float) -> None:
        self._producer = producer
        self._patience_s = patience_s
        """Longest wait for one batch: an idempotent producer of aiokafka's retries without end."""
        self._open: dict[tuple[str, int], Any] = {}
        self._sent: deque[asyncio.Future[Any]] = deque()

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> bool:
        """Put a record into the open batch of its lane; False if there is none or it is full."""
        batch = self._open.get((topic, partition))
        return batch is not None and batch.append(timestamp=None, key=key, value=value, headers=headers) is not None

    async def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        """Put a record into its lane, sending the lane's batch first if it is full."""
        if self.append(topic, partition, key, value, headers):
            return
        await self._submit((topic, partition))
        self._open[topic, partition] = self._producer.create_batch()
        if not self.append(topic, partition, key, value, headers):
            raise BadInput(
                f"A record of {len(value or b'')} bytes for {topic!r} does not fit a batch of {BATCH_BYTES_MAX}"
            )

    async def flush(self) -> None:
        """Send every open batch."""
        for lane in list(self._open):
            await self._submit(lane)

    async def finish(self) -> None:
        """Send every open batch and wait until the broker has all of them."""
        await self.flush()
        while self._sent:
            await self._oldest()

    async def _submit(self, lane: tuple[str, int]) -> None:
        batch = self._open.pop(lane, None)
        if batch is None:
            return
        batch.close()
        async with asyncio.timeout(self._patience_s):
            self._sent.append(await self._producer.send_batch(batch, lane[0], partition=lane[1]))
        while len(self._sent) > IN_FLIGHT_MAX:
            await self._oldest()

    async def _oldest(self) -> None:
        """Wait until the broker has the batch sent longest ago."""
        async with asyncio.timeout(self._patience_s):
            await self._sent.popleft()
