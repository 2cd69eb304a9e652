"""Linear Q-learning and SARSA(lambda): the value of a price as a quadratic in its shift, every coefficient linear in x.

phi(x, t) = [x, t x, t^2 x], Q = w . phi, so that what one price teaches is used for its neighbours. With `discount` 0 both
rules are the same contextual bandit. With more, an outcome is worth its reward and gamma^(elapsed / tau) times the value
of the user's next draw, which is bounded. No step corrects more than the whole error of its outcome: without traces no rate
and no discount, however deep, lets the weights grow for ever. Not here: when a draw counts as a user's last (the learner),
exploration's draw.
Source: Sutton and Barto 2018, "Reinforcement Learning", sections 6.4, 6.5 and 12.7 (accumulating traces). The
bound on a step: after Dabney and Barto 2012, "Adaptive step-size for online temporal difference learning".
"""

from __future__ import annotations

from hashlib import sha256
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadReference
from contracts.learned import is_sound
from contracts.rules import Sarsa, ValueRule
from pricing.arms import Arms, best
from pricing.thompson import softened

Floats = NDArray[np.float64]

DEGREES = 3
"""Powers of the shift: 0, 1, 2."""


class Next(NamedTuple):
    """The user's next draw, as the outcome of this one carries it."""

    elapsed_ms: int
    x: Floats
    """(D,)."""
    shift: float
    """Of the price that was drawn: what SARSA values."""
    shifts: Floats
    """(k,): of all feasible prices: the best of them is what Q-learning values."""


class Values:
    """The weights of Q. Change in place by `learn`."""

    __slots__ = ("outcomes", "weights")

    def __init__(self, width: int) -> None:
        """Begin with no value at all; `width` is D."""
        self.weights: Floats = np.zeros((DEGREES, width))
        """(3, D)."""
        self.outcomes = 0

    def project(self, contexts: Floats) -> Floats:
        """Return the coefficients of each of n contexts (n, D), by power of the shift: (n, 3)."""
        coefficients: Floats = np.add.reduce(contexts[:, None] * self.weights, -1)
        return coefficients

    def learn(
        self, rule: ValueRule, x: Floats, shift: float, reward: float, after: Next | None, trace: Floats | None
    ) -> Floats:
        """Take one outcome.

        Args:
            rule: parameters.
            x: (D,), as at the draw.
            shift: of the price that was shown.
            reward: what was earned, as a share of list price.
            after: the user's next draw; None if this was the last.
            trace: what the call for the user's draw before returned; None at the first.

        Returns:
            (3, D): the user's trace, for the next draw.
        """
        phi = _powers(shift)[:, None] * x
        error = reward - float((self.weights * phi).sum())
        kept = 0.0
        if after is not None and rule.discount > 0.0:
            reach = rule.discount ** (after.elapsed_ms / rule.tau_ms)
            error += min(max(reach * self._next(rule, after), -rule.value_max), rule.value_max)
            kept = reach * rule.trace if isinstance(rule, Sarsa) else 0.0
        trace = phi if trace is None else trace + phi
        length, reached = float((phi * phi).sum()), float((trace * trace).sum())
        most = 1.0 / max(length, sqrt(length * reached))  # |trace . phi| is no larger than that root
        self.weights += trace * (min(rule.rate / len(x), most) * error)
        self.outcomes += 1
        left: Floats = trace * kept
        return left

    def _next(self, rule: ValueRule, after: Next) -> float:
        coefficients = (self.weights * after.x).sum(-1)
        if isinstance(rule, Sarsa):
            return float((coefficients * _powers(after.shift)).sum())
        return float(_worth(coefficients[None], after.shifts[None]).max())

    def encode(self) -> bytes:
        """Return the exact bytes: outcomes (8 bytes), then the weights by rows; little endian."""
        return self.outcomes.to_bytes(8, "little") + self.weights.astype("<f8").tobytes()

    def restore(self, value: bytes) -> None:
        """Become what `encode` of values of the same width returned.

        Raises:
            BadReference: the bytes are not of this width, or not finite.
        """
        if len(value) != 8 + 8 * self.weights.size:
            raise BadReference(
                f"Values of {len(value)} bytes are not {self.weights.size} weights: they were learned with other features; "
                "publish the policy under a new number to begin anew"
            )
        if not is_sound(value, 0):
            raise BadReference("Values are not finite: roll back to the version before them")
        weights = np.frombuffer(value, dtype="<f8", offset=8).astype(np.float64)
        self.outcomes, self.weights = int.from_bytes(value[:8], "little"), weights.reshape(self.weights.shape)

    def digest(self) -> str:
        """Return the sha256 of the exact bytes, 64 hexadecimal characters."""
        return sha256(self.encode()).hexdigest()


def _powers(shift: float) -> Floats:
    return np.array([1.0, shift, shift * shift])


def values(coefficients: Floats, arms: Arms) -> Floats:
    """Return Q of every arm: (n, k)."""
    return _worth(coefficients, arms.shifts)


def _worth(coefficients: Floats, shifts: Floats) -> Floats:
    """Return Q of n draws: (n, 3) coefficients at (n, k) shifts. Elementwise, so equal rows give equal bits."""
    return coefficients[:, :1] + shifts * (coefficients[:, 1:2] + shifts * coefficients[:, 2:3])


def weigh(rule: ValueRule, coefficients: Floats, arms: Arms) -> Floats:
    """Return the epsilon-soft probability of every arm, (n, k); 0 for padding. Rows sum to 1.

    Before the first outcome all values are 0, and among equals list price is best (pricing.arms).
    """
    shares = np.zeros(arms.shifts.shape)
    shares[np.arange(len(shares)), best(values(coefficients, arms), arms)] = 1.0
    return softened(shares, 1.0 - rule.explore, rule.explore, arms)
