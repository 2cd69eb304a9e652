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
from contracts.rules import Prior

Floats = NDArray[np.float64]

WEIGHT_MIN = 1e-4
"""Least information in an outcome: of a purchase that was all but certain, or all but impossible."""
ROWS_AT_A_TIME = 64
"""Of a projection, so that the products of a batch stay in the cache."""
_LARGE = 700.0
"""exp of more is no float."""


MOMENTS = ("level", "response", "level variance", "covariance", "response variance")
"""Columns of what is believed of a draw: one Gaussian over its level and its response."""


class Posterior:
    """A Gaussian over the 2D weights, those of the level first. Changes in place by `learn`; `copy` to keep one."""

    __slots__ = ("_drift", "_keep", "_prior_mean", "covariance", "mean", "outcomes")

    def __init__(self, prior: Prior, width: int) -> None:
        """Begin at the prior.

        Args:
            prior: of the policy.
            width: D, length of x with its leading 1.
        """
        mean, variance = np.zeros(2 * width), np.full(2 * width, prior.features_spread**2 / max(width - 1, 1))
        mean[0], mean[width] = prior.level, prior.response
        variance[0], variance[width] = prior.level_spread**2, prior.response_spread**2
        self.mean: Floats = mean
        """(2D,)."""
        self.covariance: Floats = np.diag(variance)
        """(2D, 2D), exactly symmetric."""
        self.outcomes = 0
        """Learned from so far."""
        self._prior_mean = mean.copy()
        self._keep = 0.5 ** (1.0 / prior.memory)
        """Share of what was learned that is still known after one more outcome."""
        self._drift: Floats = (1.0 - self._keep**2) * variance

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
        moments[:, :2] = (x[:, None] * self.mean.reshape(2, width)).sum(-1)
        # the lower half of the covariance: rows of both kinds against the level's columns, then the response's block
        halves = (x[:, None] * self.covariance[:, :width]).sum(-1).reshape(-1, 2, width)
        moments[:, 2:4] = (halves * x[:, None]).sum(-1)
        block = (x[:, None] * self.covariance[width:, width:]).sum(-1)
        moments[:, 4] = (block * x).sum(-1)

    def learn(self, x: Floats, shift: float, bought: bool) -> None:
        """Take one outcome of the price that was shown.

        Args:
            x: (D,) float64, as at the draw.
            shift: of the price, in units of 20 % of list below it.
            bought: whether it was bought within the window.
        """
        z = np.concatenate((x, shift * x))
        h = (self.covariance * z).sum(-1)
        variance = float((z * h).sum())
        chance = sigmoid(float((z * self.mean).sum()) / sqrt(1.0 + pi * variance / 8.0))
        weight = max(chance * (1.0 - chance), WEIGHT_MIN)
        gain = 1.0 / (1.0 + weight * variance)
        g = h * sqrt(weight * gain)
        self.covariance -= g[:, None] * g
        self.covariance *= self._keep**2
        self.covariance.flat[:: len(z) + 1] += self._drift
        self.mean += h * (gain * (bought - chance))
        self.mean += (1.0 - self._keep) * (self._prior_mean - self.mean)
        self.outcomes += 1

    def contributions(self, x: Floats) -> tuple[list[float], list[float]]:
        """Return what each of the D features adds to the mean level and to the mean response; each list sums to its mean."""
        width = self.width
        return (self.mean[:width] * x).tolist(), (self.mean[width:] * x).tolist()

    def copy(self) -> Posterior:
        """Return a posterior that goes its own way."""
        twin = object.__new__(Posterior)
        twin.mean, twin.covariance, twin.outcomes = self.mean.copy(), self.covariance.copy(), self.outcomes
        twin._prior_mean, twin._keep, twin._drift = self._prior_mean, self._keep, self._drift
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
        covariance = np.zeros((size, size))
        covariance[np.triu_indices(size)] = numbers[size:]
        covariance += np.triu(covariance, 1).T
        if not np.isfinite(numbers).all() or np.linalg.eigvalsh(covariance)[0] <= 0.0:
            raise BadReference("A posterior is not finite and positive definite: roll back to the version before it")
        self.outcomes = int.from_bytes(value[:8], "little")
        self.mean, self.covariance = numbers[:size].astype(np.float64), covariance

    def digest(self) -> str:
        """Return the sha256 of the exact bytes, 64 hexadecimal characters."""
        return sha256(self.encode()).hexdigest()


def sigmoid(value: float) -> float:
    """Return 1 / (1 + exp(-value)); no value is too large."""
    odds = exp(-abs(value))
    share = odds / (1.0 + odds)
    return 1.0 - share if value > 0 else share


def chances(levels: Floats, responses: Floats, shifts: Floats) -> Floats:
    """Return P(buy) of arms with `shifts` (n, k) for (n, s) pairs of level and response: (n, s, k)."""
    against = responses[:, :, None] * -shifts[:, None]
    against -= levels[:, :, None]
    np.minimum(against, _LARGE, out=against)
    np.exp(against, out=against)
    against += 1.0
    return np.reciprocal(against, out=against)
