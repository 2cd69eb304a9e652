"""backtest.logged_draws: every row is a recorded draw, with what other policies would have drawn from; or a refusal."""

from __future__ import annotations

import json
from itertools import chain

import msgspec
import numpy as np
import pytest

from backtest.logged_draws import logged_draws, read_draws
from backtest.run import run_backtest
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.outcomes import Outcome, decode_outcome
from contracts.policies import FixedPrice, Policy, Rails
from contracts.rules import Features, Thompson
from tests.backtest.experiment_shop import SPRING, write_experiment
from tests.backtest.recorded_shop import UNIFORM, published_outcomes, recorded_shop, rewritten

replace = msgspec.structs.replace
FIXED = Policy(name="fixed", number=1, rule=FixedPrice(multiplier_permille=850, explore=0.3))
NARROW = replace(FIXED, name="narrow", rails=Rails(band_low_permille=900, charm_endings=()))
SAMPLED = Policy(name="sampled", number=1, seed=3, rule=Thompson(features=Features(names=("intent", "price"))))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return recorded_shop(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def draws(log):
    return logged_draws(log, [UNIFORM, FIXED, NARROW, SAMPLED])


@pytest.fixture(scope="module")
def recorded(log):
    rows = chain.from_iterable(chain.from_iterable(open_log(log).published("outcomes", number) for number in range(3)))
    outcomes = [decode_outcome(row.record) for row in rows]
    return {one.draw_id: one for one in outcomes if isinstance(one, Outcome)}


def test_every_recorded_draw_is_a_row_in_the_order_of_decisions(draws, recorded):
    assert draws.refusal is None
    assert draws.replayed.met == draws.replayed.equal >= len(recorded)
    assert draws.replayed.says == "equal the replay, to the last bit"
    assert len(draws) == len(recorded) > 300
    assert draws.pending > 0
    rows = draws.table.to_pylist()
    places = [(row["drawn_ms"], row["partition"], row["version"]) for row in rows]
    assert places == sorted(places)
    for row in rows:
        one = recorded[row["draw_id"]]
        assert (row["price"], row["propensity"], tuple(row["prices"])) == (one.price, one.propensity, one.prices)
        assert row["quantity"] == (one.bought.quantity if one.bought else 0)
        assert row["probabilities"][row["prices"].index(row["price"])] == row["propensity"]


def test_the_logging_policy_as_a_target_has_the_logged_probabilities_to_the_bit(draws):
    assert (draws.target("uniform") == draws.propensities()).all()
    assert draws.table.column("targets.uniform").to_pylist() == draws.table.column("probabilities").to_pylist()
    assert not draws.unsupported("uniform").any()


def test_a_target_has_the_probabilities_of_its_rule(draws):
    """A naive twin of the rule: the feasible price nearest at or below the target, and an even share for all."""
    for row in draws.table.to_pylist():
        prices, aim = row["prices"], (row["list_price"] * 850 + 500) // 1000
        below = [price for price in prices if price <= aim]
        nearest = max(below) if below else prices[0]
        share = 0.3 / len(prices)
        naive = [1.0] if len(prices) == 1 else [share + (0.7 if price == nearest else 0.0) for price in prices]
        assert row["targets.fixed"] == pytest.approx(naive, abs=1e-12)
        assert row["target.fixed"] == row["targets.fixed"][prices.index(row["price"])]
        assert row["outside.fixed"] == 0.0


def test_what_a_target_wants_outside_of_the_logged_prices_is_kept_apart(draws):
    inside = np.array([sum(row) for row in draws.table.column("targets.narrow").to_pylist()])
    outside = draws.column("outside.narrow")
    assert inside + outside == pytest.approx(1.0)
    assert (draws.unsupported("narrow") == outside).all()
    assert outside.max() > 0.0, "its rails allow prices with other endings"


def test_the_probabilities_of_a_target_that_learns_do_not_depend_on_batches(log, draws, tmp_path):
    sums = [sum(row) for row in draws.table.column("targets.sampled").to_pylist()]
    assert sums == pytest.approx([1.0] * len(draws))
    run_backtest(log, draws=tmp_path / "d.parquet", targets=[UNIFORM, FIXED, NARROW, SAMPLED], batch_max=7)
    assert read_draws(tmp_path / "d.parquet").table.equals(draws.table)


def test_rewards_are_of_what_was_bought_at_the_drawn_price(draws, recorded):
    rows = draws.table.to_pylist()
    bought = [recorded[row["draw_id"]].bought for row in rows]
    assert sum(one is not None for one in bought) > 3
    margins = [(row["price"] - row["cost"]) * one.quantity if one else 0 for row, one in zip(rows, bought, strict=True)]
    assert draws.rewards("margin").tolist() == margins
    assert draws.rewards("purchase").sum() == sum(one is not None for one in bought)
    users = draws.column("user")
    assert len(set(draws.clusters().tolist())) == len(set(users))


def test_as_of_an_earlier_time_the_draws_are_those_whose_windows_were_over_by_then(log, draws, tmp_path):
    ends = np.sort(draws.column("resolved_ms"))
    cut = int(ends[len(ends) // 2])
    run_backtest(log, draws=tmp_path / "draws.parquet", targets=[FIXED], as_of=cut)
    found = read_draws(tmp_path / "draws.parquet")
    assert found.refusal is None
    assert 0 < len(found) <= len(ends) // 2 + 1
    assert found.column("resolved_ms").max() <= cut
    whole = {row["draw_id"]: row for row in draws.table.select(found.table.column_names).to_pylist()}
    assert found.table.to_pylist() == [whole[draw_id] for draw_id in found.column("draw_id")]


def test_as_of_an_earlier_time_an_outcome_that_was_due_by_then_and_is_not_recomputed_refuses_the_log(
    log, draws, tmp_path
):
    """One that is recorded twice is one that the replay has lost; the copy stands last of what was known at the cut."""
    ends = np.sort(draws.column("resolved_ms"))
    cut, rows = int(ends[len(ends) // 2]), outcomes_of(log)
    place = max(n for n, row in enumerate(rows) if json.loads(row.record).get("resolved_ms", cut + 1) <= cut)
    twice = rewritten(log, tmp_path / "log", outcomes=[*rows[: place + 1], *rows[place:]])
    run_backtest(twice, draws=tmp_path / "draws.parquet", targets=[FIXED], as_of=cut)
    assert "1 recorded outcomes" in read_draws(tmp_path / "draws.parquet").refusal


def test_margins_of_items_without_a_cost_are_refused(log, tmp_path):
    items = [replace(row, cost=None) for row in chain.from_iterable(open_log(log).catalogue())]
    found = logged_draws(rewritten(log, tmp_path, catalogue=items), [])
    with pytest.raises(BadInput, match="without a cost"):
        found.rewards()
    assert found.rewards("units").sum() > 0


def outcomes_of(log):
    return list(chain.from_iterable(chain.from_iterable(open_log(log).published("outcomes", n) for n in range(3))))


def first_draw(rows):
    return next(row.record for row in rows if b'"record":"outcome"' in row.record)


def changed(rows, **fields):
    """Change the first outcome of a draw."""
    place = next(n for n, row in enumerate(rows) if b'"record":"outcome"' in row.record)
    record = json.dumps(json.loads(rows[place].record) | fields).encode()
    return [*rows[:place], replace(rows[place], record=record), *rows[place + 1 :]]


DAMAGES = {
    "another propensity": (lambda rows: changed(rows, propensity=0.123), "propensity was recorded as 0.123"),
    "other probabilities": (
        lambda rows: changed(rows, probabilities=[*json.loads(first_draw(rows))["probabilities"][::-1], 0.0]),
        "probabilities was recorded as",
    ),
    "another exposure": (lambda rows: changed(rows, exposed=False), "exposed was recorded as False"),
    "a purchase that nobody made": (
        lambda rows: changed(rows, bought={"quantity": 9, "price": 1, "event_id": "e", "event_time_ms": 1_572_566_400_000}),
        "bought was recorded as",
    ),
    "another reason to learn nothing": (lambda rows: changed(rows, learnable=False), "learnable was recorded as False"),
    "another price": (lambda rows: changed(rows, price=1), "price was recorded as 1"),
    "an outcome twice": (lambda rows: [rows[0], *rows], "_id was recorded as"),
    "an outcome missing": (lambda rows: rows[1:], "_id was recorded as"),
    "an outcome too many": (lambda rows: [*rows, rows[-1]], "recorded behind the last one"),
    "rubbish": (lambda rows: [replace(rows[0], record=b"{"), *rows[1:]], "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_a_record_that_the_replay_does_not_give_refuses_the_log(log, tmp_path, damage, says):
    found = logged_draws(rewritten(log, tmp_path, outcomes=damage(outcomes_of(log))), [FIXED])
    assert found.refusal is not None
    assert says in found.refusal


def test_a_record_that_differs_in_what_a_model_foretold_alone_is_kept_and_counted(log, tmp_path):
    found = logged_draws(rewritten(log, tmp_path, outcomes=changed(outcomes_of(log), preference=0.25)), [FIXED])
    assert found.refusal is None
    assert found.replayed.equal == found.replayed.met - 1
    assert found.replayed.says.endswith("; 1 differ in what a model foretold")


def test_a_log_that_recorded_no_outcomes_is_refused(log, tmp_path):
    found = logged_draws(rewritten(log, tmp_path), [FIXED])
    assert "no propensity was recorded" in found.refusal


def test_a_log_whose_people_saw_other_prices_is_refused(log, tmp_path):
    found = logged_draws(rewritten(log, tmp_path, offers="not_shown", outcomes=outcomes_of(log)), [FIXED])
    assert "offers: not_shown" in found.refusal


def test_two_targets_of_one_name_are_refused(log):
    with pytest.raises(BadInput, match="Two policies are named fixed"):
        logged_draws(log, [FIXED, FIXED])


def test_a_file_that_is_no_table_of_draws_is_a_sentence(log, tmp_path):
    run_backtest(log, tmp_path / "prices.parquet")
    with pytest.raises(BadInput, match="no table of logged draws"):
        read_draws(tmp_path / "prices.parquet")
    with pytest.raises(BadInput, match="cannot be read"):
        read_draws(tmp_path / "none.parquet")


def test_in_an_experiment_probabilities_are_over_the_lot_of_who_is_held_out(tmp_path):
    write_experiment(tmp_path / "shop", users=150, seed=2)
    log = rewritten(tmp_path / "shop", tmp_path / "log", outcomes=published_outcomes(tmp_path / "shop"))
    draws = logged_draws(log, [])
    assert draws.refusal is None
    rows = [row for row in draws.table.to_pylist() if row["variant"] == "deal" and len(row["prices"]) > 1]
    assert {row["held_out"] for row in rows} == {False, True}
    for row in rows:
        assert sum(row["probabilities"]) == pytest.approx(1.0)
        assert row["probabilities"][row["prices"].index(row["list_price"])] >= SPRING.holdout > 0.0
        assert row["probabilities"][row["prices"].index(row["price"])] == row["propensity"]
