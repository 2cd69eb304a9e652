"""Simulated shops: the log they write, its replay, the truth beside it, and what a policy is worth there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from backtest.habits import MADE_UP
from backtest.passers_by import passers_by
from backtest.replay import Replay
from backtest.scores import Place, town_of
from backtest.shop_run import Files, run_shop
from backtest.simulate_commands import simulate
from backtest.street import chances_at, street
from backtest.truth import TruthRow
from backtest.worlds import world_of
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_files import read_rows
from contracts.outcomes import Outcome, decode_outcome
from contracts.policies import FixedPrice, ListPrice, Policy, Rails, UniformRandom
from contracts.rules import Thompson

LOOKS = 400
RAILS = Rails(
    multipliers=tuple(range(800, 1201, 50)), band_low_permille=800, band_high_permille=1_200, step_max_permille=200,
    charm_endings=(), raise_markets=("us",), margin_min_permille=0,
)  # fmt: skip


def policy_of(rule, **more):
    return Policy(name="sells", number=1, seed=3, rule=rule, **more)


def shop(elasticity=4.0, seed=2, looks=LOOKS):
    return street(MADE_UP, elasticity, seed, looks)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A shop with a policy that learns: its score and its log."""
    directory = tmp_path_factory.mktemp("shop") / "log"
    rule = Thompson(samples=16, explore=0.2)
    return run_shop(shop(), policy_of(rule), 2, 2, Files(directory, "jsonl")), directory


def truth_of(directory: Path) -> list[TruthRow]:
    return [row for rows in read_rows(directory / "truth.jsonl", TruthRow) for row in rows]


def outcomes_of(directory: Path) -> dict[str, Outcome]:
    log = open_log(directory)
    records = [
        decode_outcome(row.record) for one in range(2) for rows in log.published("outcomes", one) for row in rows
    ]
    assert all(isinstance(record, Outcome) for record in records), "somebody paid a price that was not theirs"
    return {record.draw_id: record for record in records if isinstance(record, Outcome)}


def test_the_log_says_that_offers_were_shown_and_a_replay_gives_its_decisions_and_outcomes_byte_for_byte(written):
    log = open_log(written[1])
    assert log.manifest.offers == "shown"
    assert log.recorded
    order: dict[str, list[list[bytes]]] = {"decisions": [[], []], "outcomes": [[], []]}

    def publish(partition, step):
        order["decisions"][partition] += [value for _, value in step.decisions]
        order["outcomes"][partition] += [value for _, value in step.outcomes]

    Replay(log, 37).run(publish)
    for name, replayed in order.items():
        recorded = [[row.record for rows in log.published(name, one) for row in rows] for one in range(2)]
        assert replayed == recorded


def test_the_policy_learns_in_versions_that_the_log_holds(written):
    records = [json.loads(row.record) for rows in open_log(written[1]).policies() for row in rows]
    versions = [record["version"] for record in records if record["record"] == "learned"]
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= 2
    digests = {record["digest"] for record in records if record["record"] == "learned"}
    assert len({outcome.learned for outcome in outcomes_of(written[1]).values()} & digests) >= 2


def test_the_truth_has_every_feasible_price_of_every_draw_and_demand_falls_with_the_price(written):
    outcomes, rows = outcomes_of(written[1]), truth_of(written[1])
    by_draw: dict[str, list[TruthRow]] = {}
    for row in rows:
        by_draw.setdefault(row.draw_id, []).append(row)
    assert by_draw.keys() == outcomes.keys()
    for draw_id, found in by_draw.items():
        outcome = outcomes[draw_id]
        assert tuple(row.price for row in found) == outcome.prices
        assert tuple(row.probability for row in found) == outcome.probabilities
        assert [row.price for row in found if row.charged] == [outcome.price]
        assert [row.chance for row in found] == sorted((row.chance for row in found), reverse=True)
        assert found[0].seen == outcome.exposed
        assert outcome.exposed or outcome.bought is None


def test_purchases_come_as_often_as_the_truth_says():
    score = run_shop(passers_by("LOGIT", 4, 1_000), policy_of(UniformRandom(), rails=RAILS), 4)
    world, account = world_of("LOGIT", 4, 1_000), score.account
    expected, spread = account.draws * world.chances.mean(), np.sqrt(account.draws * 0.25)
    assert abs(account.bought - expected) < 4 * spread
    assert account.draws > 700
    assert account.unseen > 20


def test_an_estimate_from_the_log_alone_lies_within_its_error_of_the_truth(tmp_path):
    directory = tmp_path / "log"
    run_shop(shop(looks=900), policy_of(UniformRandom()), 2, 2, Files(directory, "jsonl"))
    at_list, errors = [], []
    truth = {(row.draw_id, row.price): row for row in truth_of(directory)}
    for outcome in outcomes_of(directory).values():
        if not outcome.exposed:
            continue
        row = truth[outcome.draw_id, outcome.list_price]
        weight = (outcome.price == outcome.list_price) / outcome.propensity
        reward = (outcome.bought is not None) * (outcome.price - row.cost)
        at_list.append(row.chance * (row.price - row.cost))
        errors.append(weight * reward - at_list[-1])
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(len(errors))
    assert np.mean(at_list) > np.std(errors) / np.sqrt(len(errors)), "the estimate could have been anything"


def test_the_account_is_what_the_truth_adds_up_to(written):
    score, directory = written
    value = Counter()
    for row in truth_of(directory):
        worth = row.chance * (row.price - row.cost)
        if row.seen and row.charged:
            value["policy"] += worth
        if row.seen and row.price == row.list_price:
            value["list_price"] += worth
    best: dict[str, float] = {}
    for row in truth_of(directory):
        if row.seen:
            best[row.draw_id] = max(best.get(row.draw_id, -1e9), row.chance * (row.price - row.cost))
    whole = score.account.whole
    assert whole.policy == pytest.approx(value["policy"])
    assert whole.list_price == pytest.approx(value["list_price"])
    assert whole.oracle == pytest.approx(sum(best.values()))
    for name in ("draws", "policy", "oracle", "best_fixed", "list_price"):
        assert sum(getattr(period, name) for period in score.account.periods) == pytest.approx(getattr(whole, name))


def test_list_price_gains_nothing_and_a_fixed_price_is_no_better_than_the_best_one():
    listed = run_shop(shop(), policy_of(ListPrice()), 2).account
    assert listed.whole.policy == pytest.approx(listed.whole.list_price)
    rails = Rails(charm_endings=())
    fixed = run_shop(shop(), policy_of(FixedPrice(multiplier_permille=900), rails=rails), 2).account
    assert fixed.whole.list_price < fixed.whole.policy <= fixed.whole.best_fixed + 1e-6
    assert fixed.whole.best_fixed <= fixed.whole.oracle
    dear = run_shop(shop(30.0, looks=100), policy_of(UniformRandom()), 2).account
    assert dear.best_fixed_permille >= 750, "nothing below the band of the rails is charged"
    cheap = run_shop(shop(0.1, looks=100), policy_of(UniformRandom()), 2).account
    assert cheap.best_fixed_permille == 1000, "nor is anything above list, where rails end there"


def test_the_oracle_gains_more_the_more_people_care_about_prices():
    lifts = []
    for elasticity in (1.0, 4.0, 8.0):
        whole = run_shop(shop(elasticity, looks=150), policy_of(UniformRandom()), 2).account.whole
        lifts.append(whole.lift(whole.oracle))
    assert lifts == sorted(lifts)
    assert lifts[0] < 2.0 < lifts[2]


def test_the_elasticity_is_that_of_the_average_look():
    step, found = 1e-4, []
    for one in shop(3.0).looks():
        low, high = one.demand(np.array([1.0, 1.0 + step]))
        found.append((low - high) / low / step)
    assert np.median(found) == pytest.approx(3.0, rel=0.25)
    assert np.std(found) > 0.5
    assert chances_at(0.0, 5.0, np.array([1.0]))[0] == 0.5


def test_equal_seeds_give_equal_logs_and_other_seeds_others(tmp_path):
    for name, seed in (("a", 2), ("b", 2), ("c", 5)):
        run_shop(shop(seed=seed, looks=60), policy_of(UniformRandom()), seed, 2, Files(tmp_path / name, "jsonl"))
    tables = [open_log(tmp_path / name).manifest.tables for name in "abc"]
    assert tables[0] == tables[1]
    assert tables[0]["events"].sha256 != tables[2]["events"].sha256


def test_simulate_writes_a_shop_and_sweeps_elasticities(tmp_path):
    (tmp_path / "p.toml").write_text('name = "p"\n[rule]\nkind = "uniform"\n')
    words = ["--policy", str(tmp_path / "p.toml"), "--seed", "2", "--events", "80", "--world"]

    def said(*more):
        result = CliRunner().invoke(simulate, [*words, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    one = json.loads(said("NULL", "--out", str(tmp_path / "log"), "--format", "jsonl", "--json"))
    assert one["looks"] == 80
    assert open_log(tmp_path / "log").manifest.offers == "shown"
    assert not open_log(tmp_path / "log").recorded, "no replay has what the world says of a visitor"
    swept = json.loads(said("SHOP", "--elasticity", "1", "--elasticity", "6", "--json"))
    assert [each["world"] for each in swept] == ["SHOP, elasticity 1", "SHOP, elasticity 6"]
    assert "period 12" in said("SHOP", "--plot", str(tmp_path / "value.svg"))
    assert (tmp_path / "value.svg").read_text().count("<polyline") == 4


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--world", "CARRY", "--out", "x"), "is no shop"),
        (("--world", "LOGIT", "--elasticity", "2"), "belong to world SHOP"),
        (("--world", "LOGIT", "--plot", "x.svg"), "value over time"),
        (("--world", "SHOP", "--discount-only"), "neither"),
        (("--world", "SHOP", "--habits", "missing.json"), "cannot be read"),
        (("--world", "SHOP", "--out", "x", "--elasticity", "1", "--elasticity", "2"), "one --elasticity"),
    ],
)
def test_what_cannot_be_simulated_is_said(tmp_path, words, why):
    (tmp_path / "p.toml").write_text('name = "p"\n[rule]\nkind = "list_price"\n')
    with pytest.raises(BadInput, match=why):
        CliRunner().invoke(simulate, ["--policy", str(tmp_path / "p.toml"), *words], catch_exceptions=False)


def test_an_offer_that_ends_before_shoppers_buy_is_refused():
    with pytest.raises(BadInput, match="dwell_ms"):
        run_shop(town_of(Place("SHOP", 1, 5), 3.0), policy_of(ListPrice(), rails=Rails(dwell_ms=60_000)), 1)
