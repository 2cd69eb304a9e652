"""Figures of a report, computed again from the tables beside it, row by row, without numpy. Imports nothing of what it checks."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.backtest.conftest import POLICIES, Reported

Row = dict[str, Any]
BEST_UNIFORM = "best uniform price, as chosen from the log"
TARGETS = [*POLICIES, "list price", BEST_UNIFORM]
RUNS = ["as logged", *POLICIES]


@pytest.fixture(scope="module")
def figures(reported: Reported) -> list[Row]:
    return [
        {"policy": "", "segment": "", "group": "", "period": ""} | row
        for row in json.loads(reported.files.figures_json.read_bytes())
    ]


@pytest.fixture(scope="module")
def draws(reported: Reported) -> list[Row]:
    return list(pq.read_table(reported.files.draws).to_pylist())


@pytest.fixture(scope="module")
def prices(reported: Reported) -> dict[str, list[Row]]:
    """Decisions by run, those after purchases left out: they only return an item to its list price."""
    found = defaultdict(list)
    for row in pq.read_table(reported.files.decisions).to_pylist():
        if row["binding"] != "purchase":
            found[row["policy"]].append(row)
    return found


def of(figures: list[Row], section: str, measure: str, **wanted: str) -> list[Row]:
    return [
        row
        for row in figures
        if row["section"] == section
        and row["measure"] == measure
        and all(row[name] == one for name, one in wanted.items())
    ]


def value(figures: list[Row], section: str, measure: str, **wanted: str) -> float:
    (row,) = of(figures, section, measure, **({"segment": "", "group": "", "period": ""} | wanted))
    return float(row["value"])


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def near(one: float) -> Any:
    return pytest.approx(one, rel=1e-9, abs=1e-12)


def test_no_draw_names_a_person(draws: list[Row], prices: dict[str, list[Row]]) -> None:
    assert all(isinstance(row["user"], int) for row in draws)
    assert all(isinstance(row["user"], int) for rows in prices.values() for row in rows)


def test_a_reward_is_the_margin_of_what_was_bought(draws: list[Row]) -> None:
    for row in draws:
        assert row["reward"] == near((row["price"] - row["cost"]) * row["quantity"] / 100)


@pytest.mark.parametrize("policy", TARGETS)
def test_value_lift_and_weights_are_those_of_the_draws(figures: list[Row], draws: list[Row], policy: str) -> None:
    free = [row for row in draws if not row["forced"]]
    weight = [row[f"target: {policy}"] / row["propensity"] for row in free]
    earned = [w * row["reward"] for w, row in zip(weight, free, strict=True)]
    logged = mean([row["reward"] for row in free])
    assert value(figures, "value", "logged value", policy=policy) == near(logged)
    lift = value(figures, "value", "lift over logged policy", policy=policy)
    snips = math.fsum(earned) / math.fsum(weight)
    assert lift == near(snips - logged)
    assert value(figures, "value", "value", policy=policy) == near(snips), "a value by another estimator contradicts it"
    assert value(figures, "value", "relative lift over logged policy", policy=policy) == near(lift / logged)
    ess = math.fsum(weight) ** 2 / math.fsum(w * w for w in weight)
    assert value(figures, "diagnostics", "effective sample size (ESS)", policy=policy) == near(ess)
    assert value(figures, "diagnostics", "mean weight", policy=policy) == near(mean(weight))
    assert value(figures, "diagnostics", "largest weight", policy=policy) == near(max(weight))
    bars = of(figures, "weights", "share of draws", policy=policy)
    assert math.fsum(row["value"] for row in bars) == near(1.0)
    (zero,) = [row for row in bars if row["group"] == "0"]
    assert zero["value"] == near(weight.count(0.0) / len(weight))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_estimators_on_weights_are_those_of_the_draws(figures: list[Row], draws: list[Row], policy: str) -> None:
    free = [row for row in draws if not row["forced"]]
    weight = [row[f"target: {policy}"] / row["propensity"] for row in free]
    earned = math.fsum(w * row["reward"] for w, row in zip(weight, free, strict=True))
    clipped = mean([min(w, 5.0) * row["reward"] for w, row in zip(weight, free, strict=True)])
    drawn, model = [row["q: drawn"] for row in free], [row[f"q: {policy}"] for row in free]
    direct = mean(model)
    corrected = mean([w * (row["reward"] - q) for w, row, q in zip(weight, free, drawn, strict=True)])
    assert value(figures, "estimators", "value", policy=policy, group="DM") == near(direct)
    assert value(figures, "estimators", "value", policy=policy, group="DR") == near(direct + corrected)
    for name, wanted in (("IPS", earned / len(free)), ("SNIPS", earned / math.fsum(weight)), ("clipped IPS", clipped)):
        assert value(figures, "estimators", "value", policy=policy, group=name) == near(wanted)


def test_list_price_and_best_uniform_price_are_one_price_each(figures: list[Row], draws: list[Row]) -> None:
    (says,) = of(figures, "targets", "says", policy=BEST_UNIFORM)
    shares = [float(one.strip(" %")) for one in says["text"].split(" of list")[0].split(" or ")]
    for row in draws:
        assert row["target: list price"] == (row["price"] == row["list_price"])
        if row[f"target: {BEST_UNIFORM}"]:
            gaps = [share / 100 - row["price"] / row["list_price"] for share in shares]
            assert min(gap for gap in gaps if gap > -0.001) < 0.026


@pytest.mark.parametrize("policy", list(POLICIES))
@pytest.mark.parametrize("segment", ["market", "category", "user", "intent", "list price"])
def test_parts_are_counted_from_the_draws(figures: list[Row], draws: list[Row], policy: str, segment: str) -> None:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in draws:
        groups[row[f"segment: {segment}"]].append(row)
    shown = of(figures, "parts", "draws", policy=policy, segment=segment, period="")
    assert {row["group"]: row["value"] for row in shown} == {group: len(rows) for group, rows in groups.items()}
    for group, rows in groups.items():
        bought = value(figures, "parts", "purchases", policy=policy, segment=segment, group=group)
        assert bought == sum(row["quantity"] > 0 for row in rows)
        for row in of(figures, "parts", "logged value", policy=policy, segment=segment, group=group, period=""):
            assert row["value"] == near(mean([one["reward"] for one in rows if not one["forced"]]))


@pytest.mark.parametrize("policy", list(POLICIES))
def test_goals_are_those_of_the_draws(figures: list[Row], draws: list[Row], policy: str) -> None:
    free = [row for row in draws if not row["forced"]]
    for group, of_row in (
        ("revenue", lambda row: row["price"] * row["quantity"] / 100),
        ("pieces", lambda row: row["quantity"]),
        ("users who do not come back", lambda row: row["stays away"]),
    ):
        (shown,) = of(figures, "goals", "value", policy=policy, group=group)
        if "value" not in shown:
            assert shown["text"] == "the log cannot support it"
            assert group not in ("revenue", "pieces")
            continue
        known = [row for row in free if not math.isnan(of_row(row))]
        weight = [row[f"target: {policy}"] / row["propensity"] for row in known]
        total = math.fsum(w * of_row(row) for w, row in zip(weight, known, strict=True))
        assert value(figures, "goals", "logged value", policy=policy, group=group) == near(
            mean([of_row(row) for row in known])
        )
        assert shown["value"] == near(total / math.fsum(weight))


def at_share(worth: dict[int, float], permille: int) -> float:
    """Return what a draw is worth at the highest price that is no dearer than a share of its list price, which is the dearest."""
    wanted = math.floor(max(worth) * permille / 1_000 + 0.5)
    return worth[max((price for price in worth if price <= wanted), default=min(worth))]


def test_the_truth_agrees_with_what_was_estimated(figures: list[Row], reported: Reported) -> None:
    worth: dict[str, dict[int, float]] = defaultdict(dict)
    for line in (reported.log / "truth.jsonl").read_text().splitlines():
        row = json.loads(line)
        worth[row["draw_id"]][row["price"]] = row["chance"] * (row["price"] - row["cost"]) / 100
    oracle = mean([max(values.values()) for values in worth.values()])
    listed = mean([values[max(values)] for values in worth.values()])
    assert value(figures, "truth", "true value", policy="oracle") == near(oracle)
    assert value(figures, "truth", "true value", policy="list price") == near(listed)
    logged = value(figures, "truth", "true value", policy="logged policy")
    fixed = [mean([at_share(values, permille) for values in worth.values()]) for permille in range(600, 1_301, 25)]
    assert value(figures, "truth", "true value", policy="best fixed price, in hindsight") == near(max(fixed))
    for policy in TARGETS:
        true = value(figures, "truth", "true value", policy=policy)
        assert value(figures, "truth", "true lift over logged policy", policy=policy) == near(true - logged)
        share = value(figures, "truth", "share of the oracle's gain", policy=policy)
        assert share == near((true - listed) / (oracle - listed))
        (hit,) = of(figures, "truth", "in the interval of its estimate", policy=policy)
        assert hit["text"] == "inside"


def test_demand_is_counted_from_the_draws(figures: list[Row], draws: list[Row]) -> None:
    bands: dict[float, list[Row]] = defaultdict(list)
    for row in draws:
        if row["exposed"]:
            bands[round(40 * row["price"] / row["list_price"]) * 25.0].append(row)
    shown = of(figures, "demand", "share bought", segment="")
    assert len(shown) >= 4
    for figure in shown:
        rows = bands[figure["x"]]
        assert figure["value"] == near(sum(row["quantity"] > 0 for row in rows) / len(rows))
        assert figure["low"] < figure["value"] < figure["high"]


@pytest.mark.parametrize("policy", RUNS)
def test_prices_rails_and_dispersion_are_those_of_the_decisions(
    figures: list[Row], prices: dict[str, list[Row]], policy: str
) -> None:
    rows = prices[policy]
    below = sum(row["price"] < row["list_price"] for row in rows) / len(rows)
    assert value(figures, "prices", "below list", policy=policy) == near(below)
    share = mean([row["price"] / row["list_price"] for row in rows])
    assert value(figures, "prices", "mean price over list", policy=policy) == near(1_000 * share)
    for rail in {name for row in rows for name in row["rails"]}:
        removed = sum(rail in row["rails"] for row in rows) / len(rows)
        assert value(figures, "rails", "took prices away", policy=policy, group=rail) == near(removed)
    cells: dict[tuple[int, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row["item"], row["time_ms"] // 3_600_000][row["user"]].append(row["price"] / row["list_price"])
    ratios = [
        max(max(one) for one in users.values()) / min(min(one) for one in users.values())
        for users in cells.values()
        if len(users) > 1
    ]
    assert value(figures, "dispersion", "item-hours with two users or more", policy=policy) == len(ratios)
    assert value(figures, "dispersion", "highest", policy=policy) == near(max(ratios))


@pytest.mark.parametrize("policy", RUNS)
def test_parity_is_that_of_the_draws_decided(figures: list[Row], prices: dict[str, list[Row]], policy: str) -> None:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in prices[policy]:
        if row["status"] == "drawn":
            groups["new" if row["sequence"] < 10 else "returning"].append(row["price"] / row["list_price"])
    means = {group: 1_000 * mean(values) for group, values in groups.items()}
    shown = of(figures, "parity", "mean price over list", policy=policy, segment="user")
    assert {row["group"]: row["value"] for row in shown} == {group: near(one) for group, one in means.items()}
    gap = max(means.values()) - min(means.values())
    assert value(figures, "gaps", "largest gap", policy=policy, segment="user") == near(gap)


@pytest.mark.parametrize("policy", list(POLICIES))
def test_estimators_goals_and_weights_of_a_part_are_those_of_its_draws(
    figures: list[Row], draws: list[Row], policy: str
) -> None:
    shown = 0
    for group in ("new", "returning"):
        place = {"policy": policy, "segment": "user", "group": group}
        free = [row for row in draws if not row["forced"] and row["segment: user"] == group]
        weight = [row[f"target: {policy}"] / row["propensity"] for row in free]
        ess = math.fsum(weight) ** 2 / math.fsum(w * w for w in weight)
        assert value(figures, "parts", "effective sample size (ESS)", **place) == near(ess)
        if not of(figures, "parts", "value by IPS", **place, period=""):
            continue  # its gates failed
        shown += 1
        pairs = list(zip(weight, free, strict=True))
        ips = mean([w * row["reward"] for w, row in pairs])
        corrected = mean([row[f"q: {policy}"] + w * (row["reward"] - row["q: drawn"]) for w, row in pairs])
        revenue = [row["price"] * row["quantity"] / 100 for row in free]
        gained = math.fsum(w * one for w, one in zip(weight, revenue, strict=True)) / math.fsum(weight) - mean(revenue)
        snips = math.fsum(w * row["reward"] for w, row in pairs) / math.fsum(weight)
        assert value(figures, "parts", "value", **place) == near(snips)
        assert value(figures, "parts", "lift", **place) == near(
            snips - value(figures, "parts", "logged value", **place)
        )
        assert value(figures, "parts", "value by IPS", **place) == near(ips)
        assert value(figures, "parts", "value by DR", **place) == near(corrected)
        assert value(figures, "parts", "lift of revenue", **place) == near(gained)
        listed = [row["target: list price"] / row["propensity"] for row in free]
        theirs = math.fsum(w * row["reward"] for w, row in zip(listed, free, strict=True))
        (over,) = of(figures, "parts", "lift over list price", **place, period="")
        if "value" not in over:
            assert over["text"] == "the log cannot support it"
            assert math.fsum(listed) ** 2 / math.fsum(w * w for w in listed) < 500
            continue
        assert over["value"] == near(snips - theirs / math.fsum(listed))
    assert shown


@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_lift_is_shown_of_a_segment_in_a_period_only_where_its_draws_are_worth_enough(
    figures: list[Row], draws: list[Row], policy: str
) -> None:
    cells = [row for row in of(figures, "parts", "lift", policy=policy) if row["segment"] == "user" and row["period"]]
    assert cells
    for cell in cells:
        inside = [
            row
            for row in draws
            if row["segment: user"] == cell["group"]
            and datetime.fromtimestamp(row["period_ms"] / 1000, UTC).strftime("%Y-%m-%d") == cell["period"]
        ]
        weight = [row[f"target: {policy}"] / row["propensity"] for row in inside if not row["forced"]]
        worth = math.fsum(weight) ** 2 / math.fsum(w * w for w in weight) if any(weight) else 0.0
        if "value" in cell:
            assert worth >= 500
            free = [row["reward"] for row in inside if not row["forced"]]
            snips = math.fsum(w * one for w, one in zip(weight, free, strict=True)) / math.fsum(weight)
            assert cell["value"] == near(snips - mean(free))
        else:
            assert cell["text"] in ("too few draws", "REFUSE")
