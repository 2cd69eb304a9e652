"""`pricetide evaluate` on a log of ours: a policy file at the logged draws, and logs that cannot tell."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from backtest.evaluate_commands import evaluate
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


def test_a_table_is_no_target_for_it(log):
    with pytest.raises(BadInput, match="name the target as a TOML file"):
        feedback_on_policy(log, "uniform")
