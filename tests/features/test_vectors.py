"""The answers of a model, one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from contracts.errors import BrokenInvariant
from features.vectors import Encoded, tastes_of


def encoded(*logits):
    return Encoded(np.arange(2 * len(logits), dtype=np.float32).reshape(-1, 2), np.array(logits, dtype=np.float32))


def test_a_preference_is_the_logistic_function_of_its_logit_however_large():
    preferences = [taste.preference for taste in tastes_of(encoded(0.0, 2.0, -2.0, 700.0, -700.0))]
    assert preferences == pytest.approx([0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2)), 1.0, 0.0], abs=1e-6)


def test_every_answer_keeps_its_own_vector():
    assert [taste.vector.tolist() for taste in tastes_of(encoded(0.0, 1.0))] == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_prices_nothing(broken):
    with pytest.raises(BrokenInvariant, match="not finite"):
        tastes_of(encoded(0.0, broken))
