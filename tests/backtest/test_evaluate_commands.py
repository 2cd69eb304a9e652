"""`pricetide evaluate`: what it prints and how it ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from backtest.evaluate_commands import evaluate
from contracts.errors import BadInput


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    random = np.random.default_rng(1)
    arm = random.integers(0, 2, 4_000)
    bought = random.random(4_000) < np.array([0.1, 0.3])[arm]
    path = tmp_path_factory.mktemp("log") / "log.csv"
    lines = [f"{n},u{n % 800},{'ab'[a]},{int(r)},0.5" for n, (a, r) in enumerate(zip(arm, bought, strict=True))]
    path.write_text("\n".join(["time,user,action,reward,propensity", *lines]) + "\n")
    (path.parent / "b.json").write_text('{"a": 0.1, "b": 0.9}')
    (path.parent / "c.json").write_text('{"a": 0.1, "b": 0.8, "c": 0.1}')
    return path


def run(log, target, *more):
    words = [str(log), "--target", str(target), "--resamples", "200", *more]
    return CliRunner().invoke(evaluate, words, catch_exceptions=False)


def test_the_page_says_the_verdict_first_and_what_is_estimated(log):
    done = run(log, log.parent / "b.json")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(log))
    assert "verdict: ADOPT_TO_AB" in lines[:4]
    for words in ("not long-run value", "SNIPS", "Switch-DR", "anytime-valid", "Pareto k"):
        assert words in done.stdout


def test_a_column_that_looks_like_markup_is_printed_as_it_is_and_moves_no_cursor(log, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(log.read_text().replace("propensity", "[/x]\x1b[H", 1))
    done = run(path, log.parent / "b.json", "--propensity", "[/x]\x1b[H")
    assert r"propensity: [/x]\x1b[H" in done.stdout.replace("\n", " ")


def test_the_json_has_everything_and_is_the_same_every_time(log):
    done = run(log, log.parent / "b.json", "--json")
    found = json.loads(done.stdout)
    assert found["verdict"] == "ADOPT_TO_AB"
    assert {one["name"] for one in found["estimates"]} == {
        "ips", "snips", "clipped_ips", "dm", "dr", "sndr", "switch_dr", "dros",
    }  # fmt: skip
    assert found["diagnostics"]["users"] == 800
    assert 0.0 < found["lift"]["bootstrap"]["low"] < found["lift"]["value"] < found["lift"]["bootstrap"]["high"]
    assert run(log, log.parent / "b.json", "--json").stdout == done.stdout
    assert run(log, log.parent / "b.json", "--json", "--seed", "7").stdout != done.stdout


def test_a_refusal_ends_with_1_and_names_the_gate(log):
    done = run(log, log.parent / "c.json")
    assert done.exit_code == 1
    assert "verdict: REFUSE" in done.stdout
    assert "unsupported target: 10.0% of the target's choices were never drawn" in done.stdout


def test_a_log_without_propensities_is_refused(log):
    lines = [line.rpartition(",")[0] for line in log.read_text().splitlines()]
    without = log.parent / "without.csv"
    without.write_text("\n".join(lines) + "\n")
    done = run(without, "uniform", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["verdict"], found["estimates"], found["lift"]) == (1, "REFUSE", [], None)
    assert "4,000 without a propensity" in found["why"][0]


def test_a_learning_policy_may_be_declared(log):
    assert json.loads(run(log, "uniform", "--json").stdout)["judged_by"] == "bootstrap"
    assert json.loads(run(log, "uniform", "--json", "--logged-policy", "learning").stdout)["judged_by"] == "anytime"


def test_a_policy_file_belongs_to_a_log_of_ours(log):
    with pytest.raises(BadInput, match="what a policy does hangs on the state of users"):
        run(log, "policy.toml")
