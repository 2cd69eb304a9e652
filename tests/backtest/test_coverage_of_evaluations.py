"""backtest.evaluation on logs whose truth is known: the small brother of `python -m benchmarks coverage`."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.estimates import Settings
from backtest.evaluation import evaluate
from benchmarks.known_logs import kinds

SETTINGS = Settings(resamples=200)
FIXED, RARE, USERS, LEARNING = 0, 1, 3, 4
LOGS, DRAWS = 40, 2_500


@pytest.fixture(scope="module")
def judged():
    families = kinds(DRAWS)
    return {
        kind: [(known, evaluate(known.feedback, SETTINGS)) for known in families[kind].make(90 + kind, LOGS)]
        for kind in (FIXED, RARE, USERS, LEARNING)
    }


def share(found, held):
    return float(np.mean([held(known, one) for known, one in found]))


def within(interval, value):
    return interval.low <= value <= interval.high


@pytest.mark.parametrize("kind", [FIXED, RARE, USERS, LEARNING])
def test_intervals_of_the_lift_cover_the_truth(judged, kind):
    found = judged[kind]
    assert share(found, lambda known, one: within(one.lift.anytime, known.lift)) >= 0.93
    if kind != LEARNING:
        assert share(found, lambda known, one: within(one.lift.bootstrap, known.lift)) >= 0.9


def test_a_lift_of_four_standard_errors_is_seen_and_has_the_right_sign(judged):
    right, wrong = 0, 0
    for found in judged.values():
        for known, one in found:
            if one.verdict == "REFUSE" or abs(known.lift) < 4.0 * known.error:
                continue
            hit = one.verdict == ("ADOPT_TO_AB" if known.lift > 0 else "REJECT")
            right, wrong = right + hit, wrong + (not hit)
    assert right + wrong >= 30
    assert right / (right + wrong) >= 0.95


def test_the_reported_standard_error_is_the_true_one(judged):
    for kind in (FIXED, USERS, LEARNING):
        ratios = [one.lift.error * one.lift.widened / known.error for known, one in judged[kind]]
        assert np.median(ratios) == pytest.approx(1.0, abs=0.08)
