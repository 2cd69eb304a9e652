"""A bootstrap that resamples users, for estimators that are sums of ratios (backtest.estimators).

Numerators and denominators are resampled together: weights that happen to sum to more are part of the luck. Users are
exchangeable and independent of each other; the draws of one user need not be. Not for logs whose policy learned from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from backtest.estimates import Interval
from backtest.estimators import Terms
from backtest.feedback import Floats, Ints

GROUPS_MAX = 20_000
"""More users are resampled in so many groups of users: independent still, and the work stays bounded."""
_CELLS_MAX = 4_000_000
"""Of the table of counts that is held at once."""


def groups_of(users: Ints) -> Ints:
    """Return codes from 0 without a gap, (n,): one for each of at most GROUPS_MAX users, else one for a group of users."""
    codes: Ints = np.unique(users, return_inverse=True)[1].reshape(-1)
    return codes % GROUPS_MAX


def intervals_of(
    estimators: Sequence[Terms], groups: Ints, alpha: float, resamples: int, seed: int
) -> list[Interval | None]:
    """Return the percentile interval of each estimator.

    Args:
        estimators: over the same n draws.
        groups: what is resampled, codes from 0 without a gap, (n,).
        alpha: chance of a miss, half of it on each side.
        resamples: at least 2.
        seed: of the resampling; equal seeds give equal intervals.

    Returns:
        None for an estimator that is not defined on most resamples.
    """
    values = _resampled(estimators, groups, resamples, seed)
    found: list[Interval | None] = []
    for column in values.T:
        finite = column[np.isfinite(column)]
        if 2 * len(finite) < resamples:
            found.append(None)
            continue
        low, high = np.quantile(finite, [alpha / 2.0, 1.0 - alpha / 2.0])
        found.append(Interval(float(low), float(high)))
    return found


def _resampled(estimators: Sequence[Terms], groups: Ints, resamples: int, seed: int) -> Floats:
    """Return each estimator on each resample, (resamples, len(estimators))."""
    count = int(groups.max()) + 1
    sums = np.array([np.bincount(groups, each) for terms in estimators for pair in terms for each in pair]).T
    random = np.random.Generator(np.random.Philox(seed))
    chunk = max(_CELLS_MAX // count, 1)
    values = []
    for start in range(0, resamples, chunk):
        times = np.array(
            [
                np.bincount(random.integers(0, count, count), minlength=count)
                for _ in range(min(chunk, resamples - start))
            ]
        )
        totals = times.astype(np.float64) @ sums
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = totals[:, 0::2] / totals[:, 1::2]
        values.append(ratios)
    stops = np.cumsum([0, *(len(terms) for terms in estimators)])
    joined = np.concatenate(values)
    return np.stack([joined[:, a:b].sum(axis=1) for a, b in pairwise(stops)], axis=1)
