"""backtest.evaluation on five draws worked out by hand, to the last standard error; and how its intervals are put together."""

from __future__ import annotations

import json
from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from click.testing import CliRunner

from backtest.estimates import Settings
from backtest.estimators import lift as lift_of
from backtest.evaluate_commands import evaluate as command
from backtest.evaluation import evaluate, lift_over
from backtest.feedback import feedback_of
from backtest.resampling import groups_of, intervals_of

REWARD = (1.0, 0.0, 1.0, 1.0, 2.0)
PROPENSITY = (0.25, 0.5, 0.5, 0.25, 0.2)
TARGET = (0.5, 0.25, 0.5, 0.0, 0.6)
WEIGHT = (2.0, 0.5, 1.0, 0.0, 3.0)
EXPECTED = (0.5, 0.5, 0.5, 1.0, 1.0)
OF_TARGET = (1.0, 0.5, 1.0, 0.5, 1.0)
"""So w r = 2, 0, 1, 0, 6 and w (r - q) = 1, -1/4, 1/2, 0, 3."""
SHRUNK = (1.0 + 0.5, 0.5 - 4 / 17, 1.0 + 0.4, 0.5, 1.0 + 12 / 13)
PLAIN = Settings(resamples=200, clip=2.0, tau=2.0, shrinkage=4.0)


def five(**more):
    columns = (np.array(each) for each in (REWARD, PROPENSITY, TARGET))
    return feedback_of(*columns, **more)


def modelled(**more):
    return five(expected_logged=np.array(EXPECTED), expected_target=np.array(OF_TARGET), **more)


BY_HAND = {
    # squares of what each draw is away from the mean: (0.2, 1.8, 0.8, 1.8, 4.2)
    "ips": (9 / 5, sqrt(24.8 / 4 / 5)),
    # w (r - 18/13): -10/13, -9/13, -5/13, 0, 24/13
    "snips": (18 / 13, sqrt((10**2 + 9**2 + 5**2 + 24**2) / 13**2) / 6.5),
    # (0.6, 1.4, 0.4, 1.4, 2.6)
    "clipped_ips": (7 / 5, sqrt(11.2 / 4 / 5)),
    "dm": (4 / 5, None),
    # v + w (r - q): 2, 1/4, 3/2, 1/2, 4
    "dr": (8.25 / 5, sqrt(8.95 / 4 / 5)),
    # v - 0.8 + (w (r - q) - w 4.25/6.5) / 1.3
    "sndr": (
        0.8 + 4.25 / 6.5,
        sqrt(
            sum(
                (v - 0.8 + (w * (r - q) - w * 4.25 / 6.5) / 1.3) ** 2
                for v, w, r, q in zip(OF_TARGET, WEIGHT, REWARD, EXPECTED, strict=True)
            )
        )
        / 5,
    ),
    # v + [w <= 2] w (r - q): 2, 1/4, 3/2, 1/2, 1
    "switch_dr": (5.25 / 5, sqrt(2.05 / 4 / 5)),
    # v + (r - q) 4 w / (4 + w^2), with 1, 8/17, 4/5, 0, 12/13
    "dros": (sum(SHRUNK) / 5, sqrt(sum((one - sum(SHRUNK) / 5) ** 2 for one in SHRUNK) / 4 / 5)),
}


def test_every_estimator_and_its_standard_error_are_those_worked_out_by_hand():
    found = {one.name: (one.value, one.error) for one in evaluate(modelled(), PLAIN).estimates}
    assert found == {
        name: (pytest.approx(value), None if error is None else pytest.approx(error, rel=1e-6))
        for name, (value, error) in BY_HAND.items()
    }


def test_the_lift_and_the_diagnostics_are_those_worked_out_by_hand():
    found = evaluate(modelled(), PLAIN)
    assert found.lift.value == pytest.approx(5 / 13)
    influence = [w * (r - 18 / 13) / 1.3 - (r - 1.0) for w, r in zip(WEIGHT, REWARD, strict=True)]
    assert found.lift.error == pytest.approx(sqrt(sum(one**2 for one in influence)) / 5)
    seen = found.diagnostics
    assert (seen.ess, seen.ess_share) == (pytest.approx(6.5**2 / 14.25), pytest.approx(6.5**2 / 14.25 / 5))
    assert (seen.weight_mean, seen.weight_max, seen.weight_share) == pytest.approx((1.3, 3.0, 3 / 6.5))
    assert seen.weight_z == pytest.approx(0.3 / sqrt(5.8 / 4 / 5))
    assert seen.reward_share == pytest.approx(6 / 9)
    assert {one.clip: one.value for one in seen.clips}[1.0] == pytest.approx((1 + 0 + 1 + 0 + 2) / 5)


def test_with_users_of_several_draws_errors_are_of_their_sums():
    found = {one.name: one.error for one in evaluate(modelled(users=np.array([0, 0, 1, 1, 2])), PLAIN).estimates}
    assert found["ips"] == pytest.approx(sqrt((1.6**2 + 2.6**2 + 4.2**2) * 3 / 2) / 5)
    assert found["snips"] == pytest.approx(sqrt((19**2 + 5**2 + 24**2) / 13**2) / 6.5)


def test_forced_draws_are_a_share_of_all_draws():
    more = {"forced": np.array([False, False, True, False, False])}
    assert evaluate(five(**more), PLAIN).diagnostics.forced_share == pytest.approx(1 / 5)


@pytest.mark.parametrize("other", [np.ones(5), np.array([0.4, 1.6, 1.0, 2.0, 0.5])], ids=["logged", "third"])
def test_the_anytime_valid_interval_takes_off_what_was_earned_before_each_draw(other):
    """By a loop: known before are 0, 1, 1/2, 2/3, 3/4; the boundary is 2.2801 standard errors at the planned draw."""
    rewards, gains = [], []
    for w, o, r in zip(WEIGHT, other.tolist(), REWARD, strict=True):
        known = sum(rewards) / len(rewards) if rewards else 0.0
        gains.append((w - o) * (r - known))
        rewards.append(r)
    mean = sum(gains) / 5
    deviation = sqrt(sum((one - mean) ** 2 for one in gains) / 5)
    found = lift_over(five(), other * np.array(PROPENSITY), PLAIN)
    half = found.widened * NormalDist().inv_cdf(1 - 0.9 * 0.05 / 4) * deviation / sqrt(5)
    assert (found.anytime.low, found.anytime.high) == (pytest.approx(mean - half), pytest.approx(mean + half))


def around(increments, widened):
    """The boundary around the mean of martingale differences, at the planned number of draws."""
    n = len(increments)
    mean = sum(increments) / n
    deviation = sqrt(sum((one - mean) ** 2 for one in increments) / n)
    half = widened * NormalDist().inv_cdf(1 - 0.9 * 0.05 / 4) * deviation / sqrt(n)
    return pytest.approx(mean - half), pytest.approx(mean + half)


def rare(n=4_000, seed=3):
    """Rewards of 1 %, and weights whose largest met none of them: what was seen varies too little."""
    random = np.random.default_rng(seed)
    target = np.where(random.random(n) < 0.02, 0.9, 0.05)
    reward = (random.random(n) < 0.01) & (target < 0.5)
    return feedback_of(reward.astype(float), np.full(n, 0.08), target)


@pytest.mark.parametrize("log", [five(), rare()], ids=["five draws", "rare rewards"])
def test_the_anytime_valid_intervals_of_values_and_lift_are_widened_sums_of_what_each_draw_brings(log):
    earned, known = 0.0, []
    for number, reward in enumerate(log.reward.tolist()):
        known.append(earned / number if number else 0.0)
        earned += reward
    draws = list(zip(log.weight.tolist(), log.reward.tolist(), known, strict=True))
    found = evaluate(log, PLAIN)
    estimates = {one.name: one for one in found.estimates}
    wanted = {
        "ips": ([w * r for w, r, _ in draws], estimates["ips"]),
        "snips": ([w * (r - k) + k for w, r, k in draws], estimates["snips"]),
        "lift": ([(w - 1.0) * (r - k) for w, r, k in draws], found.lift),
    }
    for name, (increments, one) in wanted.items():
        assert (one.anytime.low, one.anytime.high) == around(increments, one.widened), name
    assert estimates["clipped_ips"].anytime is None, "nothing so simple has its expectation"


@pytest.mark.parametrize("draws_of_a_user", [1, 4])
def test_the_bootstraps_interval_is_at_least_the_standard_errors_and_widened_on_either_side(draws_of_a_user):
    log = rare()
    users = np.arange(len(log)) // draws_of_a_user
    found = evaluate(feedback_of(log.reward, log.propensity, log.target, users=users), PLAIN).lift
    terms, error = lift_of(log, np.ones(len(log))).terms, 1.959963984540054 * found.error
    (raw,) = intervals_of([terms], groups_of(users), 0.05, PLAIN.resamples, PLAIN.seed)
    below, above = found.value - raw.low, raw.high - found.value
    assert found.widened > 1.1
    assert found.bootstrap.low == pytest.approx(found.value - found.widened * max(below, error))
    assert found.bootstrap.high == pytest.approx(found.value + found.widened * max(above, error))
    assert (min(below, above) < error) == (draws_of_a_user == 1), "of one of the two logs the bootstrap alone is short"


def test_the_command_gives_the_same_for_a_file(tmp_path):
    rows = [f"{r},{p},{t},a" for r, p, t in zip(REWARD, PROPENSITY, TARGET, strict=True)]
    (tmp_path / "five.csv").write_text("\n".join(["reward,propensity,new,action", *rows]) + "\n")
    words = [str(tmp_path / "five.csv"), "--target", "column:new", "--json", "--clip", "2", "--resamples", "200"]
    done = CliRunner().invoke(command, words)
    found = json.loads(done.stdout)
    assert (done.exit_code, found["verdict"]) == (1, "REFUSE")
    assert {one["name"]: (one["value"], one["error"]) for one in found["estimates"]} == {
        name: (pytest.approx(BY_HAND[name][0]), pytest.approx(BY_HAND[name][1]))
        for name in ("ips", "snips", "clipped_ips")
    }
