"""What a job published, read back as a reader of committed records sees it, and compared with the backtest's records.

Records are held as short digests, in order per partition: a whole log fits into memory. The oracle is backtest.replay on
the same log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from msgspec import Struct

from backtest.replay import Replay
from benchmarks.lab import Deployment
from contracts.log import Log
from features.vectors import TokenEncoder
from pricing.engine import Step
from streams.ledger import LEDGER_KEY, decode_ledger
from streams.settings import Settings

FETCH_BYTES_MAX = 4 << 20
POLL_MS = 1_000

Digests = list[list[bytes]]
"""By partition, one per record, in order."""


class Published(Struct):
    """Digests of what was, or must be, published."""

    prices: Digests
    decisions: Digests


def digest(key: bytes | None, value: bytes | None) -> bytes:
    """Return 16 bytes that stand for a record."""
    return blake2b(b"%d %b%b" % (len(key or b""), key or b"", value or b""), digest_size=16).digest()


def expected(log: Log, models: Mapping[str, TokenEncoder] = MappingProxyType({})) -> Published:
    """Return what the backtest publishes for `log`, with the model of `models` if there is one."""
    partitions = range(log.manifest.topology.partitions)
    wanted = Published([[] for _ in partitions], [[] for _ in partitions])

    def publish(partition: int, step: Step) -> None:
        wanted.prices[partition] += [digest(*record) for record in step.prices]
        wanted.decisions[partition] += [digest(*record) for record in step.decisions]

    Replay(log, models=models).run(publish)
    return wanted


def read_topic(
    settings: Settings, topic: str, partitions: int, take: Callable[[int, Sequence[ConsumerRecord]], None]
) -> None:
    """Give every committed record of `topic`, in order per partition, to `take(partition, records)`."""
    asyncio.run(_read_topic(settings, topic, partitions, take))


async def _read_topic(
    settings: Settings, topic: str, partitions: int, take: Callable[[int, Sequence[ConsumerRecord]], None]
) -> None:
    consumer = AIOKafkaConsumer(
        **settings.kafka.client(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
    )
    await consumer.start()
    try:
        places = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for place, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                take(place.partition, records)
    finally:
        await consumer.stop()


def published(deployment: Deployment) -> tuple[Published, tuple[int, int]]:
    """Return what was published, and the timestamps in ms of the first and the last decision."""
    topics = deployment.settings.topics
    found = Published([[] for _ in range(topics.partitions)], [[] for _ in range(topics.partitions)])
    times: list[int] = []

    def take_price(partition: int, records: Sequence[ConsumerRecord]) -> None:
        found.prices[partition] += [digest(record.key, record.value) for record in records]

    def take_decision(partition: int, records: Sequence[ConsumerRecord]) -> None:
        found.decisions[partition] += [digest(record.key, record.value) for record in records]
        times.extend((records[0].timestamp, records[-1].timestamp))

    read_topic(deployment.settings, topics.price_updates, topics.partitions, take_price)
    read_topic(deployment.settings, topics.decisions, topics.partitions, take_decision)
    return found, (min(times, default=0), max(times, default=0))


def differences(wanted: Published, found: Published) -> list[str]:
    """Return where the two part, a sentence per topic and partition; empty when all are equal, in order."""
    out = []
    for topic, ours, theirs in (
        ("price updates", wanted.prices, found.prices),
        ("decisions", wanted.decisions, found.decisions),
    ):
        for partition, (want, have) in enumerate(zip(ours, theirs, strict=True)):
            if want != have:
                pairs = zip(want, have, strict=False)
                at = next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(want), len(have)))
                missing, extra = len(set(want) - set(have)), len(set(have) - set(want))
                twice = len(have) - len(set(have))
                out.append(
                    f"{topic} of partition {partition}: {len(want)} wanted, {len(have)} published, {missing} missing, "
                    f"{extra} never wanted, {twice} twice, first difference at {at}"
                )
    return out


class Transactions(Struct):
    """The batches that a worker committed, by the ledger records of its changelog."""

    times_ms: list[int]
    events: list[int]
    """Events in each, in the order of `times_ms`."""
    changelog_bytes: int
    """Keys and values of the changelog's records."""
    changelog_records: int

    @property
    def rate(self) -> float:
        """Events per second from the first transaction to the last one; those of the first do not count."""
        seconds = (self.times_ms[-1] - self.times_ms[0]) / 1000
        return sum(self.events[1:]) / seconds if seconds > 0 else 0.0


def transactions(deployment: Deployment) -> Transactions:
    """Read the changelog of a deployment."""
    topics = deployment.settings.topics
    batches: list[tuple[int, int]] = []
    applied = [0] * topics.partitions
    size = count = 0

    def take(partition: int, records: Sequence[ConsumerRecord]) -> None:
        nonlocal size, count
        count += len(records)
        for record in records:
            size += len(record.key) + len(record.value or b"")
            if record.key == LEDGER_KEY:
                ledger = decode_ledger(record.value)
                if ledger.applied > applied[partition]:
                    batches.append((record.timestamp, ledger.applied - applied[partition]))
                    applied[partition] = ledger.applied

    read_topic(deployment.settings, topics.changelog, topics.partitions, take)
    batches.sort()
    return Transactions([at for at, _ in batches], [events for _, events in batches], size, count)
