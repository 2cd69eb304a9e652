"""A round of erasures, without a broker: what is taken back, what is marked as done, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rocksdict import Cache

from pricing.erasure import Erasure, decode_erasure, encode_erasure, erasure_key
from pricing.pending import ERASED, Pending, encode_pending
from pricing.timers import key_of
from pricing.traces import Traces
from streams import eraser
from streams.eraser import NEAR_RECORDS, REST, Eraser
from streams.metrics import Metrics
from streams.settings import load_settings
from streams.store import StateStore

ANN = erasure_key(b"ann")
DECISION = (b'["ann","d1"]', b'{"version":3}')


class Commit:
    """Stands for streams.commit.Commit: notes what was taken back, and writes the store as it does."""

    partition = 0

    def __init__(self, store: StateStore) -> None:
        self.store = store
        self.taken_back: list[tuple[str, bytes]] = []
        self.times = 0

    async def erase(self, keys: Any, states: list[tuple[bytes, bytes | None]]) -> None:
        self.times += 1
        self.taken_back += [(topic, key) for topic, of_topic in keys.items() for key in of_topic]
        self.store.write(states, self.store.changelog_offset + len(states))


class Sweep:
    """Stands for the topics: `published` is what lies there."""

    published: ClassVar[list[tuple[bytes, bytes]]] = []
    meanwhile: ClassVar[list[list[tuple[bytes, bytes]]]] = []
    """What is published during a pass, the last one first."""
    passes: ClassVar[list[tuple[int, float]]] = []
    """Records and rest."""

    def __init__(self, settings: Any, partition: int, erasures: dict[bytes, Erasure]) -> None:
        self.traces = Traces(erasures)
        self.read = 0

    async def start(self) -> None:
        pass

    async def read_to_end(self, rest: float) -> int:
        new = self.published[self.read :]
        for key, value in new:
            self.traces.see("decisions", key, value)
        self.read += len(new)
        self.passes.append((len(new), rest))
        Sweep.published = self.published + self.meanwhile.pop() if self.meanwhile else self.published
        await asyncio.sleep(0)
        return len(new)

    async def stop(self) -> None:
        pass


class Bench:
    """An eraser at work on a store."""

    def __init__(self, directory: Path) -> None:
        self.store = StateStore(directory / "0", Cache(1 << 20), 1 << 20)
        self.commit = Commit(self.store)
        self.metrics = Metrics()
        self.ready = asyncio.Event()
        self.eraser = Eraser(load_settings(), self.commit, self.metrics, self.ready.set)  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.eraser.run())

    def request(self, version: int) -> None:
        self.store.write([(ANN, encode_erasure(Erasure(version, 7)))], version)
        self.eraser.ask()

    async def swept(self) -> None:
        async with asyncio.timeout(10):
            await self.ready.wait()
        self.ready.clear()

    async def purged(self) -> None:
        for _ in range(1_000):
            if self.store.to_purge:
                await asyncio.sleep(0.01)
        assert not self.store.to_purge

    def waiting(self) -> float:
        return self.metrics.registry.get_sample_value("pricetide_erasures_waiting", {"partition": "0"}) or 0.0


@pytest.fixture
async def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(eraser, "Sweep", Sweep)
    monkeypatch.setattr(Sweep, "published", [DECISION])
    monkeypatch.setattr(Sweep, "meanwhile", [])
    monkeypatch.setattr(Sweep, "passes", [])
    bench = Bench(tmp_path)
    yield bench
    bench.running.cancel()
    await bench.store.settle()
    bench.store.close()


async def test_nothing_is_taken_back_while_nobody_asks(bench):
    await asyncio.sleep(0.01)
    await bench.eraser.finish()
    assert (bench.commit.times, bench.waiting()) == (0, 0)


async def test_what_was_published_is_taken_back_between_two_batches_and_the_store_is_purged(bench):
    bench.request(5)
    await bench.swept()
    assert (bench.commit.times, bench.waiting()) == (0, 1), "the session says when no batch is under way"
    await bench.eraser.finish()
    assert bench.commit.taken_back == [("decisions", DECISION[0])]
    assert decode_erasure(bench.store.get(ANN)) == Erasure(5, 7, done=True)
    assert bench.waiting() == 0
    await bench.purged()
    await bench.eraser.finish()
    assert bench.commit.times == 1


async def test_what_is_published_after_the_sweep_is_taken_back_too(bench):
    bench.request(5)
    await bench.swept()
    Sweep.published = [DECISION, (b'["ann","d2"]', b'{"version":4}'), (b'["ann","d3"]', b'{"version":6}')]
    await bench.eraser.finish()
    assert [key for _, key in bench.commit.taken_back] == [DECISION[0], b'["ann","d2"]']


async def test_a_sweep_goes_on_with_less_rest_until_little_is_left_for_the_time_in_which_events_wait(bench):
    some = [(b'["bob","d"]', b"{}")]
    Sweep.published = some * (9 * NEAR_RECORDS)
    Sweep.meanwhile = [some * 7, some * (2 * NEAR_RECORDS)]
    bench.request(5)
    await bench.swept()
    await bench.eraser.finish()
    read = [(9 * NEAR_RECORDS, REST), (2 * NEAR_RECORDS, REST / 2), (7, REST / 4), (0, 0.0)]
    assert Sweep.passes == read


async def test_who_asks_again_meanwhile_waits_for_another_round(bench):
    bench.request(5)
    await bench.swept()
    bench.request(9)
    await bench.eraser.finish()
    assert decode_erasure(bench.store.get(ANN)) == Erasure(9, 7)
    await bench.swept()
    await bench.eraser.finish()
    assert decode_erasure(bench.store.get(ANN)).done
    assert bench.commit.times == 2


async def test_a_pending_draw_that_the_state_remembered_no_more_is_overwritten_if_it_is_of_before_the_request(bench):
    old, new, others = key_of((100, 4)), key_of((200, 6)), key_of((300, 2))
    ours = encode_pending(Pending(b'["ann","d1"]', b"{}", 0))
    theirs = encode_pending(Pending(b'["bob","d2"]', b"{}", 0))
    bench.store.write([(old, ours), (new, ours), (others, theirs)], 1)
    bench.request(5)
    await bench.swept()
    await bench.eraser.finish()
    assert bench.store.get(old) == encode_pending(ERASED)
    assert (bench.store.get(new), bench.store.get(others)) == (ours, theirs)


async def test_a_draw_that_resolves_before_the_tombstones_is_not_brought_back(bench):
    key = key_of((100, 4))
    bench.store.write([(key, encode_pending(Pending(b'["ann","d1"]', b"{}", 0)))], 1)
    bench.request(5)
    await bench.swept()
    bench.store.write([(key, None)], 6)
    await bench.eraser.finish()
    assert bench.store.get(key) is None


async def test_a_store_that_recovery_brought_an_erasure_is_purged_though_nobody_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(eraser, "Sweep", Sweep)
    store = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    store.write([(ANN, encode_erasure(Erasure(5, 7, done=True)))], 5)
    store.close()
    bench = Bench(tmp_path)
    await bench.purged()
    assert bench.commit.times == 0
    bench.running.cancel()
    await bench.store.settle()
    bench.store.close()
