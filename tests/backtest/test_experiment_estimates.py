"""backtest.experiment_estimates: the values of gbstats and tea-tasting, and what cannot be estimated."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.confidence_sequences import half_width
from backtest.experiment_users import ExperimentUser

pytest.importorskip("tea_tasting", reason="pip install 'pricetide[experiments]'")

from backtest.experiment_estimates import estimate, sample_ratio_p, value_of


def users(revenues, before=None) -> list[ExperimentUser]:
    before = [0] * len(revenues) if before is None else before
    return [
        ExperimentUser("a", 0, revenue=revenue, before=one, purchases=int(revenue > 0))
        for revenue, one in zip(revenues, before, strict=True)
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((5_000, 5_200), 0.04767038), ((10_000, 10_500), 4.79146e-4), ((821_588, 815_482), 1.82179e-6)],
)
def test_sample_ratios_are_those_of_gbstats(counts, expected):
    assert sample_ratio_p(counts, (0.5, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_a_sample_ratio_knows_uneven_shares():
    assert sample_ratio_p((475, 475, 50), (0.475, 0.475, 0.05)) == pytest.approx(1.0)
    assert sample_ratio_p((475, 475, 120), (0.475, 0.475, 0.05)) < 1e-6


def test_cuped_gives_the_published_effect_and_interval():
    """Vector of tea-tasting 1.14.0: effect .286285, p = 7.93e-4 with CUPED, against .269523 without."""
    random = np.random.default_rng(7)
    before = random.gamma(2, 5, 20_000)
    treated = random.integers(0, 2, 20_000).astype(bool)
    values = 0.7 * before + random.normal(0, 6, 20_000) + 0.30 * treated
    groups = [users(values[chosen], before[chosen]) for chosen in (treated, ~treated)]
    found = estimate(*groups, "revenue")
    assert found.fixed[2] == pytest.approx(7.93e-4, rel=5e-3)
    assert found.lift == pytest.approx(0.2862853 / 7.0473896, rel=1e-6)
    raw = estimate(*(users(values[chosen]) for chosen in (treated, ~treated)), "revenue")
    assert raw.lift == pytest.approx(0.2695230 / 7.0557515, rel=1e-6)
    assert raw.cuped == 0.0
    assert found.cuped == pytest.approx(1 - (0.453499 - 0.119072) ** 2 / (0.483995 - 0.055051) ** 2, abs=1e-3)


def test_a_relative_lift_has_the_confidence_sequence_of_gbstats():
    """Vector of its test suite: 1396 of 3000 against 2422 of 3461."""
    control = users([1] * 1_396 + [0] * 1_604)
    treated = users([1] * 2_422 + [0] * 1_039)
    found = estimate(treated, control, "conversion")
    half = half_width(found.variance, found.observations, 0.05, 5_000)
    assert found.lift == pytest.approx(0.50386, abs=1e-5)
    assert (found.lift - half, found.lift + half) == pytest.approx((0.40098, 0.60675), abs=5e-5)


@pytest.mark.parametrize(("treated", "others"), [([5], [5, 6]), ([0, 0], [1, 2]), ([1, 2], [0, 0]), ([], [])])
def test_where_nobody_bought_there_is_no_lift(treated, others):
    assert estimate(users(treated), users(others), "revenue") is None


def test_equal_values_everywhere_are_no_lift_without_doubt():
    found = estimate(users([5] * 10), users([5] * 12), "revenue")
    assert (found.lift, found.variance) == (0.0, 0.0)


def test_more_is_better_for_every_metric():
    kept = ExperimentUser("a", 0, purchases=2, revenue=30, margin=10)
    lost = ExperimentUser("a", 0, consent=False, margin=-5)
    for metric in ("revenue", "margin", "conversion", "consent"):
        assert value_of(kept, metric) > value_of(lost, metric)
