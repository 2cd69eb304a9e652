"""backtest.estimators, diagnostics, resampling, rare_rewards: small cases worked out by hand, and promises."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.diagnostics import pareto_k
from backtest.estimators import (
    Modelled,
    chosen_by_slope,
    clipped,
    error_of,
    ips,
    lift,
    logged,
    mean_of,
    snips,
    value_of,
)
from backtest.feedback import feedback_of
from backtest.rare_rewards import widening
from backtest.resampling import GROUPS_MAX, groups_of, intervals_of

LOG = feedback_of(np.array([1.0, 0.0, 2.0, 1.0]), np.array([0.5, 0.5, 0.25, 0.25]), np.array([0.25, 0.5, 1.0, 0.0]))
"""Weights 1/2, 1, 4, 0."""
MODEL = Modelled(LOG, np.array([0.5, 0.5, 1.0, 1.0]), np.array([1.0, 1.0, 1.5, 1.5]))
"""Residuals 1/2, -1/2, 1, 0; the target's expected rewards average to 1.25."""
EVERY = np.arange(4)


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (logged(LOG), 1.0),
        (ips(LOG), (0.5 + 0 + 8 + 0) / 4),
        (snips(LOG), 8.5 / 5.5),
        (clipped(LOG, 2.0), (0.5 + 0 + 4 + 0) / 4),
        (lift(LOG, np.ones(4)), 8.5 / 5.5 - 1.0),
        (MODEL.dm(), 1.25),
        (MODEL.dr(), 1.25 + (0.25 - 0.5 + 4) / 4),
        (MODEL.sndr(), 1.25 + 3.75 / 5.5),
        (MODEL.switch(2.0), 1.25 + (0.25 - 0.5) / 4),
        (MODEL.dros(4.0), 1.25 + (0.5 * 4 * 0.5 / 4.25 - 0.5 * 4 / 5 + 4 * 4 / 20) / 4),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_an_estimator_is_its_formula(estimator, value):
    assert value_of(estimator.terms) == pytest.approx(value)


def test_the_error_of_a_mean_is_the_textbooks():
    values = np.array([1.0, 4.0, 2.0, 7.0])
    assert error_of(mean_of(values), EVERY) == pytest.approx(values.std(ddof=1) / 2)


def test_the_error_of_users_is_that_of_their_sums():
    values, users = np.array([1.0, 4.0, 2.0, 7.0, 3.0, 3.0]), np.array([0, 0, 1, 1, 2, 2])
    sums = np.array([5.0, 9.0, 6.0])
    assert error_of(mean_of(values), users) == pytest.approx(sums.std(ddof=1) * 3**0.5 / 6)


def test_without_bias_slope_takes_the_least_noisy_candidate_and_with_it_an_unbiased_one():
    random = np.random.default_rng(5)
    noise = random.normal(0.0, 1.0, 10_000)

    def shrunk(parameter, bias):
        return logged(feedback_of(noise * (1 - parameter) + bias * parameter, np.ones(10_000), np.ones(10_000)))

    candidates, users = [0.0, 0.3, 0.6, 0.9], np.arange(10_000)
    assert chosen_by_slope(candidates, lambda one: shrunk(one, 0.0), users) == 0.9
    assert chosen_by_slope(candidates, lambda one: shrunk(one, 1.0), users) == 0.0


@pytest.mark.parametrize("shape", [0.3, 0.6, 0.9])
def test_the_shape_of_a_pareto_tail_is_found(shape):
    found = [pareto_k(np.random.default_rng(seed).random(20_000) ** -shape) for seed in range(8)]
    assert np.mean(found) == pytest.approx(shape, abs=0.06)


def test_a_tail_of_one_size_has_a_shape_that_passes():
    for large in (20, 40, 100, 200):
        weight = np.where(np.arange(5_000) < large, 3.0, 1.0)
        assert pareto_k(weight) < 0.7


def test_weights_of_one_size_have_no_tail():
    assert pareto_k(np.ones(1_000)) is None
    assert pareto_k(np.where(np.arange(1_000) % 2, 2.0, 0.0)) is None
    assert pareto_k(np.zeros(1_000)) is None


def test_a_bootstrap_of_a_mean_is_about_as_wide_as_its_standard_error_says():
    values = np.random.default_rng(2).normal(3.0, 2.0, 2_000)
    (found,) = intervals_of([mean_of(values)], np.arange(2_000), 0.05, 2_000, seed=1)
    half = 1.96 * values.std() / 2_000**0.5
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_weights_are_resampled_with_the_rewards():
    weight = np.random.default_rng(4).exponential(1.0, 500)
    log = feedback_of(np.full(500, 3.0), np.full(500, 0.01), 0.01 * weight)
    of_snips, of_ips = intervals_of([snips(log).terms, ips(log).terms], np.arange(500), 0.05, 300, seed=1)
    assert (of_snips.low, of_snips.high) == pytest.approx((3.0, 3.0))
    assert of_ips.high - of_ips.low > 0.3


def test_an_estimator_that_most_resamples_do_not_define_has_no_interval():
    nowhere = ((np.ones(50), np.zeros(50)),)
    assert intervals_of([nowhere, mean_of(np.ones(50))], np.arange(50), 0.05, 200, seed=1)[0] is None


def test_more_users_than_groups_are_resampled_in_groups():
    groups = groups_of(np.arange(3 * GROUPS_MAX))
    assert np.bincount(groups).tolist() == [3] * GROUPS_MAX


def test_common_rewards_are_not_widened():
    random = np.random.default_rng(6)
    weight, reward = random.exponential(1.0, 20_000), (random.random(20_000) < 0.3).astype(float)
    assert widening(weight, reward) < 1.05
    assert widening(np.ones(1_000), reward[:1_000]) == pytest.approx(1.0)


def test_rare_rewards_that_missed_the_large_weights_are_widened_to_what_they_would_have_shown():
    random = np.random.default_rng(7)
    n, rate = 10_000, 0.005
    weight = np.where(random.random(n) < 0.01, 40.0, 0.6)
    reward = (random.random(n) < rate).astype(float)
    missed = np.where(weight > 1.0, 0.0, reward)
    expected = (weight**2).mean() * rate
    seen = (weight**2 * missed).mean()
    assert seen < expected / 20
    assert seen * widening(weight, missed) ** 2 == pytest.approx(expected, rel=0.35)


def test_no_reward_widens_nothing():
    assert widening(np.ones(10), np.zeros(10)) == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "weights",
    [
        [1.0] * 40,
        [1.0, 1.0 + 2.3e-16] * 40,
        [0.0] * 90 + [10.0] * 10,
        [0.0] * 20 + [5e-324, 1e-310, 2.3e-308, 1e-300] * 20 + [1.0],
    ],
)
def test_weights_that_hardly_differ_or_vanish_have_a_finite_tail_or_none_and_warn_nobody(weights: list[float]) -> None:
    found = pareto_k(np.array(weights))
    assert found is None or np.isfinite(found)
