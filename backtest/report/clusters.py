"""Means and slopes with intervals that know that the rows of one user depend on each other, from sums that are kept by user.

Standard errors are Liang and Zeger's (1986). Beyond CLUSTERS_MAX users, clusters are groups of users: still independent of
each other, and the sums stay bounded. Not here: off-policy estimates (backtest.estimators).
"""

from __future__ import annotations

import numpy as np

from backtest.report.facts import Floats, Ints
from backtest.resampling import GROUPS_MAX

Z = 1.959963984540054
CLUSTERS_MAX = GROUPS_MAX
"""As many as the bootstrap has."""


def clustered_mean(values: Floats, clusters: Ints) -> tuple[float, float]:
    """Return the mean, and half of its 95 % interval; not a number of no values."""
    sums = UserSums()
    sums.add(values, clusters)
    return sums.mean()


class UserSums:
    """Values of users, as the sums that their mean and its interval need."""

    def __init__(self) -> None:
        self.count = 0
        self._sums = np.zeros((2, 0))
        """Rows and values, by cluster."""

    def add(self, values: Floats, users: Ints) -> None:
        """Take values in, with the codes of their users, (n,) each."""
        self.count += len(values)
        self._sums = _joined(self._sums, users, np.ones(len(values)), values)

    def mean(self) -> tuple[float, float]:
        """Return the mean, and half of its 95 % interval; not a number of no values."""
        if not self.count:
            return float("nan"), float("nan")
        rows, values = self._sums
        mean = float(values.sum()) / self.count
        return mean, Z * float(np.sqrt(((values - mean * rows) ** 2).sum())) / self.count


class Slope:
    """Pairs (x, y) of users, as the sums that the slope of y in x and its interval need."""

    def __init__(self) -> None:
        self.count = 0
        self._low, self._high = np.inf, -np.inf
        self._sums = np.zeros((5, 0))
        """Rows, x, y, x x and x y, by cluster."""

    def add(self, x: Floats, y: Floats, users: Ints) -> None:
        """Take pairs in, with the codes of their users, (n,) each."""
        self.count += len(x)
        self._low, self._high = min(self._low, x.min(initial=np.inf)), max(self._high, x.max(initial=-np.inf))
        self._sums = _joined(self._sums, users, np.ones(len(x)), x, y, x * x, x * y)

    @property
    def varies(self) -> bool:
        """Whether there are two different x."""
        return bool(self._low < self._high)

    def fit(self) -> tuple[float, float]:
        """Return the slope, and half of its 95 % interval; of pairs that vary."""
        rows, x, y, xx, xy = self._sums
        mean_x, mean_y = x.sum() / self.count, y.sum() / self.count
        spread = float(xx.sum() - self.count * mean_x**2)
        slope = float(xy.sum() - self.count * mean_x * mean_y) / spread
        both = xy - mean_x * y - mean_y * x + rows * mean_x * mean_y
        square = xx - 2.0 * mean_x * x + rows * mean_x**2
        return slope, Z * float(np.sqrt(((both - slope * square) ** 2).sum())) / spread


def _joined(sums: Floats, users: Ints, *columns: Floats) -> Floats:
    """Return `sums`, (k, clusters), with k columns of values added, (n,) each."""
    cluster = users % CLUSTERS_MAX
    joined = np.zeros((len(columns), max(sums.shape[1], int(cluster.max(initial=-1)) + 1)))
    joined[:, : sums.shape[1]] = sums
    for place, values in enumerate(columns):
        found = np.bincount(cluster, values)
        joined[place, : len(found)] += found
    return joined
