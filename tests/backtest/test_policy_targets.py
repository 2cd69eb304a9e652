"""`pricetide evaluate` on a log of ours: a policy file at the logged draws, and logs that cannot tell."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.compute
import pytest
from click.testing import CliRunner

from backtest import policy_targets
from backtest.estimates import Settings
from backtest.evaluate_commands import evaluate
from backtest.evaluation import evaluate as judge
from backtest.logged_draws import LoggedDraws, Replayed
from backtest.policy_targets import feedback_on_policy
from contracts.errors import BadInput
from tests.backtest.recorded_shop import recorded_shop, rewritten


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return recorded_shop(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    file = tmp_path_factory.mktemp("policy") / "same.toml"
    file.write_text('name = "uniform"\nseed = 7\nrule = { kind = "uniform" }\n')
    return file


def test_the_logged_policy_as_a_target_has_weights_of_one_and_no_lift(log, same):
    done = CliRunner().invoke(evaluate, [str(log), "--target", str(same), "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["diagnostics"]["draws"] > 50
    assert (found["diagnostics"]["weight_mean"], found["diagnostics"]["weight_max"]) == (1.0, 1.0)
    assert found["lift"]["value"] == 0.0
    assert found["diagnostics"]["forced_share"] > 0.0
    assert found["judged_by"] == "bootstrap", "no policy of this log learns"
    assert found["notes"][0] == "judged by margin, since the catalogue knows every cost"
    assert found["notes"][1].endswith(" recorded outcomes equal the replay, to the last bit")
    assert "recomputed propensities" not in {gate["name"] for gate in found["gates"]}, "the log holds them once"


def test_a_log_whose_offers_nobody_saw_is_refused_with_that_reason(log, same, tmp_path):
    unseen = rewritten(log, tmp_path, offers="not_shown")
    done = CliRunner().invoke(evaluate, [str(unseen), "--target", str(same)], catch_exceptions=False)
    assert done.exit_code == 1
    assert "verdict: REFUSE" in done.stdout
    assert "offers: not_shown" in done.stdout
    assert "SNIPS" not in done.stdout, "and of no value, and of no lift"


ROWS = [
    # user, exposed, learnable, forced, bought, logged probabilities, the target's, outside
    ("ann", True, True, False, 2, (0.5, 0.5), (0.25, 0.75), 0.0),
    ("ann", False, True, False, 1, (0.5, 0.5), (0.25, 0.75), 0.0),  # nobody saw it
    ("bob", True, False, False, 1, (0.5, 0.5), (0.25, 0.75), 0.0),  # implausible traffic, say
    ("bob", True, False, True, 0, (1.0,), (1.0,), 0.0),
    ("ann", True, True, False, 0, (1.0, 0.0), (0.4, 0.5), 0.1),  # the log never draws the second price
]
"""Drawn was always the first price, 900; it costs 600."""


def draws_with(rows):
    """The logged draws of `rows`, as ROWS has them."""
    user, exposed, learnable, forced, bought, logged, target, outside = (
        list(column) for column in zip(*rows, strict=True)
    )
    n = len(rows)
    table = pyarrow.table(
        {
            "user": user, "exposed": exposed, "learnable": learnable, "forced": forced, "quantity": bought,
            "price": [900] * n, "cost": [600] * n, "drawn_ms": range(n), "propensity": [row[0] for row in logged],
            "probabilities": logged, "target.uniform": [row[0] for row in target], "targets.uniform": target,
            "outside.uniform": outside, "item": ["lamp"] * n, "market": ["us"] * n, "list_price": [1000] * n, "intent": [0] * n,
            "sequence": [1] * n, "policy": ["uniform@1"] * n, "learned": [None] * n, "learned.uniform": [None] * n,
            "prices": [[900, 1000][: len(row)] for row in logged], "draw_id": [str(one) for one in range(n)],
        }
    )  # fmt: skip
    return LoggedDraws(table, ("uniform",), None, 0, Replayed(n, n))


def test_what_is_judged_are_draws_that_were_seen_and_may_be_learned_from_and_users_belong_together(same, monkeypatch):
    monkeypatch.setattr(policy_targets, "logged_draws", lambda *_: draws_with(ROWS))
    found = feedback_on_policy(Path("log"), str(same), "margin").feedback
    assert found.times_ms.tolist() == [0, 3, 4]
    assert found.reward.tolist() == [600.0, 0.0, 0.0]
    assert found.forced.tolist() == [False, True, False]
    assert (found.users == found.users[0]).tolist() == [True, False, True]
    assert (found.propensity.tolist(), found.target.tolist()) == ([0.5, 1.0, 1.0], [0.25, 1.0, 0.4])
    assert found.unsupported.tolist() == pytest.approx([0.0, 0.0, 0.6])
    assert not found.adaptive, "unless somebody says that it learned"
    assert feedback_on_policy(Path("log"), str(same), "margin", adaptive=True).feedback.adaptive
    assert found.expected_logged.tolist() == pytest.approx([0.0, 300.0, 0.0]), "each by the draws of the other user"


def test_what_draws_are_expected_to_earn_is_there_so_that_every_estimator_is(same, monkeypatch):
    random = Random(1)
    one = (True, True, False)
    rows = [(f"u{n % 300}", *one, int(random.random() < 0.4), (0.5, 0.5), (1.0, 0.0), 0.0) for n in range(900)]
    draws = draws_with(rows)
    at_list = pyarrow.array([n % 2 == 0 for n in range(900)])
    columns = {
        "price": pyarrow.compute.if_else(at_list, 1000, 900),
        "quantity": pyarrow.compute.if_else(
            at_list, [int(random.random() < 0.1) for _ in rows], draws.table["quantity"]
        ),
        "target.uniform": pyarrow.compute.if_else(at_list, 0.0, 1.0),
    }
    table = draws.table
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    monkeypatch.setattr(policy_targets, "logged_draws", lambda *_: replace(draws, table=table))
    found = feedback_on_policy(Path("log"), str(same), "margin").feedback
    assert found.expected_target.mean() == pytest.approx(0.4 * 300, rel=0.2)
    assert found.expected_logged[::2].mean() == pytest.approx(0.1 * 400, rel=0.4)
    estimates = {one.name for one in judge(found, Settings(resamples=100)).estimates}
    assert {"dm", "dr", "sndr", "switch_dr", "dros"} < estimates
    units = feedback_on_policy(Path("log"), str(same), "units").feedback
    assert units.expected_target.mean() == pytest.approx(0.4, rel=0.2)


def test_nobody_has_to_say_what_draws_are_judged_by_which_is_margin_where_every_cost_is_known(same, monkeypatch):
    known = draws_with(ROWS)
    place = known.table.column_names.index("cost")
    unknown = replace(known, table=known.table.set_column(place, "cost", pyarrow.array([600, 600, 600, None, 600])))
    for draws, goal, rewards in ((known, "margin", [600.0, 0.0, 0.0]), (unknown, "revenue", [1_800.0, 0.0, 0.0])):
        monkeypatch.setattr(policy_targets, "logged_draws", lambda *_, draws=draws: draws)
        found = feedback_on_policy(Path("log"), str(same))
        assert (found.reward, found.feedback.reward.tolist()) == (goal, rewards)
        assert found.notes[0].startswith(f"judged by {goal}, since the catalogue ")


def test_a_table_is_no_target_for_it(log):
    with pytest.raises(BadInput, match="name the target as a TOML file"):
        feedback_on_policy(log, "uniform")
