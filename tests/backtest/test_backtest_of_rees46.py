"""The backtest of the public log: no empty claim, and files, summary and digest that agree."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pyarrow.parquet
import pytest

from contracts.digest import PublishedDigest

RAILS = ("floor", "margin", "map", "ceiling", "step", "dwell", "charm", "discount_only", "band")


class Published(msgspec.Struct, gc=False):
    """What these tests read of a decision, or of what was applied without one."""

    record: str
    version: int
    source: tuple[str, int, int]
    user: str | None
    price: int = 0
    list_price: int = 0
    multiplier: int = 0
    status: str = ""
    lattice: tuple[int, ...] = ()
    trail: tuple[tuple[str, int | None, int | None, int], ...] = ()


@pytest.fixture(scope="module")
def decisions(rees46_backtest):
    decode = msgspec.json.Decoder(Published).decode
    table = pyarrow.parquet.read_table(rees46_backtest.decisions, columns=["record"])
    return [decode(record) for record in table["record"].to_pylist()]


def test_at_least_three_prices_in_ten_are_below_list(rees46_backtest):
    table = pyarrow.parquet.read_table(rees46_backtest.prices, columns=["price", "list_price"])
    below = sum(price < listed for price, listed in zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert below >= 0.3 * table.num_rows
    assert rees46_backtest.summary.below_list == pytest.approx(below / table.num_rows, abs=1e-6)


def test_at_least_four_multipliers_are_charged(rees46_backtest, decisions):
    charged = Counter(str(decision.multiplier) for decision in decisions if decision.record == "decision")
    assert len([multiplier for multiplier, count in charged.items() if count >= 100]) >= 4
    assert charged == rees46_backtest.summary.multipliers


@pytest.mark.parametrize("rail", RAILS)
def test_every_rail_removes_points_of_the_lattice_at_least_a_hundred_times(rees46_backtest, decisions, rail):
    bound = 0
    for decision in decisions:
        for name, low, high, removed in decision.trail:
            if name != rail:
                continue
            bound += 1
            assert removed > 0
            lattice = decision.lattice
            if rail != "charm":
                outside = [p for p in lattice if (low is not None and p < low) or (high is not None and p > high)]
                assert outside, decision
    assert bound >= 100
    assert bound == rees46_backtest.summary.rails[rail]


def test_the_full_lattice_reaches_above_list(decisions):
    assert all(d.lattice[-1] > d.list_price for d in decisions if d.record == "decision")


def test_every_record_is_applied_once_and_only_rows_without_a_price_are_dead(rees46_backtest, decisions):
    summary = rees46_backtest.summary
    assert summary.events == 241_663 + 48_468
    assert summary.dead_letters == {"bad_field": 263}
    assert summary.not_applied == 0
    places = {decision.source for decision in decisions}
    assert len(places) == summary.events
    dead = [json.loads(line) for line in rees46_backtest.dead_letters.read_text().splitlines()]
    assert len(dead) == 263
    assert {letter["code"] for letter in dead} == {"bad_field"}
    assert "$.price" in dead[0]["message"]


def test_the_digest_is_that_of_the_published_bytes(rees46_backtest):
    table = pyarrow.parquet.read_table(rees46_backtest.prices, columns=["key", "record"])
    published = PublishedDigest()
    for key, record in zip(table["key"].to_pylist(), table["record"].to_pylist(), strict=True):
        published.add(key, record)
    assert published.hexdigest() == rees46_backtest.summary.digest


def test_nobody_pays_a_personal_price_without_consent(decisions, rees46_backtest):
    from backtest import synthetic

    denied = [d for d in decisions if d.record == "decision" and synthetic.denies(d.user)]
    assert len(denied) > 10_000
    assert all(d.price == d.list_price and d.status == "list" for d in denied)


def test_columns_say_what_the_published_bytes_say(rees46_backtest):
    table = pyarrow.parquet.ParquetFile(rees46_backtest.decisions).read_row_group(0).slice(0, 2_000)
    for row in table.to_pylist():
        record = json.loads(row["record"])
        assert row["kind"] == record["record"]
        assert [row["topic"], row["partition"], row["offset"]] == record["source"]
        for name, value in record.items():
            if name == "trail":
                assert [[s["rail"], s["low"], s["high"], s["removed"]] for s in row["trail"]] == value
            elif name not in ("record", "source"):
                assert row[name] == value
