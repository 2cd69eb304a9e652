"""What a report keeps in memory: not the decisions, not the prices of draws, and of a model's predictions a sample."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from backtest.report import spill
from backtest.report.divisions import Divisions, Extent
from backtest.report.facts import Decisions
from backtest.report.figures import Figures
from backtest.report.lattices import LatticeWriter
from backtest.report.prices import PriceTally
from backtest.report.watching import Watcher
from features.vectors import Encoded, TokenAsk

ROWS = 4_000
HOUR_MS = 3_600_000


def decisions(number: int) -> Decisions:
    """A chunk of decisions for the same 500 users, 40 items and 6 hours as every other one."""
    random = np.random.default_rng(number)
    price = random.integers(800, 1_001, ROWS)
    return Decisions(
        user=random.integers(0, 500, ROWS), item=random.integers(0, 40, ROWS), time_ms=random.integers(0, 6 * HOUR_MS, ROWS),
        status=np.full(ROWS, "drawn"), price=price, list_price=np.full(ROWS, 1_000), sequence=random.integers(1, 200, ROWS),
        intent=random.integers(-1, 7, ROWS), market=random.choice(["us", "de"], ROWS), rails=random.integers(0, 4, ROWS),
        rail_names=("band", "step"), binding=np.full(ROWS, ""), forced=price < 810,
    )  # fmt: skip


def published(chunks: int, scratch: Path) -> tuple[Figures, int]:
    """Return the figures of so many chunks of decisions, and the most memory that was allocated beside one chunk, in bytes."""
    divisions = Divisions({0: "shoes"}, np.array([1_000]), 100, HOUR_MS)
    extent = Extent(chunks * ROWS, 0, 6 * HOUR_MS, offered=Counter({1: 2, 2: 1}))
    scratch.mkdir()
    figures = Figures()
    tracemalloc.start()
    tally = PriceTally(divisions, extent, scratch, chunks * ROWS)
    for number in range(chunks):
        tally.add(decisions(number))
    tally.describe(figures, "p")
    tally.paths.describe(figures, "p", {1: "one", 2: "two"}, 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return figures, peak


def test_a_log_four_times_as_long_takes_no_more_memory_and_is_counted_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "PART_ROWS", ROWS)
    published(1, tmp_path / "warm")
    _, short = published(5, tmp_path / "short")
    figures, long = published(20, tmp_path / "long")
    assert long < 1.25 * short
    assert 2 * long < 20 * ROWS * 8 * 12, "less than half of what the columns of all decisions would take"
    (_, prices), *_ = figures.where("prices", measure="prices")
    (_, draws), *_ = figures.where("parity", measure="draws", segment="user", group="new")
    assert prices.value == 20 * ROWS
    assert draws.value == sum(int((decisions(number).sequence < 10).sum()) for number in range(20))
    (_, cells), *_ = figures.where("dispersion", measure="item-hours with two users or more")
    assert cells.value == 40 * 6


def test_prices_of_draws_lie_in_files_and_come_back_draw_by_draw_in_any_order(tmp_path: Path) -> None:
    random = Random(2)
    rows = [sorted(random.randrange(1, 100) for _ in range(random.randint(1, 6))) for _ in range(50)]
    writer = LatticeWriter(tmp_path, {"price": np.dtype(np.int64), "chance": np.dtype(np.float64)})
    for some in (rows[:20], rows[20:21], rows[21:]):
        prices = pa.array(some, pa.list_(pa.int64()))
        chances = pa.array([[1 / len(row)] * len(row) for row in some], pa.list_(pa.float64()))
        writer.append({"price": prices, "chance": chances})
    order = np.array(random.sample(range(50), 30))
    lattices = writer.finish().where(order)
    assert all(isinstance(column, np.memmap) for column in lattices.columns.values())
    found: list[list[int]] = []
    for part in lattices.parts(7):
        found += [price.tolist() for price in np.split(part["price"], part.starts[1:])]
        assert np.allclose(part.sums(part["chance"]), 1.0)
        assert part.highest(part["price"] * 1.0).tolist() == [max(row) for row in found[part.rows]]
        place = part.at_or_below(part["price"], np.full(len(part.starts), 50))
        for row, at in zip(found[part.rows], place.tolist(), strict=True):
            assert at == max((place for place, price in enumerate(row) if price <= 50), default=0)
    assert found == [rows[number] for number in order.tolist()]


def test_of_a_long_log_the_examples_are_those_of_some_users_and_all_events_are_counted() -> None:
    from contracts.events import View
    from features.signals import NO_SIGNALS
    from features.tokens import token_of

    class Silent:
        digest = "d"

        def encode(self, owner: object, asks: list[TokenAsk]) -> Encoded:
            return Encoded(np.zeros((len(asks), 2), np.float32), np.zeros(len(asks), np.float32))

    artifact = SimpleNamespace(rows={}, manifest=SimpleNamespace(architecture=SimpleNamespace(recent=2)))
    watcher = Watcher(Silent(), artifact, 0, 0.0, users_share=0.25)  # type: ignore[arg-type]  # as much as is asked
    for user in range(400):
        for position in range(3):
            view = View(event_id="e", user=f"u{user}", item="i", event_time_ms=position, price=1, currency="USD")
            token = token_of(view, 1)
            watcher.encode(None, [TokenAsk(f"u{user}".encode(), position, b"", token, NO_SIGNALS)])
    users = Counter(watcher.rows[0])
    assert 60 < len(users) < 140
    assert set(users.values()) == {3}, "all events of a user, or none"
    assert watcher.foretold().views == watcher.seen == 1_200
