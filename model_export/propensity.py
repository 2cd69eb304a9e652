"""Purchase propensity: what is predicted, how well, and the baseline: logistic regression on the rolling features.

An example is a view, click or cart of an item; its label is whether the same user buys that item within
PURCHASE_WITHIN_MS after it. Only examples whose window is over are used, before the split for learning and before the
log's end for testing: a label that is cut off says nothing about calibration. A purchase itself is no example.

Calibration error: examples sorted by prediction, cut into 15 bins of equal mass; mean over bins of |predicted - observed|
(Naeini, Cooper & Hauskrecht 2015, with bins of equal mass as in Nixon et al. 2019). Not here: the model's own head.
"""

from __future__ import annotations

from math import log1p
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.affinities import weights_at
from features.state import SessionItem
from features.tokens import KINDS
from features.windows import totals
from model_export.applied import Applied

PURCHASE_WITHIN_MS = 1_800_000
BINS = 15
REGULARISATIONS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of C that are tried, on the validation slice, by log-loss."""
_PURCHASE = KINDS.index("purchase")
_WINDOWS, _COUNTERS = ("1 h", "24 h", "30 d"), ("views", "clicks", "purchases", "spend", "dwell")
ROLLING = (
    *(f"{counter}, {window}" for window in _WINDOWS for counter in _COUNTERS),
    "session events", "session searches", "session items", "session age",
    "views of the item", "clicks on the item", "carts of the item", "dwell on the item",
    "affinity to the category", "affinity to the brand",
    "price", "price over list", "in the catalogue", "is a click", "is a cart", "time since the event before", "first event",
)  # fmt: skip
"""Names of the rolling features, in the order of `rolling_features`."""


def rolling_features(applied: Applied) -> list[float]:
    """Return what the user's state says right after an event, and the event's price: ROLLING, counts and money as ln(1 + x)."""
    event, state, item = applied.event, applied.state, applied.item
    now_ms = max(state.last_ms, event.event_time_ms)
    values = [log1p(value) for window in totals(state, now_ms) for value in window]
    values += map(log1p, (state.session_events, state.session_searches, len(state.session_items)))
    values.append(log1p(max(0, now_ms - state.session_start_ms) / 1000))
    visited = state.session_items.get(event.item, SessionItem())
    values += map(log1p, (visited.views, visited.clicks, visited.carts, visited.dwell_ms))
    categories, brands = weights_at(state, now_ms)
    values.append(log1p(categories.get(item.category, 0.0) if item else 0.0))
    values.append(log1p(brands.get(item.brand, 0.0) if item else 0.0))
    values.append(log1p(event.price))
    values.append(log1p(event.price) - log1p(item.list_price) if item else 0.0)
    values.append(1.0 if item else 0.0)
    kind = applied.kind
    values += (float(kind == "click"), float(kind == "cart"))
    before_ms = applied.before_ms
    values.append(log1p(max(0, event.event_time_ms - before_ms) / 1000) if before_ms is not None else 0.0)
    values.append(float(before_ms is None))
    return values


def purchase_labels(
    user: NDArray[np.int32], item: NDArray[np.int32], kind: NDArray[np.int8], time_ms: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return, per event, whether its user buys its item within PURCHASE_WITHIN_MS after it; events in the order applied."""
    next_purchase: dict[tuple[int, int], int] = {}
    bought = np.zeros(len(user), dtype=bool)
    rows = zip(user.tolist(), item.tolist(), kind.tolist(), time_ms.tolist(), strict=True)
    for place, (who, what, how, when) in reversed(list(enumerate(rows))):
        if how == _PURCHASE:
            next_purchase[who, what] = when
        else:
            bought[place] = 0 <= next_purchase.get((who, what), -1) - when <= PURCHASE_WITHIN_MS
    return bought


class Calibration(NamedTuple):
    """One bin of the reliability diagram: means over its examples."""

    predicted: float
    observed: float
    examples: int


class PropensityMetrics(NamedTuple):
    """How well probabilities foretell purchases."""

    auc: float
    log_loss: float
    calibration_error: float
    bins: tuple[Calibration, ...]


def calibration_bins(probability: NDArray[np.float64], bought: NDArray[np.bool_]) -> tuple[Calibration, ...]:
    """Return at most BINS bins of equal mass, by rising probability; equal probabilities keep their order."""
    parts = np.array_split(np.argsort(probability, kind="stable"), BINS)
    return tuple(
        Calibration(float(probability[part].mean()), float(bought[part].mean()), len(part))
        for part in parts
        if len(part)
    )


def propensity_metrics(probability: NDArray[np.float64], bought: NDArray[np.bool_]) -> PropensityMetrics:
    """Return the metrics of predicted probabilities; the examples must hold both outcomes."""
    from sklearn.metrics import log_loss, roc_auc_score

    bins = calibration_bins(probability, bought)
    error = sum(abs(one.predicted - one.observed) * one.examples for one in bins) / len(bought)
    return PropensityMetrics(
        float(roc_auc_score(bought, probability)), float(log_loss(bought, probability)), error, bins
    )


class RollingBaseline:
    """Logistic regression on standardised rolling features, unweighted, so that its probabilities are calibrated ones."""

    def __init__(self, features: NDArray[np.float32], bought: NDArray[np.bool_], regularisation: float) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self.regularisation = regularisation
        self._model: Any = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=500))
        self._model.fit(features, bought)

    def probability(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of a purchase per example."""
        return np.asarray(self._model.predict_proba(features)[:, 1])
