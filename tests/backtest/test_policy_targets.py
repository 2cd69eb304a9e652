"""`pricetide evaluate` on a log of ours: a policy file at the logged draws, and logs that cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from click.testing import CliRunner

from backtest import policy_targets
from backtest.evaluate_commands import evaluate
from backtest.logged_draws import LoggedDraws
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
    assert found["judged_by"] == "anytime"


def test_a_log_whose_offers_nobody_saw_is_refused_with_that_reason(log, same, tmp_path):
    unseen = rewritten(log, tmp_path, offers="not_shown")
    done = CliRunner().invoke(evaluate, [str(unseen), "--target", str(same)], catch_exceptions=False)
    assert done.exit_code == 1
    assert "verdict: REFUSE" in done.stdout
    assert "offers: not_shown" in done.stdout


ROWS = [
    # user, exposed, learnable, forced, bought, logged probabilities, the target's, outside
    ("ann", True, True, False, 2, (0.5, 0.5), (0.25, 0.75), 0.0),
    ("ann", False, True, False, 1, (0.5, 0.5), (0.25, 0.75), 0.0),  # nobody saw it
    ("bob", True, False, False, 1, (0.5, 0.5), (0.25, 0.75), 0.0),  # implausible traffic, say
    ("bob", True, False, True, 0, (1.0,), (1.0,), 0.0),
    ("ann", True, True, False, 0, (1.0, 0.0), (0.4, 0.5), 0.1),  # the log never draws the second price
]
"""Drawn was always the first price, 900; it costs 600."""


def test_what_is_judged_are_draws_that_were_seen_and_may_be_learned_from_and_users_belong_together(same, monkeypatch):
    user, exposed, learnable, forced, bought, logged, target, outside = (
        list(column) for column in zip(*ROWS, strict=True)
    )
    table = pyarrow.table(
        {
            "user": user, "exposed": exposed, "learnable": learnable, "forced": forced, "quantity": bought,
            "price": [900] * 5, "cost": [600] * 5, "drawn_ms": [1, 2, 3, 4, 5], "propensity": [row[0] for row in logged],
            "probabilities": logged, "target.uniform": [row[0] for row in target], "targets.uniform": target,
            "outside.uniform": outside,
        }
    )  # fmt: skip
    draws = LoggedDraws(table, ("uniform",), None, 0)
    monkeypatch.setattr(policy_targets, "logged_draws", lambda *_: draws)
    found = feedback_on_policy(Path("log"), str(same), "margin")
    assert found.times_ms.tolist() == [1, 4, 5]
    assert found.reward.tolist() == [600.0, 0.0, 0.0]
    assert found.forced.tolist() == [False, True, False]
    assert (found.users == found.users[0]).tolist() == [True, False, True]
    assert (found.propensity.tolist(), found.target.tolist()) == ([0.5, 1.0, 1.0], [0.25, 1.0, 0.4])
    assert found.unsupported.tolist() == pytest.approx([0.0, 0.0, 0.6])
    assert found.adaptive, "unless somebody says that it did not learn"
    assert not feedback_on_policy(Path("log"), str(same), "margin", adaptive=False).adaptive


def test_a_table_is_no_target_for_it(log):
    with pytest.raises(BadInput, match="name the target as a TOML file"):
        feedback_on_policy(log, "uniform")
