"""What the folds of a cross-validation found, as figures, and the mean and spread of each over the folds.

The standard error is s / sqrt(K) over K folds, the interval Student's t with K - 1 degrees of freedom. Folds share most of what
they learn from, and folds in time learn from one another's tests: they are not independent, and no unbiased estimate of the
spread exists (Bengio & Grandvalet 2004, "No Unbiased Estimator of the Variance of K-Fold Cross-Validation"). Read it as the
size of the differences between folds. Not here: the metrics themselves (next_item, propensity).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, stdev

from msgspec import Struct

from model_export.evaluation import MODEL, NextItemResult, PropensityResult
from model_export.next_item import TOP

PURCHASES = "purchases"
"""The slice of the propensity's figures; the others are next_item.SLICES."""
RANKING = (f"Recall@{TOP}", f"NDCG@{TOP}", f"MRR@{TOP}")
PROPENSITY = ("AUC", "log-loss", "calibration error")
LOWER_IS_BETTER = {"log-loss", "calibration error"}


class Figure(Struct, frozen=True, forbid_unknown_fields=True):
    """A metric of a method on a slice of one fold's test."""

    slice: str
    metric: str
    method: str
    value: float


class Fold(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one fold was, and what it found."""

    fold: int
    """From 1."""
    learned_events: int
    learned_users: int
    learned_until_ms: int
    tested_events: int
    """Events asked for: their user has an earlier one."""
    tested_users: int
    tested_from_ms: int
    tested_until_ms: int
    new_user_share: float
    """Of the events asked for, of users with no learned event."""
    cold_share: float
    """Of the events asked for, about an item that is no candidate."""
    examples: int
    """Of the propensity, tested."""
    bought_share: float
    model: str
    """Digest of the fold's artifact."""
    epochs: int
    settings: dict[str, str]
    """Chosen for the baselines."""
    figures: list[Figure]


class Spread(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric of a method over the folds that have it."""

    slice: str
    metric: str
    method: str
    """Or the model less the baseline with the best mean, fold by fold."""
    values: dict[int, float]
    """By fold."""
    mean: float
    standard_error: float
    low: float
    """Of the 95 % interval."""
    high: float


def figures_of(ranked: NextItemResult, judged: PropensityResult) -> list[Figure]:
    """Return the figures of one evaluation; a slice without events has none."""
    return [
        Figure(name, metric, method, value)
        for method, slices in ranked.methods.items()
        for name, metrics in slices.items()
        if metrics.events
        for metric, value in zip(RANKING, (metrics.recall, metrics.ndcg, metrics.mrr), strict=True)
    ] + [
        Figure(PURCHASES, metric, method, value)
        for method, found in judged.methods.items()
        for metric, value in zip(PROPENSITY, (found.auc, found.log_loss, found.calibration_error), strict=True)
    ]


def summary_of(folds: Sequence[Fold]) -> list[Spread]:
    """Return the spread of every figure that at least two folds have, and of the model less the baseline with the best mean."""
    values: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for fold in folds:
        for one in fold.figures:
            values.setdefault((one.slice, one.metric), {}).setdefault(one.method, {})[fold.fold] = one.value
    spreads = []
    for (name, metric), methods in values.items():
        best = _best_baseline(metric, methods)
        less = {fold: value - methods[best][fold] for fold, value in methods[MODEL].items()}
        for method, found in {**methods, f"{MODEL} less {best}": less}.items():
            if len(found) > 1:
                spreads.append(_spread(name, metric, method, found))
    return spreads


def _best_baseline(metric: str, methods: Mapping[str, Mapping[int, float]]) -> str:
    means = {method: fmean(found.values()) for method, found in methods.items() if method != MODEL}
    return (min if metric in LOWER_IS_BETTER else max)(means, key=means.__getitem__)


def _spread(name: str, metric: str, method: str, values: Mapping[int, float]) -> Spread:
    from scipy.stats import t

    mean, error = fmean(values.values()), stdev(values.values()) / sqrt(len(values))
    reach = float(t.ppf(0.975, len(values) - 1)) * error
    return Spread(
        slice=name,
        metric=metric,
        method=method,
        values=dict(values),
        mean=mean,
        standard_error=error,
        low=mean - reach,
        high=mean + reach,
    )
