"""Estimators of a target policy's value from logged draws, as sums of ratios, so that one bootstrap serves all of them.

With weights w = target / propensity, rewards r, and expected rewards q of the logged action and v of the target:

    IPS          mean(w r)                               Horvitz and Thompson 1952
    SNIPS        sum(w r) / sum(w)                       Swaminathan and Joachims 2015
    clipped IPS  mean(min(w, c) r)                       Bottou et al. 2013
    DM           mean(v)
    DR           mean(v + w (r - q))                     Dudik, Langford, Li 2011
    SNDR         mean(v) + sum(w (r - q)) / sum(w)       Thomas and Brunskill 2016
    Switch-DR    mean(v + w [w <= tau] (r - q))          Wang, Agarwal, Dudik 2017
    DRos         mean(v + l w / (l + w^2) (r - q))       Su, Dimakopoulou, Krishnamurthy, Dudik 2020

Not here: intervals (backtest.resampling, backtest.confidence_sequences), what they mean (backtest.gates).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from backtest.feedback import Feedback, Floats, Ints

Terms = tuple[tuple[Floats, Floats], ...]
"""Pairs (over, under), each (n,): the sum over the pairs of sum(over) / sum(under)."""

GRID = tuple(2.0**power for power in range(11))
"""Clips, taus and roots of lambdas that are tried: 1 to 1,024."""
_QUANTILE = 1.959963984540054
_SLACK = 6.0**0.5 - 1.0


@dataclass(frozen=True)
class Estimator:
    """A way to estimate from n draws, with the draws in it."""

    name: str
    terms: Terms
    weight: Floats
    """What a draw's reward is multiplied with, (n,)."""
    residual: Floats
    """What of a draw's reward is multiplied, (n,): the reward less what is expected of it."""
    parameter: float | None = None
    """The clip, tau or lambda."""


def mean_of(values: Floats) -> Terms:
    """Return the terms of mean(values)."""
    return ((values, np.ones(len(values))),)


def logged(feedback: Feedback) -> Estimator:
    """Return the logged policy's mean reward."""
    return Estimator("logged", mean_of(feedback.reward), np.ones(len(feedback)), feedback.reward)


def ips(feedback: Feedback) -> Estimator:
    """Return IPS."""
    weight = feedback.weight
    return Estimator("ips", mean_of(weight * feedback.reward), weight, feedback.reward)


def snips(feedback: Feedback) -> Estimator:
    """Return SNIPS; some weight must be above zero."""
    weight = feedback.weight
    terms = ((weight * feedback.reward, weight),)
    return Estimator("snips", terms, weight, feedback.reward - value_of(terms))


def clipped(feedback: Feedback, clip: float) -> Estimator:
    """Return IPS with weights of at most `clip`."""
    weight = np.minimum(feedback.weight, clip)
    return Estimator("clipped_ips", mean_of(weight * feedback.reward), weight, feedback.reward, clip)


def lift(feedback: Feedback, other: Floats) -> Estimator:
    """Return SNIPS of the target minus SNIPS of a policy whose weights are `other`, (n,); ones are the logged policy."""
    reward, weight = feedback.reward, feedback.weight
    terms = ((weight * reward, weight), (-other * reward, other))
    return Estimator("lift", terms, weight - other, reward - float(reward.mean()))


class Modelled:
    """The estimators that use expected rewards q and v, over one log."""

    def __init__(self, feedback: Feedback, expected_logged: Floats, expected_target: Floats) -> None:
        self._weight, self._target = feedback.weight, expected_target
        self._residual = feedback.reward - expected_logged

    def dm(self) -> Estimator:
        """Return the direct method."""
        return self._doubly_robust("dm", np.zeros(len(self._target)))

    def dr(self) -> Estimator:
        """Return DR."""
        return self._doubly_robust("dr", self._weight)

    def sndr(self) -> Estimator:
        """Return DR with self-normalised weights; some weight must be above zero."""
        terms = (*mean_of(self._target), (self._weight * self._residual, self._weight))
        return Estimator("sndr", terms, self._weight, self._residual)

    def switch(self, tau: float) -> Estimator:
        """Return Switch-DR: weights above `tau` are taken as zero."""
        return self._doubly_robust("switch_dr", np.where(self._weight <= tau, self._weight, 0.0), tau)

    def dros(self, shrinkage: float) -> Estimator:
        """Return DR with optimistically shrunk weights."""
        shrunk = shrinkage * self._weight / (shrinkage + self._weight**2)
        return self._doubly_robust("dros", shrunk, shrinkage)

    def _doubly_robust(self, name: str, weight: Floats, parameter: float | None = None) -> Estimator:
        return Estimator(name, mean_of(self._target + weight * self._residual), weight, self._residual, parameter)


def value_of(terms: Terms) -> float:
    """Return the value of an estimator's terms."""
    return float(sum(over.sum() / under.sum() for over, under in terms))


def error_of(terms: Terms, users: Ints) -> float:
    """Return an estimator's standard error, by its influence summed per user.

    Of a plain mean it is the sample's standard deviation over the root of n where every draw has a user of its own; of a
    ratio the delta method's, without a correction for degrees of freedom.

    Args:
        terms: the estimator.
        users: codes of the draws' users from 0 without a gap, (n,).
    """
    influence = np.zeros(len(users))
    for over, under in terms:
        influence += (over - under * (over.sum() / under.sum())) / under.mean()
    squares = float((np.bincount(users, influence) ** 2).sum())
    groups = int(users.max()) + 1
    plain = all((under == under[0]).all() for _, under in terms)
    return float((squares * (groups / (groups - 1) if plain and groups > 1 else 1.0)) ** 0.5 / len(users))


def chosen_by_slope(candidates: Sequence[float], make: Callable[[float], Estimator], users: Ints) -> float:
    """Return the candidate that SLOPE picks: the least noisy one that does not contradict a noisier one.

    Source: Su, Srinath, Krishnamurthy 2020, "Adaptive estimator selection for off-policy evaluation"; in the form of Tucker
    and Lee 2021, with normal intervals of 95 %: |value_i - value_j| <= width_i + (sqrt(6) - 1) width_j for all j before i.
    """
    tried = []
    for candidate in candidates:
        terms = make(candidate).terms
        tried.append((_QUANTILE * error_of(terms, users), value_of(terms), candidate))
    tried.sort(key=lambda one: (-one[0], -one[2]))
    for number, (width, value, _) in enumerate(tried):
        if any(abs(value - before) > width + _SLACK * wide for wide, before, _ in tried[:number]):
            return tried[number - 1][2]
    return tried[-1][2]
