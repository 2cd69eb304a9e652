"""`pricetide evaluate` on the Open Bandit files: the values that others computed, to the digits they printed.

Source: the project's reference on pricing, section 3.4; IPS, SNIPS and clipped IPS there are those of the data set's own library,
the Pareto shape that of ArviZ. The data set: Saito, Aihara, Matsutani, Narita, arXiv 2008.07146.
"""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from scipy import stats

from backtest.evaluate_commands import evaluate

ITEMS, POSITIONS = 34, 3
CASES = {
    "uniform": {
        "log": "bts",
        "values": {
            "ips": "0.00300863", "snips": "0.00318942", "dm": "0.00670502", "dr": "0.00321672", "sndr": "0.00300710",
            "switch_dr": "0.00629675", "dros": "0.00522290", "clipped_ips": "0.00300863",
        },
        "errors": {"ips": "0.00077394", "snips": "0.00082782", "dr": "0.00083671"},
        "diagnostics": {
            "ess": "655.71", "weight_mean": "0.943314", "weight_z": "-1.59", "weight_max": "178.253", "weight_share": "0.0189",
            "pareto_k": "0.43995", "reward_share": "0.157",
        },
    },
    "sampled": {
        "log": "random",
        "values": {
            "ips": "0.00453356", "snips": "0.00460423", "dm": "0.00463147", "dr": "0.00462163", "sndr": "0.00462148",
            "switch_dr": "0.00472656", "dros": "0.00478490", "clipped_ips": "0.00427341",
        },
        "errors": {"ips": "0.00118152", "snips": "0.00119881", "dr": "0.00118293"},
        "diagnostics": {},
    },
    "exact": {
        "log": "random",
        "values": {
            "ips": "0.00454006", "snips": "0.00461021", "dm": "0.00463366", "dr": "0.00462711", "sndr": "0.00462701",
            "switch_dr": "0.00473210", "dros": "0.00478943", "clipped_ips": "0.00428201",
        },
        "errors": {"ips": "0.00118207", "snips": "0.00119920", "dr": "0.00118347"},
        "diagnostics": {
            "ess": "2474.27", "weight_mean": "0.984782", "weight_z": "-0.89", "weight_max": "10.666", "weight_share": "0.0011",
            "reward_share": "0.156",
        },
    },
}  # fmt: skip


def prior(folder):
    found = yaml.safe_load((folder / "prior_bts.yaml").read_text())["men"]
    return np.array(found["alpha"]), np.array(found["beta"])


def sampled_ranks(alpha, beta, draws=100_000):
    """Shares of the first three ranks among sampled chances: what Thompson sampling shows before it learns, by counting."""
    sampled = np.random.RandomState(12345).beta(alpha, beta, (draws, ITEMS))
    first = sampled.argsort(axis=1)[:, ::-1][:, :POSITIONS]
    return np.array([np.bincount(first[:, rank], minlength=ITEMS) for rank in range(POSITIONS)]).T / draws


def exact_ranks(alpha, beta, points=2_001):
    """The same by numerical integration of f_i(x) P(rank - 1 of the others lie above x)."""
    x = np.linspace(0.0, stats.beta.ppf(1 - 1e-13, alpha, beta).max(), points)
    beyond = stats.beta.sf(x, alpha[:, None], beta[:, None])
    density = stats.beta.pdf(x, alpha[:, None], beta[:, None])
    chances = np.zeros((ITEMS, POSITIONS))
    for item in range(ITEMS):
        above = np.zeros((POSITIONS, points))
        above[0] = 1.0
        for p in np.delete(beyond, item, axis=0):
            above[1:] = above[1:] * (1 - p) + above[:-1] * p
            above[0] *= 1 - p
        chances[item] = np.trapezoid(above * density[item], x, axis=1)
    return chances


@pytest.fixture(scope="module")
def evaluations(open_bandit, tmp_path_factory):
    tables = {"sampled": sampled_ranks(*prior(open_bandit)), "exact": exact_ranks(*prior(open_bandit))}
    found = {}
    for name, case in CASES.items():
        target = name
        if name in tables:
            target = tmp_path_factory.mktemp("target") / f"{name}.csv"
            with target.open("w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["item_id", "position", "probability"])
                rows.writerows(
                    (i, p + 1, repr(float(tables[name][i, p]))) for i in range(ITEMS) for p in range(POSITIONS)
                )
        words = [str(open_bandit / case["log"] / "men" / "men.csv"), "--target", str(target), "--json"]
        done = CliRunner().invoke(evaluate, [*words, "--tau", "5", "--lambda", "100", "--clip", "5"])
        assert done.exit_code == 0, done.output
        found[name] = json.loads(done.stdout)
    return found


def as_printed(value, printed):
    return f"{value:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize("name", CASES)
def test_estimators_and_their_standard_errors_are_those_of_the_reference(evaluations, name):
    estimates = {one["name"]: one for one in evaluations[name]["estimates"]}
    values = {key: as_printed(estimates[key]["value"], printed) for key, printed in CASES[name]["values"].items()}
    errors = {key: as_printed(estimates[key]["error"], printed) for key, printed in CASES[name]["errors"].items()}
    assert values == CASES[name]["values"]
    assert errors == CASES[name]["errors"]


@pytest.mark.parametrize("name", ["uniform", "exact"])
def test_diagnostics_are_those_of_the_reference(evaluations, name):
    wanted, found = CASES[name]["diagnostics"], evaluations[name]["diagnostics"]
    assert {key: as_printed(found[key], printed) for key, printed in wanted.items()} == wanted


def test_a_tail_of_bounded_weights_has_no_shape_above_zero(evaluations):
    assert evaluations["exact"]["diagnostics"]["pareto_k"] < 0


@pytest.mark.parametrize("name", CASES)
def test_a_few_clicks_settle_nothing(evaluations, name):
    assert evaluations[name]["verdict"] == "INCONCLUSIVE"
    assert all(gate["passed"] for gate in evaluations[name]["gates"])


def test_the_log_of_the_policy_that_learned_is_judged_by_the_anytime_valid_interval(evaluations):
    assert [evaluations[name]["judged_by"] for name in CASES] == ["anytime", "bootstrap", "bootstrap"]


def test_the_intervals_of_the_uniform_policy_hold_what_it_earned_in_the_other_log(evaluations):
    truth = evaluations["exact"]["logged"]["value"]
    assert truth == pytest.approx(0.0046)
    for one in evaluations["uniform"]["estimates"][:2]:
        for interval in (one["interval"], one["anytime"]):
            assert interval["low"] < truth < interval["high"]


def test_the_standard_error_of_so_few_clicks_is_widened_to_about_what_the_other_log_lets_expect(evaluations):
    (ips,) = (one for one in evaluations["uniform"]["estimates"] if one["name"] == "ips")
    weights = evaluations["uniform"]["diagnostics"]
    squares = weights["weight_mean"] ** 2 * weights["draws"] / weights["ess"]
    expected = (squares * 0.0046 / weights["draws"]) ** 0.5
    assert ips["error"] < 0.35 * expected
    assert 0.8 * expected < ips["error"] * ips["widened"] < 1.4 * expected
