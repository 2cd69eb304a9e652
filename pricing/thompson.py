"""Choosing on the demand model: Thompson sampling over a fixed table of normals, and the greedy price. Pure functions.

The probability of a price is the share of the table's samples under which it is the best one, tempered and mixed with an
even share for every feasible price. The same posterior, features and lattice give the same probabilities: no randomness of
the decision is in them. Not here: the belief itself (pricing.demand), the draw (pricing.draws).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from contracts.rules import Greedy, Thompson
from pricing.arms import Arms
from pricing.demand import worths
from pricing.normals import normals

Floats = NDArray[np.float64]

RESPONSE_MIN = 0.05
"""Least response to a discount that a sample may believe in: demand falls with the price."""
TABLE = 1
"""Purpose of the table of normals."""


@lru_cache(maxsize=64)
def table(seed: int, samples: int, temper: float) -> tuple[Floats, Floats]:
    """Return the table of normals of a policy, (samples,) for the level and for the response, tempered."""
    first, second = normals(seed, TABLE, 2, samples) * temper
    return first, second


def values(moments: Floats, arms: Arms) -> Floats:
    """Return what each arm earns under the mean of (n, 5) `moments`: (n, k)."""
    return worths(moments[:, :1], np.maximum(moments[:, 1:2], RESPONSE_MIN), arms)[:, 0]


def weigh(rule: Thompson | Greedy, seed: int, moments: Floats, arms: Arms) -> Floats:
    """Return the probability of every arm, (n, k); 0 for padding. Rows sum to 1.

    Args:
        rule: parameters.
        seed: of the policy; names its table of normals.
        moments: of the n draws, (n, 5) as pricing.demand projects them.
        arms: of the n draws.
    """
    rows, width = arms.shifts.shape
    if isinstance(rule, Greedy):
        votes, samples = values(moments, arms).argmax(-1)[:, None], 1
    else:
        levels, responses = _samples(rule, seed, moments)
        votes, samples = _votes(levels, responses, arms), rule.samples
    if rows > 1:
        votes = votes + width * np.arange(rows)[:, None]
    shares = np.bincount(votes.ravel(), minlength=rows * width).reshape(rows, width) / samples
    return softened(shares, rule.explore, arms)


def _samples(rule: Thompson, seed: int, moments: Floats) -> tuple[Floats, Floats]:
    """Return the table's levels and responses for each draw, (n, samples) each."""
    first, second = table(seed, rule.samples, rule.temper)
    level, response, deviation, shared, own = (moments[:, at : at + 1] for at in range(5))
    return level + deviation * first, np.maximum(response + shared * first + own * second, RESPONSE_MIN)


def _votes(levels: Floats, responses: Floats, arms: Arms) -> NDArray[np.int64]:
    """Return the best arm under each sample, (n, samples); the lowest price wins a tie, so never padding."""
    favourite: NDArray[np.int64] = worths(levels, responses, arms).argmax(-1)
    return favourite


def softened(shares: Floats, explore: float, arms: Arms) -> Floats:
    """Return `shares` (n, k) mixed with an even share of `explore` for every feasible price."""
    if explore == 0.0:
        return shares
    mixed = shares * (1.0 - explore)
    mixed += explore / arms.counts
    if len(shares) > 1:  # else there is no padding
        mixed[np.arange(shares.shape[1]) >= arms.counts] = 0.0
    return mixed
