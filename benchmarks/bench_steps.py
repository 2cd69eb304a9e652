"""Microseconds of CPU per event for every step of the path, and where the rest of a worker's time goes.

The steps run one after another in this process, over the log as it lies in Kafka, partition by partition, with the worker's
own parts: each number is the CPU time of this process (all threads; the broker's is not in it) for a step over all events,
divided by them. Steps inside the engine are measured again on their own, on what the engine was given and gave; what is
left of the engine is the decision; what it takes less when it has seen the items before, and has no outcomes to tell, is
a row, too. The last rows compare the sum with what a whole worker used in bench_worker's job.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from statistics import fmean

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from rocksdict import Cache

from backtest.feed import References, Seen
from benchmarks.lab import Deployment, Job, Lab
from benchmarks.report import Cell, Report
from contracts.catalogue import CatalogueItem
from contracts.decisions import decode_decision, encode_decision
from contracts.events import Consent
from contracts.ids import DecisionIds
from contracts.intake import Inbound, Intake, arrival_of
from contracts.merge import Merge
from contracts.policies import PolicyBook
from contracts.prices import decode_price, encode_price
from features.fold import fold
from features.state import decode_state, encode_state
from pricing.draws import uniforms
from pricing.engine import Engine, PartitionState, Step
from pricing.garbage import collect_seldom
from pricing.menus import MenuShelf
from pricing.timers import Timers
from streams.commit import Commit
from streams.ledger import Ledger
from streams.producer import transactional_producer
from streams.store import StateStore

FETCH_BYTES_MAX = 1 << 20
"""As streams.session has it."""
SAMPLE_BATCHES = 4
"""Batches per partition, from the middle of the log, on which the parts of the engine are measured again."""
REPEATS = 3


class Clock:
    """CPU seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the CPU time of a block to `name`."""
        begun = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begun


class Path:
    """The path of the events of one partition, step by step, with a clock in between."""

    def __init__(
        self, lab: Lab, deployment: Deployment, partition: int, clock: Clock, seen: Seen, menus: MenuShelf
    ) -> None:
        self.clock = clock
        self.partition = partition
        self.settings = settings = deployment.settings
        self.topology = settings.topics.topology
        self.semantics = settings.engine_semantics
        self.batches: list[tuple[list[Inbound], dict[bytes, bytes | None], Step]] = []
        """Sampled: what a step was given, the states it loaded, what it gave."""
        self._store = StateStore(
            lab.work / "steps-store" / str(partition), Cache(settings.block_cache_bytes), settings.write_buffer_bytes
        )
        self.seen = seen
        self.engine = Engine(self.semantics, self.topology, partition, menus)

    async def run(self) -> int:
        """Take all events of the partition through every step; return how many there were."""
        fetched = await self._fetch()
        records = self._decode(fetched)
        batches = self._merge(records)
        producer = transactional_producer(self.settings, self.partition)
        await producer.start()
        try:
            await self._work_off(batches, Commit(self.settings, self.partition, producer, self._store, {}))
        finally:
            await producer.stop()
            self._store.close()
        return sum(map(len, batches))

    async def _fetch(self) -> list[list[ConsumerRecord]]:
        consumer = AIOKafkaConsumer(
            **self.settings.kafka.consumer(),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
        )
        await consumer.start()
        places = [TopicPartition(source, self.partition) for source in self.topology.sources]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        fetched: list[list[ConsumerRecord]] = [[] for _ in places]
        with self.clock.step("fetch (aiokafka)"):
            while any([await consumer.position(place) < end for place, end in ends.items()]):
                for place, records in (await consumer.getmany(timeout_ms=100)).items():
                    fetched[places.index(place)] += records
        await consumer.stop()
        return fetched

    def _decode(self, fetched: list[list[ConsumerRecord]]) -> list[list[Inbound]]:
        read = Intake(self.semantics, self.topology, self.partition).read
        with self.clock.step("decode and check (intake)"):
            return [
                [read(source, it.offset, it.key, it.value, arrival_of(it.timestamp, it.headers)) for it in records]
                for source, records in enumerate(fetched)
            ]

    def _merge(self, records: list[list[Inbound]]) -> list[list[Inbound]]:
        merge = Merge[Inbound](len(records))
        batches = []
        with self.clock.step("merge"):
            for source, inbounds in enumerate(records):
                merge.push(source, inbounds)
            while batch := merge.take(self.settings.batch_max, merge.empty_sources()):
                batches.append(batch)
        return batches

    async def _work_off(self, batches: list[list[Inbound]], commit: Commit) -> None:
        engine, state, timers = self.engine, PartitionState(), Timers()
        positions = [0] * len(self.topology.sources)
        middle = len(batches) // 2
        sampled = range(max(0, middle - SAMPLE_BATCHES // 2), middle + SAMPLE_BATCHES // 2)
        for number, batch in enumerate(batches):
            with self.clock.step(ENGINE):
                step = engine.step(
                    batch, self._store.get, state, self.seen.catalogue, self.seen.policies, timers=timers
                )
            if number in sampled:
                loaded = {inbound.key or b"": self._store.get(inbound.key or b"") for inbound in batch}
                self.batches.append((batch, loaded, step))
            state = step.partition
            timers.apply(step.timers)
            for inbound in batch:
                positions[inbound.source] = inbound.offset + 1
            await self._commit(commit, step, positions)

    async def _commit(self, commit: Commit, step: Step, positions: list[int]) -> None:
        ledger = Ledger(
            epoch=0, partitions=self.topology.partitions, sources=self.topology.sources, positions=tuple(positions),
            applied=step.partition.applied, watermark_ms=step.partition.watermark_ms,
        )  # fmt: skip
        write = self._store.write
        states = [*step.states.items(), *step.pending.items()]
        with self.clock.step(COMMIT):
            await commit.commit(step, ledger, ())
        with self.clock.step(STORE):  # a second time, to see it alone: the transaction's step holds it once, too
            write(states, self._store.changelog_offset)


ENGINE = "engine"
COMMIT = "send and commit (one transaction)"
STORE = "write to RocksDB"


def run(lab: Lab) -> Report:
    """Measure every step on a fresh deployment of the log, and compare with the worker's job."""
    worker = lab.worked_off
    deployment = lab.deploy(lab.log)
    clock, menus = Clock(), MenuShelf()
    seen = Seen(References(deployment.log), PolicyBook(), deployment.log.manifest.semantics.currency)
    seen.advance(inf, inf)
    collect_seldom()  # as a worker does when it has read the catalogue
    partitions = range(deployment.settings.topics.partitions)
    paths = [Path(lab, deployment, partition, clock, seen, menus) for partition in partitions]
    events = sum([asyncio.run(path.run()) for path in paths])
    lab.discard(deployment)
    return Report(
        name="steps",
        title=f"CPU per event by step, {events:,} events, batches of at most {deployment.settings.batch_max:,}",
        columns=("step", "µs/event", "% of the steps"),
        rows=_rows({name: seconds / events * 1e6 for name, seconds in clock.seconds.items()}, paths, worker),
        notes=[f"A worker's own clock, wall time in µs/event: {_own_clock(worker.metrics, worker.deployment.events)}."],
        wrong=[text for path in paths for text in _states_differ(path)],
    )


def _rows(steps: dict[str, float], paths: list[Path], worker: Job) -> list[tuple[Cell, ...]]:
    engine = steps.pop(ENGINE)
    steps[COMMIT] -= steps[STORE]
    measured = [_engine_parts(path) for path in paths]
    parts = {name: fmean(each[name] for each in measured) for name in measured[0]}
    again = fmean(_engine_again_us(path) for path in paths)
    parts["decide: offers, draws; catalogue, reasons, counts, the loop"] = again - sum(parts.values())
    parts["outcomes of draws; menus: items at first sight"] = engine - again
    total = sum(steps.values()) + engine
    before, after = list(steps.items())[:3], list(steps.items())[3:]
    listed = [*before, (ENGINE, engine), *((f"  {name}", value) for name, value in parts.items()), *after]
    rows: list[tuple[Cell, ...]] = [(name, value, value / total * 100) for name, value in listed]
    rows.append(("sum of the steps", total, 100.0))
    if worker.cpu_us:
        rest = worker.cpu_us - total
        rows.append(("a whole worker", worker.cpu_us, worker.cpu_us / total * 100))
        rows.append(("  the rest: event loop, sessions, metrics, Faust", rest, rest / total * 100))
    return rows


def _own_clock(metrics: dict[str, float], events: int) -> str:
    """Return what the worker's step_seconds counters say; they are wall time, so waiting for the broker is in them."""
    prefix = 'pricetide_step_seconds_total{step="'
    found = {
        name.removeprefix(prefix).rstrip('"}'): value for name, value in metrics.items() if name.startswith(prefix)
    }
    return ", ".join(f"{step} {seconds / events * 1e6:.1f}" for step, seconds in sorted(found.items()))


def _states_differ(path: Path) -> list[str]:
    """A state that was decoded and encoded again must be the same bytes: what is measured is what is done."""
    states = [value for _, _, step in path.batches for value in step.states.values()]
    return [] if all(encode_state(decode_state(value)) == value for value in states) else ["a state changed on its way"]


def _engine_parts(path: Path) -> dict[str, float]:
    """Return µs per event of what an engine does, part by part, on the sampled batches."""
    batches = path.batches
    events = sum(len(batch) for batch, _, _ in batches)
    inbounds = [inbound for batch, _, _ in batches for inbound in batch]
    loaded = [value for _, states, _ in batches for value in states.values()]
    new = [decode_state(value) for _, _, step in batches for value in step.states.values()]
    prices = [decode_price(value) for _, _, step in batches for _, value in step.prices]
    decisions = [decode_decision(value) for _, _, step in batches for _, value in step.decisions]
    ids = [DecisionIds(path.semantics.epoch, source, path.partition).of for source in path.topology.sources]
    named = [ids[inbound.source](inbound.offset, getattr(inbound.event, "item", "")) for inbound in inbounds]
    parts: dict[str, Callable[[], object]] = {
        "decision ids and uniform numbers": lambda: (
            [ids[inbound.source](inbound.offset, getattr(inbound.event, "item", "")) for inbound in inbounds],
            uniforms(0, named),
        ),
        "decode states": lambda: [decode_state(value) for value in loaded],
        "encode states": lambda: [encode_state(state) for state in new],
        "encode price updates": lambda: [encode_price(price) for price in prices],
        "encode decisions": lambda: [encode_decision(decision) for decision in decisions],
    }
    out = {name: _cpu_us(part) / events for name, part in parts.items()}
    out["fold"] = min(_fold_us(path) for _ in range(REPEATS)) / events
    return out


def _engine_again_us(path: Path) -> float:
    """Return the µs per event of the engine on the sampled batches, whose items it has seen by now."""
    events = sum(len(batch) for batch, _, _ in path.batches)
    book = path.seen

    def apply() -> None:
        for batch, loaded, _ in path.batches:
            path.engine.step(batch, loaded.get, PartitionState(), book.catalogue, book.policies)

    return _cpu_us(apply) / events


def _fold_us(path: Path) -> float:
    """Return the µs of folding the sampled events into their states, decoded anew for the purpose."""
    spent = 0.0
    for batch, loaded, _ in path.batches:
        states = {key: decode_state(value) for key, value in loaded.items()}
        work = [
            (states[inbound.key or b""], inbound.event, _item(path, inbound))
            for inbound in batch
            if inbound.event is not None and not isinstance(inbound.event, Consent)
        ]
        begun = time.process_time()
        for state, event, item in work:
            fold(state, event, item, path.semantics)
        spent += time.process_time() - begun
    return spent * 1e6


def _item(path: Path, inbound: Inbound) -> CatalogueItem | None:
    event = inbound.event
    assert event is not None
    found = path.seen.catalogue.at(event.item, event.event_time_ms)  # type: ignore[union-attr]  # consents were left out
    return None if found is None else found[1]


def _cpu_us(work: Callable[[], object]) -> float:
    """Return the least CPU time of REPEATS runs, in µs; garbage is collected before, not meanwhile."""
    best = inf
    for _ in range(REPEATS):
        gc.collect()
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best * 1e6
