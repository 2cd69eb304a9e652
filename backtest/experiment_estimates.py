"""Estimates for experiments: relative lifts of means per user with CUPED, and the sample ratio.

Statistics are of users, never of events: a user's events depend on each other. Means, CUPED and standard errors are
tea-tasting's, the sample ratio scipy's; the lift's standard error is by the delta method. Not here: which estimates are
made, and what follows (backtest.experiment_report).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log1p
from typing import Any

from msgspec import Struct

from backtest.experiment_users import ExperimentUser
from contracts.errors import BadInput
from contracts.experiments import Watched

_Z = 1.959963984540054
"""Quantile of the 95 % interval that standard errors are taken from."""


def sample_ratio_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Return the p-value of a chi-square test that `counts` of users are a draw of `shares` (which sum to 1)."""
    _, stats = require_tea_tasting()
    total = sum(counts)
    return float(stats.chisquare(counts, [share * total for share in shares]).pvalue) if total else 1.0


def require_tea_tasting() -> tuple[Any, Any]:
    """Return the modules tea_tasting and scipy.stats, or raise BadInput that says how to get them."""
    try:
        import scipy.stats
        import tea_tasting
    except ImportError:
        raise BadInput("A report needs tea-tasting: pip install 'pricetide[experiments]'") from None
    return tea_tasting, scipy.stats


def value_of(user: ExperimentUser, metric: Watched) -> float:
    """Return a user's value of a metric; more is better for each of them."""
    if metric == "conversion":
        return float(user.purchases > 0)
    return float(user.consent if metric == "consent" else user.margin if metric == "margin" else user.revenue)


class Estimate(Struct, frozen=True):
    """A relative lift and what is needed to put an interval around it."""

    lift: float
    variance: float
    """Of one observation: the squared standard error of `lift` times the observations."""
    observations: int
    fixed: tuple[float, float, float]
    """The 95 % interval for one look, and its p-value."""
    cuped: float


def estimate(treated: Sequence[ExperimentUser], others: Sequence[ExperimentUser], metric: Watched) -> Estimate | None:
    """Return the relative lift of `treated` over `others`, adjusted by CUPED; None where there is nothing to divide or to vary."""
    both = [*others, *treated]
    values, before = [value_of(one, metric) for one in both], [float(one.before) for one in both]
    if min(len(others), len(treated)) < 2 or min(sum(values[: len(others)]), sum(values[len(others) :])) <= 0.0:
        return None
    if len(set(values)) == 1:
        return Estimate(0.0, 0.0, len(both), (0.0, 0.0, 1.0), 0.0)
    pyarrow_table = _table([0] * len(others) + [1] * len(treated), values, before)
    tt, _ = require_tea_tasting()
    covariate = "before" if len(set(before)) > 1 else None
    metrics = {"raw": tt.Mean("value", use_t=False), "cuped": tt.Mean("value", covariate, use_t=False)}
    found = tt.Experiment(metrics).analyze(pyarrow_table, control=0)
    raw, cuped = found["raw"], found["cuped"]
    if cuped.control <= 0.0 or cuped.treatment <= 0.0:
        cuped = raw  # a covariate that outweighs the values leaves no ratio
    low, high = float(cuped.rel_effect_size_ci_lower), float(cuped.rel_effect_size_ci_upper)
    ratio = float(cuped.treatment / cuped.control)
    error = ratio * (log1p(high) - log1p(low)) / (2.0 * _Z)  # their interval is symmetric on the scale of logarithms
    spared = 1.0 - (_error(cuped) / _error(raw)) ** 2 if _error(raw) else 0.0
    return Estimate(ratio - 1.0, error**2 * len(both), len(both), (low, high, float(cuped.pvalue)), spared)


def _table(variants: list[int], values: list[float], before: list[float]) -> Any:  # noqa: ANN401 - pyarrow ships no types
    import pyarrow

    return pyarrow.table({"variant": variants, "value": values, "before": before})


def _error(result: Any) -> float:  # noqa: ANN401 - a named tuple of tea-tasting, which is not installed everywhere
    return float((result.effect_size_ci_upper - result.effect_size_ci_lower) / (2.0 * _Z))
