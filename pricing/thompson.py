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
from pricing.arms import Arms, best
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


def sampled(rule: Thompson | Greedy, seed: int, moments: Floats) -> Floats:
    """Return what `weigh` needs of n draws, (n, c): level and response under the mean, then under each sample of the table.

    Args:
        rule: parameters.
        seed: of the policy; names its table of normals.
        moments: (n, 5), as pricing.demand projects them.
    """
    samples = 1 + (rule.samples if isinstance(rule, Thompson) else 0)
    rows = np.empty((len(moments), 2 * samples))
    levels, responses = rows[:, :samples], rows[:, samples:]
    level, response, deviation, shared, own = (moments[:, at : at + 1] for at in range(5))
    levels[:, :1], responses[:, :1] = level, response
    if isinstance(rule, Thompson):
        first, second = table(seed, rule.samples, rule.temper)
        levels[:, 1:] = level + deviation * first
        responses[:, 1:] = response + shared * first + own * second
    np.maximum(responses, RESPONSE_MIN, out=responses)
    return rows


def values(rows: Floats, arms: Arms) -> Floats:
    """Return what each arm earns under the mean, as the rule compares them, (n, k); `rows` as `sampled` gives them."""
    samples = rows.shape[1] // 2
    return worths(rows[:, :1], rows[:, samples : samples + 1], arms)[:, 0]


def weigh(rule: Thompson | Greedy, rows: Floats, arms: Arms) -> Floats:
    """Return the probability of every arm, (n, k); 0 for padding. Rows sum to 1.

    Args:
        rule: parameters.
        rows: of the n draws, as `sampled` gives them.
        arms: of the n draws.
    """
    draws, width = arms.shifts.shape
    samples = rows.shape[1] // 2
    first = 1 if samples > 1 else 0  # the mean has a vote only where nothing is sampled
    votes = best(worths(rows[:, first:samples], rows[:, samples + first :], arms), arms)
    if draws > 1:
        votes += width * np.arange(draws)[:, None]
    counts = np.bincount(votes.ravel(), minlength=draws * width).reshape(draws, width)
    return softened(counts, (1.0 - rule.explore) / (samples - first), rule.explore, arms)


def softened(counts: Floats | NDArray[np.int64], each: float, explore: float, arms: Arms) -> Floats:
    """Return `each` probability per count (n, k), and an even share of `explore` for every feasible price."""
    mixed: Floats = np.multiply(counts, each)
    if explore > 0.0:
        if len(mixed) == 1:  # no padding
            mixed += explore / mixed.shape[1]
        else:
            mixed += explore / arms.counts
            mixed[np.arange(mixed.shape[1]) >= arms.counts] = 0.0
    return mixed
