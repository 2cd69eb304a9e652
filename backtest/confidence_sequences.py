"""Confidence sequences: intervals that hold at every look at growing data at once, so that looking costs nothing.

Source: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", arXiv 2103.06476: two-sided eq. 9, one-sided eq. 134, the tuning eq. 161; held to the values of gbstats, which
computes the same. Asymptotic: not for a few dozen users. Not here: estimates and their standard errors (tea-tasting).
"""

from __future__ import annotations

from math import log, sqrt
from statistics import NormalDist


def tuning(alpha: float, tightest_at: int) -> float:
    """Return rho, for a sequence of error `alpha` that is tightest at `tightest_at` observations."""
    return sqrt((-2.0 * log(alpha) + log(-2.0 * log(alpha) + 1.0)) / tightest_at)


def half_width(variance: float, observations: int, alpha: float, tightest_at: int) -> float:
    """Return half of the width of the two-sided sequence.

    Args:
        variance: of one observation; of a difference of means its squared standard error times the observations.
        observations: so far, of both sides of a difference together.
        alpha: chance that the sequence ever misses.
        tightest_at: observations at which it is tightest.
    """
    rho2n = observations * tuning(alpha, tightest_at) ** 2
    return sqrt(variance * 2.0 * (rho2n + 1.0) / (rho2n * observations) * log(sqrt(rho2n + 1.0) / alpha))


def margin_one_sided(variance: float, observations: int, alpha: float, tightest_at: int) -> float:
    """Return how far a one-sided sequence lies from the estimate; arguments as in `half_width`."""
    rho2n = observations * tuning(2.0 * alpha, tightest_at) ** 2
    return sqrt(variance * 2.0 * (rho2n + 1.0) / (rho2n * observations) * log(1.0 + sqrt(rho2n + 1.0) / (2.0 * alpha)))


WITHIN = 0.9
"""Share of alpha that is spent on looks up to the planned number of observations."""


def when_it_holds(planned: int | None) -> str:
    """Return when an interval by `half_width_planned` holds, in words; None: the plan was to look at what there is."""
    if planned is None:
        return "for a log of this length that is judged once, also where its policy learned"
    return (
        f"at every look at a log that grows, also where its policy learned, tightest at the {planned:,} draws planned"
    )


def half_width_planned(variance: float, observations: int, alpha: float, planned: int) -> float:
    """Return half of the width of a two-sided sequence that is nearly as tight as one look at `planned` observations.

    Up to there it is the boundary that a Brownian motion ever leaves with the chance WITHIN * alpha: flat, by the reflection
    principle |W| <= z sqrt(planned), 4 (1 - Phi(z)) = WITHIN * alpha (O'Brien and Fleming 1979, looked at all the time). Beyond
    it is `half_width` with the rest of alpha. At alpha 5 % it ends at 2.28 standard errors where `half_width` has 3.03. By the
    strong approximation of arXiv 2103.06476 it holds for means of martingale differences, so for draws of a policy that learns.

    Args:
        variance: of one observation.
        observations: so far.
        alpha: chance that the sequence ever misses.
        planned: observations to be looked at, decided before looking, and the same at every look. A plan that grows with the
            observations promises one look only: with ten of them, at a tenth of the log each, some look misses in 9 % of logs.
    """
    if observations > planned:
        return half_width(variance, observations, alpha * (1.0 - WITHIN), 4 * planned)
    z = NormalDist().inv_cdf(1.0 - WITHIN * alpha / 4.0)
    return z * sqrt(variance * planned) / observations
