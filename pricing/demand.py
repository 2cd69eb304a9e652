"""The demand model: what is believed of P(buy | x, shift) = sigmoid(a(x) + b(x) * shift), and how an outcome changes it.

a and b are linear in the features x, so the belief is one Gaussian over both sets of weights, and all prices of one draw
depend on two numbers of it, the level A = a(x) and the response B = b(x). An outcome is one step of assumed-density
filtering, rank one; after it a little is forgotten, towards the prior, which keeps the covariance positive definite:
S' = f (S - g g^T) + (1 - f) S0 is at least (1 - f) S0, which is more than rounding can take away.
No matrix product of a library: sums run along rows, so that no bit depends on how many draws are projected together.
Not here: which price follows (pricing.thompson), the features (pricing.contexts).
Source: reference "Bayes-logit demand": MacKay 1992, "The evidence framework applied to classification networks" (the
probit-corrected mean); West and Harrison 1997, "Bayesian Forecasting and Dynamic Models" (forgetting as state evolution).
"""

from __future__ import annotations

from hashlib import sha256
from math import exp, pi, sqrt

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadReference
from contracts.learned import is_sound
from contracts.rules import Prior
from pricing.arms import Arms

Floats = NDArray[np.float64]

WEIGHT_MIN = 1e-4
"""Least information in an outcome: of a purchase that was all but certain, or all but impossible."""
ROWS_AT_A_TIME = 64
"""Of a projection, so that the products of a batch stay in the cache."""
_LARGE = 700.0
"""exp of more is no float."""


MOMENTS = ("level", "response", "level deviation", "shared deviation", "own deviation")
"""Columns of what is believed of a draw, one Gaussian over its level and its response: with independent standard normals u
and v, level + level_deviation * u and response + shared_deviation * u + own_deviation * v."""


class Posterior:
    """A Gaussian over the 2D weights, those of the level first. Changes in place by `learn`; `copy` to keep one."""

    __slots__ = ("_both", "_diagonal", "_drift", "_keep", "_pull", "covariance", "mean", "outcomes")

    def __init__(self, prior: Prior, width: int) -> None:
        """Begin at the prior.

        Args:
            prior: of the policy.
            width: D, length of x with its leading 1.
        """
        mean, variance = np.zeros(2 * width), np.full(2 * width, prior.features_spread**2 / max(width - 1, 1))
        mean[0], mean[width] = prior.level, prior.response
        variance[0], variance[width] = prior.level_spread**2, prior.response_spread**2
        self._become(mean, np.diag(variance))
        self.outcomes = 0
        """Learned from so far."""
        self._keep = 0.5 ** (1.0 / prior.memory)
        """Share of what was learned that is still known after one more outcome."""
        self._drift: Floats = (1.0 - self._keep**2) * variance
        self._pull: Floats = (1.0 - self._keep) * mean

    def _become(self, mean: Floats, covariance: Floats) -> None:
        self._both: Floats = np.concatenate((covariance, mean[None]))  # side by side: one product serves them both
        self.mean: Floats = self._both[-1]
        """(2D,) float64."""
        self.covariance: Floats = self._both[:-1]
        """(2D, 2D) float64, exactly symmetric."""
        self._diagonal = self.covariance.reshape(-1)[:: len(mean) + 1]

    @property
    def width(self) -> int:
        """D."""
        return len(self.mean) // 2

    def project(self, contexts: Floats) -> Floats:
        """Return what is believed of each of n contexts, (n, D) float64; equal rows give equal bits in any company.

        Returns:
            (n, 5) float64, columns as in MOMENTS.
        """
        moments = np.empty((len(contexts), len(MOMENTS)))
        for at in range(0, len(contexts), ROWS_AT_A_TIME):
            self._project(contexts[at : at + ROWS_AT_A_TIME], moments[at : at + ROWS_AT_A_TIME])
        return moments

    def _project(self, x: Floats, moments: Floats) -> None:
        width = self.width
        moments[:, :2] = _sums(x[:, None] * self.mean.reshape(2, width))
        # the lower half of the covariance: rows of both kinds against the level's columns, then the response's block
        halves = _sums(x[:, None] * self.covariance[:, :width]).reshape(-1, 2, width)
        variances = _sums(halves * x[:, None])
        block = _sums(x[:, None] * self.covariance[width:, width:])
        deviation = np.sqrt(variances[:, 0])
        shared = variances[:, 1] / deviation
        moments[:, 2], moments[:, 3] = deviation, shared
        moments[:, 4] = np.sqrt(np.maximum(_sums(block * x) - shared * shared, 0.0))

    def learn(self, x: Floats, shift: float, bought: bool) -> None:
        """Take one outcome of the price that was shown.

        Args:
            x: (D,) float64, as at the draw.
            shift: of the price, in units of 20 % of list below it.
            bought: whether it was bought within the window.
        """
        z = np.concatenate((x, shift * x))
        products = _sums(self._both * z)
        h = products[:-1]
        variance = float(_sums(z * h))
        chance = sigmoid(float(products[-1]) / sqrt(1.0 + pi * variance / 8.0))
        weight = max(chance * (1.0 - chance), WEIGHT_MIN)
        gain = 1.0 / (1.0 + weight * variance)
        g = h * sqrt(weight * gain)
        self.covariance -= g[:, None] * g
        self.covariance *= self._keep**2
        self._diagonal += self._drift
        self.mean += h * (gain * (bought - chance))
        self.mean *= self._keep
        self.mean += self._pull
        self.outcomes += 1

    def contributions(self, x: Floats) -> tuple[list[float], list[float]]:
        """Return what each of the D features adds to the mean level and to the mean response; each list sums to its mean."""
        width = self.width
        return (self.mean[:width] * x).tolist(), (self.mean[width:] * x).tolist()

    def copy(self) -> Posterior:
        """Return a posterior that goes its own way."""
        twin = object.__new__(Posterior)
        twin._become(self.mean, self.covariance)
        twin.outcomes, twin._keep, twin._drift, twin._pull = self.outcomes, self._keep, self._drift, self._pull
        return twin

    def encode(self) -> bytes:
        """Return the exact bytes: outcomes (8 bytes), mean, upper triangle of the covariance by rows; all little endian."""
        upper = self.covariance[np.triu_indices(len(self.mean))]
        return self.outcomes.to_bytes(8, "little") + self.mean.astype("<f8").tobytes() + upper.astype("<f8").tobytes()

    def restore(self, value: bytes) -> None:
        """Become what `encode` of a posterior with the same prior and width returned.

        Raises:
            BadReference: the bytes are not of this width, or hold what is no belief.
        """
        size = len(self.mean)
        numbers = np.frombuffer(value, dtype="<f8", offset=8) if len(value) % 8 == 0 and len(value) > 8 else np.empty(0)
        if len(numbers) != size + size * (size + 1) // 2:
            raise BadReference(
                f"A posterior of {len(value)} bytes is not one over {size} weights: it was learned with other features; "
                "publish the policy under a new number to begin anew"
            )
        if not is_sound(value, self.width):
            raise BadReference("A posterior is not finite and positive definite: roll back to the version before it")
        covariance = np.zeros((size, size))
        covariance[np.triu_indices(size)] = numbers[size:]
        covariance += np.triu(covariance, 1).T
        self.outcomes = int.from_bytes(value[:8], "little")
        self._become(numbers[:size].astype(np.float64), covariance)

    def digest(self) -> str:
        """Return the sha256 of the exact bytes, 64 hexadecimal characters."""
        return sha256(self.encode()).hexdigest()


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)); no value is too large."""
    odds = exp(-abs(value))
    share = odds / (1.0 + odds)
    return 1.0 - share if value > 0 else share


def worths(levels: Floats, responses: Floats, arms: Arms) -> Floats:
    """Return what is earned on average, aim * P(buy) and what comes besides, by n draws with s levels and responses: (n, s, k)."""
    odds = responses[:, :, None] * arms.shifts[:, None]
    odds += levels[:, :, None]
    np.negative(odds, out=odds)
    np.minimum(odds, _LARGE, out=odds)
    np.exp(odds, out=odds)
    odds += 1.0
    np.divide(arms.aims[:, None], odds, out=odds)
    if arms.besides is not None:
        odds += arms.besides[:, None]
    return odds


def _sums(products: Floats) -> Floats:
    """Return the sums along the last axis, which is contiguous: the order of additions depends on its length alone."""
    sums: Floats = np.add.reduce(products, -1)
    return sums
