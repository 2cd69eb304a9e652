"""Choosing on the demand model: Thompson sampling over a fixed table of normals, and the greedy price. Pure functions.

The probability of a price is the share of the table's samples under which it is the best one, tempered and mixed with an
even share for every feasible price. The same posterior, features and lattice give the same probabilities: no randomness of
the decision is in them. Not here: the belief itself (pricing.demand), the draw (pricing.draws).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contracts.rules import Greedy, Thompson
from pricing.arms import Arms
from pricing.demand import Moments, chances
from pricing.normals import normals

Floats = NDArray[np.float64]

RESPONSE_MIN = 0.05
"""Least response to a discount that a sample may believe in: demand falls with the price."""
TABLE = 1
"""Purpose of the table of normals."""


def best(moments: Moments, arms: Arms) -> NDArray[np.int64]:
    """Return (n,): the arm that is worth most under the means; the lowest price wins a tie."""
    responses = np.maximum(moments.response, RESPONSE_MIN)
    worth = chances(moments.level[:, None], responses[:, None], arms.shifts)[:, 0] * arms.gains
    return worth.argmax(-1)


def weigh(rule: Thompson | Greedy, seed: int, moments: Moments, arms: Arms) -> Floats:
    """Return the probability of every arm, (n, k); 0 for padding. Rows sum to 1.

    Args:
        rule: parameters.
        seed: of the policy; names its table of normals.
        moments: of the n draws.
        arms: of the n draws.
    """
    rows, width = arms.shifts.shape
    if isinstance(rule, Greedy):
        votes, samples = best(moments, arms)[:, None], 1
    else:
        levels, responses = _samples(rule, seed, moments)
        votes, samples = _votes(levels, responses, arms), rule.samples
    cells = votes + width * np.arange(rows)[:, None]
    shares = np.bincount(cells.ravel(), minlength=rows * width).reshape(rows, width) / samples
    return softened(shares, rule.explore, arms)


def _samples(rule: Thompson, seed: int, moments: Moments) -> tuple[Floats, Floats]:
    """Return the table's levels and responses for each draw, (n, samples) each."""
    first, second = normals(seed, TABLE, 2, rule.samples) * rule.temper
    deviation = np.sqrt(moments.level_variance)
    shared = moments.covariance / deviation
    own = np.sqrt(np.maximum(moments.response_variance - shared * shared, 0.0))
    levels = deviation[:, None] * first
    levels += moments.level[:, None]
    responses = shared[:, None] * first
    responses += own[:, None] * second
    responses += moments.response[:, None]
    return levels, np.maximum(responses, RESPONSE_MIN, out=responses)


def _votes(levels: Floats, responses: Floats, arms: Arms) -> NDArray[np.int64]:
    """Return the best arm under each sample, (n, samples); the lowest price wins a tie, so never padding."""
    worth = chances(levels, responses, arms.shifts)
    worth *= arms.gains[:, None]
    return worth.argmax(-1)


def softened(shares: Floats, explore: float, arms: Arms) -> Floats:
    """Return `shares` (n, k) mixed with an even share of `explore` for every feasible price."""
    if explore == 0.0:
        return shares
    even = explore / arms.counts
    mixed = shares * (1.0 - explore) + even
    return np.where(np.arange(shares.shape[1]) < arms.counts, mixed, 0.0)
