"""Recovery of state from the changelog into an empty data directory: records and megabytes per second, all partitions at once.

One changelog is what a worker left behind of the log, and the restored stores must hold what its own do; the other one
holds full histories. Runs streams.recovery.restore as a worker does, one task a partition, in this process.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from msgspec import Struct
from rocksdict import AccessType, Cache, Options, Rdict

from benchmarks.full_histories import make_profile, seed
from benchmarks.lab import Deployment, Lab
from benchmarks.logs import PARTITIONS
from benchmarks.published import transactions
from benchmarks.report import Claim, Report
from streams.ledger import MARKER_KEY, OFFSET_KEY
from streams.producer import transactional_producer
from streams.recovery import commit_marker, restore
from streams.store import StateStore

RECORDS_PER_S_MIN, MEGABYTES_PER_S_MIN = 100_000, 60
USERS, USERS_QUICK = 20_000, 1_000
ROUNDS = 3


class Restored(Struct):
    """One recovery."""

    name: str
    records: int
    megabytes: float
    """Keys and values, 10^6 bytes."""
    seconds: float
    cpu_seconds: float

    @property
    def per_s(self) -> float:
        """Records per second."""
        return self.records / self.seconds

    @property
    def megabytes_per_s(self) -> float:
        """10^6 bytes per second."""
        return self.megabytes / self.seconds


def run(lab: Lab) -> Report:
    """Restore what a worker wrote for the log, and states of full histories."""
    normal = _restored("the log", lab.worked_off.deployment, lab.work / "restore-log")
    profile = make_profile(lab.work / "log-restore", USERS_QUICK if lab.quick else USERS, 0, PARTITIONS)
    deployment = lab.deploy(profile.log, fill=False)
    seed(deployment, profile)
    full = _restored("every history full", deployment, lab.work / "restore-full")
    lab.discard(deployment)
    return Report(
        name="recovery",
        title=f"Recovery from the changelog, {PARTITIONS} partitions, empty data directory, median of {ROUNDS}",
        columns=("changelog", "records", "MB", "s", "records/s", "MB/s", "CPU µs/record"),
        rows=[
            (
                it.name,
                it.records,
                it.megabytes,
                it.seconds,
                it.per_s,
                it.megabytes_per_s,
                it.cpu_seconds / it.records * 1e6,
            )
            for it in (normal, full)
        ],
        claims=[_claim(normal), _claim(full)],
        wrong=_unlike(lab.worked_off.deployment, lab.work / "restore-log"),
    )


def _claim(restored: Restored) -> Claim:
    """Either of the two limits is enough: small states are bound by their number, large ones by their bytes."""
    by_records = restored.per_s / RECORDS_PER_S_MIN >= restored.megabytes_per_s / MEGABYTES_PER_S_MIN
    return Claim(
        what=f"Recovery of {restored.name}",
        measured=restored.per_s if by_records else restored.megabytes_per_s,
        limit=RECORDS_PER_S_MIN if by_records else MEGABYTES_PER_S_MIN,
        unit="records/s" if by_records else "MB/s",
        at_least=True,
    )


def _restored(name: str, deployment: Deployment, directory: Path) -> Restored:
    """Restore ROUNDS times, each into a directory of its own, `directory` among them; return the median by time."""
    size = transactions(deployment).changelog_bytes
    rounds = []
    for number in range(ROUNDS):
        into = directory if number == 0 else directory.with_name(f"{directory.name}-{number}")
        records, seconds, cpu_seconds = asyncio.run(_restore(deployment, into))
        rounds.append(Restored(name, records, size / 1e6, seconds, cpu_seconds))
    return sorted(rounds, key=lambda it: it.seconds)[ROUNDS // 2]


async def _restore(deployment: Deployment, directory: Path) -> tuple[int, float, float]:
    settings = deployment.settings
    partitions = range(settings.topics.partitions)
    cache = Cache(settings.block_cache_bytes)
    markers = [await _marker(deployment, partition) for partition in partitions]
    stores = [StateStore(directory / str(partition), cache, settings.write_buffer_bytes) for partition in partitions]
    begun, cpu = time.perf_counter(), time.process_time()
    counts = await asyncio.gather(
        *(
            restore(settings, partition, store, marker, lambda left: None)
            for partition, store, marker in zip(partitions, stores, markers, strict=True)
        )
    )
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    for store in stores:
        store.close()
    return sum(counts), seconds, cpu


async def _marker(deployment: Deployment, partition: int) -> int:
    producer = transactional_producer(deployment.settings, partition)
    await producer.start()
    try:
        return await commit_marker(producer, deployment.settings.topics.changelog, partition)
    finally:
        await producer.stop()


def _unlike(deployment: Deployment, directory: Path) -> list[str]:
    """Compare the restored stores with those that the worker left behind: the same users, bytes and ledger."""
    settings = deployment.settings
    wrong = []
    for partition in range(settings.topics.partitions):
        theirs = settings.data_dir / "state" / settings.group / str(partition)
        found = [_contents(path) for path in (theirs, directory / str(partition))]
        if found[0] != found[1]:
            wrong.append(f"partition {partition}: the restored state is not the worker's")
    return wrong


def _contents(path: Path) -> dict[bytes, bytes]:
    """Return users and ledger of a store; what recovery adds for itself left out."""
    store = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    try:
        return {key: value for key, value in store.items() if key not in (MARKER_KEY, OFFSET_KEY)}
    finally:
        store.close()
