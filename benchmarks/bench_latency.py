"""From event to committed price at 1,000 events/s: what a reader of committed records waits after the shop has sent.

One process plays shop and reader: it sends real events at a steady pace, stamped with the time of sending, and looks at the
clock when a fetch hands it the price update that carries this stamp (`valid_from_ms`). So the latency holds the producer's
way in, merge grace, batch, transaction and the reader's fetch. The stamp is cut to whole ms: up to 1 ms too much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec import Struct
from msgspec.structs import replace

from benchmarks.lab import Deployment, Lab
from benchmarks.logs import rewritten
from benchmarks.process import cpu_seconds
from benchmarks.report import Claim, Report
from contracts.log import Addresses
from contracts.log_rows import EventRow, event_value
from contracts.semantics import Topology
from streams.settings import Settings

EVENTS_PER_S = 1_000
WARM_UP_S, MEASURED_S = 20, 30
WARM_UP_QUICK_S, MEASURED_QUICK_S = 2, 4
SETTLE_S = 3
"""After the last event, for its price to come."""
PARTITIONS = (1, 2, 4)
"""Every partition of a worker has transactions of its own, some thirty a second; they are most of what worker and broker do
at this rate."""
PARTITIONS_JUDGED = 2
"""One per core."""
TICK_S = 0.005
"""What a shop front end gathers before it sends; the wait is not in an event's latency: it is stamped as it is sent."""
P50_OVER_GRACE_MS = 25
P99_OVER_GRACE_MS = 60

Sending = tuple[str, int, bytes | None, bytes | None]
"""Topic, partition, key, value."""


class _Stamp(Struct):
    valid_from_ms: int


_stamp = msgspec.json.Decoder(_Stamp).decode


class Waits(Struct):
    """What the prices of one worker took."""

    partitions: int
    waited_ms: list[int]
    late: int
    """Events that the shop sent more than 10 ms late."""
    worker_cores: float
    broker_cores: float

    def percentile(self, percent: float) -> float:
        """Return a percentile of the waits, in ms."""
        return float(np.percentile(self.waited_ms, percent))


def run(lab: Lab) -> Report:
    """Measure one worker with all that it reads by the way, with as many partitions as PARTITIONS says."""
    warm_s, measured_s = (WARM_UP_QUICK_S, MEASURED_QUICK_S) if lab.quick else (WARM_UP_S, MEASURED_S)
    rows = list(islice(lab.log.rows(), (warm_s + measured_s) * EVENTS_PER_S))
    runs = [_waits(lab, partitions, rows, warm_s * EVENTS_PER_S) for partitions in PARTITIONS]
    judged = next(it for it in runs if it.partitions == PARTITIONS_JUDGED)
    grace_ms = Settings.model_fields["merge_grace_ms"].default
    late = ", ".join(f"{it.late:,}" for it in runs)
    return Report(
        name="latency",
        title=f"From event to committed price at {EVENTS_PER_S:,} events/s, {measured_s} s, merge grace {grace_ms} ms",
        columns=("partitions", "prices", "p50 ms", "p95 ms", "p99 ms", "max ms", "worker cores", "broker cores"),
        rows=[
            (
                it.partitions,
                len(it.waited_ms),
                *map(it.percentile, (50, 95, 99, 100)),
                it.worker_cores or None,
                it.broker_cores or None,
            )
            for it in runs
        ],
        claims=[
            _claim(judged, 50, grace_ms + P50_OVER_GRACE_MS),
            _claim(judged, 99, grace_ms + P99_OVER_GRACE_MS),
        ],
        notes=[f"The shop was late with {late} of {len(rows):,} events by more than 10 ms (this machine was busy)."],
        wrong=[text for it in runs for text in _missing(rows[warm_s * EVENTS_PER_S :], len(it.waited_ms))],
    )


def _claim(waits: Waits, percent: int, limit_ms: float) -> Claim:
    what = f"p{percent} with {waits.partitions} partitions"
    return Claim(what=what, measured=waits.percentile(percent), limit=limit_ms, unit="ms", at_least=False)


def _waits(lab: Lab, partitions: int, rows: list[EventRow], warm_up: int) -> Waits:
    topology = replace(lab.log.manifest.topology, partitions=partitions)
    empty = rewritten(lab.log, lab.work / f"log-catalogue-{partitions}", topology, 0)
    deployment = lab.deploy(empty)
    with lab.worker(deployment) as worker:
        begun, *cpu = time.monotonic(), cpu_seconds(worker.pid), cpu_seconds(lab.broker_pid)
        waited_ms, late = asyncio.run(_measure(deployment, rows, warm_up))
        seconds = time.monotonic() - begun - SETTLE_S
        cores = [
            (cpu_seconds(pid) - before) / seconds for pid, before in zip((worker.pid, lab.broker_pid), cpu, strict=True)
        ]
    lab.discard(deployment)
    return Waits(partitions, waited_ms, late, *cores)


def _missing(rows: Iterable[EventRow], prices: int) -> list[str]:
    """Every event of an item with a price leads to a price update; a withdrawal of consent to some more, or none."""
    least = sum(row.type != "consent" and bool(row.price) for row in rows)
    return [f"{prices} price updates for {least} events with a price"] if prices < least else []


async def _measure(deployment: Deployment, rows: list[EventRow], warm_up: int) -> tuple[list[int], int]:
    """Send `rows` at the pace; return what the prices of those after `warm_up` took, in ms, and how many came late."""
    settings = deployment.settings
    waits: list[tuple[int, int]] = []
    producer = AIOKafkaProducer(**settings.kafka.client(), acks="all", linger_ms=0)
    await producer.start()
    async with _reader(settings) as consumer:
        reading = asyncio.create_task(_read(consumer, waits))
        first_ms, late = await _send(producer, _records(rows, deployment.log.manifest.topology), warm_up)
        await asyncio.sleep(SETTLE_S)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    await producer.stop()
    return [waited for stamp, waited in waits if stamp >= first_ms], late


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a consumer of committed price updates that stands at the end of the topic."""
    consumer = AIOKafkaConsumer(
        **settings.kafka.client(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(settings.topics.price_updates, n) for n in range(settings.topics.partitions)])
        await consumer.seek_to_end()
        yield consumer
    finally:
        await consumer.stop()


def _records(rows: Iterable[EventRow], topology: Topology) -> Iterator[Sending]:
    """Yield the records of `rows`, each stamped with the time at which it is asked for."""
    addresses = Addresses(topology)
    for row in rows:
        row.event_time_ms = int(time.time() * 1000)
        source, partition, _, key = addresses.of(row)
        yield topology.sources[source], partition, key, event_value(row)


async def _send(producer: AIOKafkaProducer, records: Iterator[Sending], warm_up: int) -> tuple[int, int]:
    """Send at EVENTS_PER_S; return the time in ms after `warm_up` events, and how many were more than 10 ms late."""
    begun = time.monotonic()
    first_ms = count = late = 0
    while True:
        behind = (time.monotonic() - begun) * EVENTS_PER_S - count
        if behind < 1:
            await asyncio.sleep(TICK_S)
            continue
        record = next(records, None)
        if record is None:
            await producer.flush()
            return first_ms, late
        if count == warm_up:
            first_ms = int(time.time() * 1000)
        late += behind > EVENTS_PER_S * 0.010
        topic, partition, key, value = record
        await producer.send(topic, value, key, partition=partition)
        count += 1


async def _read(consumer: AIOKafkaConsumer, waits: list[tuple[int, int]]) -> None:
    """Append (stamp, ms waited) of every price update, until cancelled."""
    while True:
        fetched = await consumer.getmany(timeout_ms=1_000)
        now_ms = int(time.time() * 1000)
        for records in fetched.values():
            for record in records:
                stamp_ms = _stamp(record.value).valid_from_ms
                waits.append((stamp_ms, now_ms - stamp_ms))
