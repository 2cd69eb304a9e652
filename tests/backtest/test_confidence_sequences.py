"""backtest.confidence_sequences: the values of gbstats, and the promise itself, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.confidence_sequences import half_width, half_width_planned, margin_one_sided, tuning


def test_the_tuning_is_that_of_gbstats():
    assert tuning(0.05, 5_000) == pytest.approx(0.0398400668, abs=1e-10)


@pytest.mark.parametrize(
    ("observations", "expected"),
    [(100, 0.669439), (1_000, 0.106375), (5_000, 0.042924), (10_000, 0.030615), (100_000, 0.010552)],
)
def test_half_widths_are_those_of_gbstats(observations, expected):
    assert half_width(1.0, observations, 0.05, 5_000) == pytest.approx(expected, abs=1e-6)


def test_a_sequence_scales_with_the_standard_deviation():
    assert half_width(9.0, 700, 0.1, 300) == pytest.approx(3 * half_width(1.0, 700, 0.1, 300))
    assert margin_one_sided(9.0, 700, 0.1, 300) == pytest.approx(3 * margin_one_sided(1.0, 700, 0.1, 300))


def test_a_one_sided_sequence_is_nearer_than_a_two_sided_one_and_wider_than_one_look():
    for observations in (500, 5_000, 50_000):
        one_look = 1.6449 / observations**0.5
        assert one_look < margin_one_sided(1.0, observations, 0.05, 5_000) < half_width(1.0, observations, 0.05, 5_000)


LOOKS = np.unique(np.geomspace(100, 20_000, 60).astype(int))
"""How often a person looks at 20,000 users."""


def ever_outside(seeds: int, alpha: float) -> tuple[float, float, float]:
    """Share of A/A runs in which a two-sided, a one-sided sequence, and a 95 % interval ever exclude the truth, 0."""
    two = one = naive = 0
    for seed in range(seeds):
        values = np.random.default_rng(seed).exponential(1.0, LOOKS[-1]) - 1.0  # as skewed as revenue
        means = np.cumsum(values)[LOOKS - 1] / LOOKS
        squares = np.cumsum(values**2)[LOOKS - 1] / LOOKS
        spread = squares - means**2
        halves = [half_width(v, int(n), alpha, 5_000) for v, n in zip(spread, LOOKS, strict=True)]
        margins = [margin_one_sided(v, int(n), alpha, 5_000) for v, n in zip(spread, LOOKS, strict=True)]
        two += bool((np.abs(means) > halves).any())
        one += bool((means + margins < 0.0).any())
        naive += bool((np.abs(means) > 1.96 * np.sqrt(spread / LOOKS)).any())
    return two / seeds, one / seeds, naive / seeds


def test_looking_again_and_again_leads_to_no_more_false_claims_than_alpha():
    two, one, naive = ever_outside(seeds=400, alpha=0.1)
    assert two <= 0.1
    assert one <= 0.1
    assert naive > 0.25, "the same looks with a 95 % interval mislead, so the simulation can tell"


def test_a_planned_look_costs_little_more_than_a_single_one_and_less_than_any_other_sequence():
    one_look = 1.95996 / 5_000**0.5
    assert one_look < half_width_planned(1.0, 5_000, 0.05, 5_000) < 1.17 * one_look
    assert half_width_planned(1.0, 5_000, 0.05, 5_000) < half_width(1.0, 5_000, 0.05, 5_000)


@pytest.mark.parametrize("planned", [1_000, 20_000])
def test_looking_at_every_draw_misleads_no_more_often_than_alpha_before_and_beyond_the_plan(planned):
    """All looks of 4,000 paths of 5,000 steps: as many leave the boundary as its alpha allows, and about as many as that."""
    random = np.random.default_rng(8)
    looks = np.arange(1, 5_001)
    halves = np.array([half_width_planned(1.0, int(n), 0.2, planned) for n in looks])
    ever = 0
    for _ in range(8):
        means = random.choice([-1.0, 1.0], (500, len(looks))).cumsum(axis=1) / looks
        ever += int((np.abs(means) > halves).any(axis=1).sum())
    assert ever / 4_000 <= 0.2
    assert ever / 4_000 > (0.12 if planned == 1_000 else 0.0)
