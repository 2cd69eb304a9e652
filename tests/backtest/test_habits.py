"""The traffic of a log, measured: against counts by hand, and against the shop that was simulated after it."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from backtest.habits import MADE_UP, QUANTILES, habits_of, read_habits, write_habits
from backtest.shop_run import Files, run_shop
from backtest.simulate_commands import calibrate
from backtest.street import street
from contracts.errors import BadInput
from contracts.log import Manifest
from contracts.log_rows import CatalogueRow, EventRow
from contracts.log_writer import LogWriter
from contracts.policies import ListPrice, Policy
from contracts.semantics import Semantics, Topology

NINE = 1_700_038_800_000
"""09:00 UTC."""
MINUTE = 60_000


def shop_row(kind, user, item, minute, price=1_000, **more):
    at = NINE + minute * MINUTE
    return EventRow(kind, event_id=f"{user}{item}{kind}{minute}", user=user, item=item, event_time_ms=at, price=price,
                    currency="USD", arrival_ms=at, **more)  # fmt: skip


def write(directory, rows):
    manifest = Manifest(
        semantics=Semantics(consent_default=False),
        topology=Topology(partitions=1),
        source="by hand",
        offers="not_shown",
    )
    with LogWriter(directory, manifest, "jsonl") as writer:
        writer.catalogue([
            CatalogueRow(item=item, valid_from_ms=0, title=item, category=category, brand="b", currency="USD", list_price=1_000)
            for item, category in (("lamp", "light"), ("bulb", "light"), ("rug", "floor"))
        ])  # fmt: skip
        writer.rows(rows)
    return directory


def test_rates_funnel_and_prices_are_counted(tmp_path):
    rows = [
        EventRow("consent", user="ann", granted=True, event_time_ms=NINE, arrival_ms=NINE),
        EventRow("consent", user="bob", granted=False, event_time_ms=NINE, arrival_ms=NINE),
        shop_row("view", "ann", "lamp", 0, session="a1", query="lamp"),
        shop_row("view", "ann", "bulb", 2, 500, session="a1"),
        shop_row("click", "ann", "bulb", 3, 500, session="a1", action="add_to_cart"),
        shop_row("purchase", "ann", "bulb", 4, 500, session="a1", quantity=1),
        shop_row("view", "bob", "rug", 5),
        shop_row("view", "bob", "rug", 6),
        shop_row("view", "bob", "rug", 6 + 31),
        shop_row("view", "cyd", "unknown", 7),
        shop_row("view", "cyd", "lamp", 8, 0),
        shop_row("view", "cyd", "lamp", 60 + 5),
    ]
    found = habits_of(write(tmp_path / "log", rows))
    assert found.sessions_per_user == pytest.approx(4 / 3)  # bob came twice
    assert found.looks == (0.5, 0.5)
    assert found.pauses_ms[0] == MINUTE
    assert found.pauses_ms[-1] == 2 * MINUTE
    assert found.searches == 0.25
    assert (found.grants, found.denies) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.sessions_per_hour[9] == 3.0
    assert found.sessions_per_hour[10] == 1.0
    assert found.sessions_per_hour[0] == 2.0  # the mean of what the log covers
    (other,) = found.categories  # too few views for a category of its own
    assert (other.name, other.share, other.items) == ("other", 1.0, 3)
    assert (other.carts, other.purchases) == (pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert (other.list_prices[0], other.list_prices[-1]) == (500.0, 1_000.0)
    assert len(other.list_prices) == len(QUANTILES)


def test_the_shop_that_is_simulated_after_a_log_has_the_traffic_of_that_log(tmp_path):
    run_shop(
        street(MADE_UP, 3.0, 4, 1_500),
        Policy(name="list", number=1, rule=ListPrice()),
        4,
        1,
        Files(tmp_path / "log", "jsonl"),
    )
    found = habits_of(tmp_path / "log")
    assert found.sessions_per_user == pytest.approx(MADE_UP.sessions_per_user, rel=0.1)
    assert found.looks[0] == pytest.approx(MADE_UP.looks[0], abs=0.06)
    assert found.searches == pytest.approx(MADE_UP.searches, abs=0.06)
    assert found.grants == pytest.approx(MADE_UP.grants, abs=0.06)
    for category in MADE_UP.categories:
        same = next(each for each in found.categories if each.name == category.name)
        assert same.share == pytest.approx(category.share, abs=0.06)
        assert same.purchases == pytest.approx(category.purchases, abs=0.035)


def test_what_was_measured_is_written_and_read_again(tmp_path):
    write_habits(MADE_UP, tmp_path / "habits.json")
    assert read_habits(tmp_path / "habits.json") == MADE_UP
    log = write(tmp_path / "log", [shop_row("view", "ann", "lamp", 0), shop_row("view", "ann", "rug", 1)])
    result = CliRunner().invoke(calibrate, [str(log), "--out", str(tmp_path / "h.json")], catch_exceptions=False)
    assert "1 categories" in result.output
    assert read_habits(tmp_path / "h.json").source == "by hand"


def test_a_log_without_looks_and_a_file_that_is_no_statistics_are_refused(tmp_path):
    with pytest.raises(BadInput, match="no views"):
        habits_of(write(tmp_path / "log", [shop_row("view", "ann", "unknown", 0)]))
    (tmp_path / "h.json").write_text('{"source": 5}')
    with pytest.raises(BadInput, match="no statistics"):
        read_habits(tmp_path / "h.json")
