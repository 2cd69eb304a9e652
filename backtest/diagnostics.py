"""What importance weights look like: how many draws they are worth, and whether a few of them decide everything.

Not here: limits (backtest.gates).
"""

from __future__ import annotations

import numpy as np

from backtest.estimates import Clipped, Diagnostics
from backtest.estimators import GRID, clipped, error_of, ips, value_of
from backtest.feedback import Feedback, Floats, Ints

_Z_MAX = 1_000.0
"""What is said of weights that are all the same and not 1."""
_NOTHING = float(np.finfo(float).tiny) ** 0.5
"""Weights below this share of the largest are none: what is above them by less has no logarithm."""
_TAIL_MIN = 5
"""Values above the threshold that a tail is fitted to, at least."""


def diagnostics_of(feedback: Feedback, users: Ints, forced: int) -> Diagnostics:
    """Return the diagnostics of draws of which none was forced.

    Args:
        feedback: at least one draw.
        users: codes of their users from 0 without a gap, (n,).
        forced: rows that were left out because they were.
    """
    weight, n = feedback.weight, len(feedback)
    total, squares = float(weight.sum()), float((weight**2).sum())
    ess = total**2 / squares if squares else 0.0
    earned = np.abs(weight * feedback.reward)
    return Diagnostics(
        draws=n,
        users=int(users.max()) + 1,
        forced_share=forced / (forced + n),
        ess=ess,
        ess_share=ess / n,
        weight_mean=total / n,
        weight_z=_z_of_mean(weight, users),
        weight_max=float(weight.max()),
        weight_share=float(weight.max()) / total if total else 1.0,
        reward_share=float(earned.max() / earned.sum()) if earned.any() else 1.0,
        pareto_k=pareto_k(weight),
        unsupported=float(feedback.unsupported.mean()),
        clips=tuple(_at_clip(feedback, users, clip) for clip in GRID),
        model_gap=_model_gap(feedback, users),
        recomputed_gap=_gap(feedback),
        unknown=feedback.unknown,
        duplicated=feedback.duplicated,
    )


def _z_of_mean(weight: Floats, users: Ints) -> float:
    """Return how many standard errors the mean weight is away from 1: of draws, or of users' sums where those vary more.

    Whoever is held out has the same weight at every draw, so the mean of a good log moves as people do, not as draws do.
    """
    n, away = len(weight), float(weight.mean()) - 1.0
    alone = float(weight.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    together = float((np.bincount(users, weight - weight.mean()) ** 2).sum())
    error = max(alone, float(np.sqrt(together)) / n)
    if error < 1e-12:
        return 0.0 if abs(away) < 1e-9 else float(np.copysign(_Z_MAX, away))
    return away / error


def _at_clip(feedback: Feedback, users: Ints, clip: float) -> Clipped:
    terms = clipped(feedback, clip).terms
    return Clipped(clip, value_of(terms), error_of(terms, users))


def _model_gap(feedback: Feedback, users: Ints) -> float | None:
    if feedback.expected_target is None:
        return None
    terms = ips(feedback).terms
    error = error_of(terms, users)
    return (float(feedback.expected_target.mean()) - value_of(terms)) / error if error else None


def _gap(feedback: Feedback) -> float | None:
    if feedback.recomputed is None:
        return None
    return float(np.abs(feedback.recomputed - feedback.propensity).max())


def pareto_k(weight: Floats) -> float | None:
    """Return the shape k of the generalised Pareto distribution of the largest weights, or None where too few stand out.

    The tail are the min(n / 5, 3 sqrt(n)) largest; the fit is that of Zhang and Stephens 2009, drawn towards 0.5 as if by ten
    values: Vehtari, Simpson, Gelman, Yao, Gabry, "Pareto smoothed importance sampling", arXiv 1507.02646. Below 0.7 means of
    weighted rewards settle; above, not at any size of log, if the tail goes on as it was fitted: that of bounded weights ends,
    so backtest.gates asks only where a weight is far above the mean.
    """
    n = len(weight)
    count = int(np.ceil(min(n / 5.0, 3.0 * n**0.5)))
    if n <= count or weight.max() <= 0.0:
        return None
    ordered = np.sort(weight / weight.max())
    threshold = max(float(ordered[-count - 1]), _NOTHING)
    tail = ordered[ordered > threshold] - threshold
    return _shape(tail) if len(tail) >= _TAIL_MIN else None


def _shape(tail: Floats) -> float:
    """Return k of excesses over a threshold, (n,), ascending and above zero."""
    n = len(tail)
    count = 30 + int(n**0.5)
    grid = 1.0 - np.sqrt(count / (np.arange(1, count + 1) - 0.5))
    b = grid / (3.0 * tail[int(n / 4 + 0.5) - 1]) + 1.0 / tail[-1]
    b = b[b != 0.0]  # where k is zero, too
    k = np.log1p(-b[:, None] * tail).mean(axis=1)
    likelihood = n * (np.log(-(b / k)) - k - 1.0)
    share = np.exp(likelihood - likelihood.max())
    share = np.where(share >= 10.0 * np.finfo(float).eps * share.sum(), share, 0.0)
    mean = float((b * share).sum() / share.sum())
    fitted = float(np.log1p(-mean * tail).mean())
    return (n * fitted + 10.0 * 0.5) / (n + 10.0)
