"""The expected reward of a draw at a price, q(x, price): what DM and DR need; cross-fitted, and how good it is by fold.

q = P(bought | x, price) * (price, or price less cost) * mean pieces of a purchase. P is a logistic regression (scikit-learn)
on the price over list, the list price, the intent level, whether the user is new, their products with the price, and the
category. A row's q is by a model that saw no draw of its user. Beside that, folds in time: each period by what lies
before it. Not here: estimates (values).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.report.divisions import NEW_USER_EVENTS, Divisions
from backtest.report.draws import PRICES, Draws
from backtest.report.facts import Bools, Floats, Ints
from backtest.report.figures import Figures, Place
from backtest.report.targets import FOLDS, Target, folds_of
from contracts.errors import BadInput

BOUGHT_MIN = 10
"""Purchases, and draws without, that a fold needs to learn from."""
_TIME_FOLDS = 5


_PART_ROWS = 8_192
"""Draws whose feasible prices have their features in memory at once."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected rewards of n draws, whole units of the currency, (n,) each."""

    of_drawn: Floats
    """Of the price that was drawn."""
    under: Mapping[str, Floats]
    """Under a policy's probabilities of each feasible price, by its name."""


def expected_rewards(draws: Draws, divisions: Divisions, kind: str, targets: Sequence[Target]) -> Expected | None:
    """Return q of every draw by a model that saw no draw of its user; None if there is too little to learn from.

    Args:
        draws: in any order.
        divisions: of the log.
        kind: `margin` or `revenue`.
        targets: policies at these draws.
    """
    bought = draws.quantity > 0
    fold = folds_of(draws.user)
    if any(_too_few(bought[fold != one]) for one in range(FOLDS)):
        return None
    base = _base(draws, divisions)
    x = _features(base, draws.multiplier)
    models = [_fit(x[fold != one], bought[fold != one]) for one in range(FOLDS)]
    pieces = float(draws.quantity[bought].mean()) / divisions.minor
    cost = np.where(draws.cost < 0, 0, draws.cost) if kind == "margin" else np.zeros(len(draws))
    drawn = _chances(models, fold, x) * pieces * (draws.price - cost)
    under = {one.name: np.zeros(len(draws)) for one in targets}
    for part in draws.lattices.parts(_PART_ROWS):
        row, price = part.row + part.rows.start, part[PRICES]
        chance = _chances(models, fold[row], _features(base[row], price / draws.list_price[row]))
        earned = chance * pieces * (price - cost[row])
        for one in targets:
            under[one.name][part.rows] = part.sums(earned * one.choices(part))
    return Expected(drawn, under)


def _chances(models: Sequence[Any], fold: Ints, x: Floats) -> Floats:
    """Return the chance of a purchase of every row by the model of its fold, (n,)."""
    chance = np.zeros(len(x))
    for one, model in enumerate(models):
        rows = fold == one
        if rows.any():
            chance[rows] = _chance(model, x[rows])
    return chance


def describe_folds(figures: Figures, draws: Draws, divisions: Divisions) -> None:
    """Add log-loss, AUC and mean prediction of each fold, by user and by time."""
    bought = draws.quantity > 0
    x = _features(_base(draws, divisions), draws.multiplier)
    fold = folds_of(draws.user)
    for one in range(FOLDS):
        _describe_fold(figures, "by user", f"fold {one + 1}", x, bought, fold != one, fold == one)
    slices = np.minimum(np.arange(len(draws)) * (_TIME_FOLDS + 1) // max(len(draws), 1), _TIME_FOLDS)
    for one in range(1, _TIME_FOLDS + 1):
        _describe_fold(
            figures, "by time", f"slice {one + 1} of {_TIME_FOLDS + 1}", x, bought, slices < one, slices == one
        )


def _describe_fold(
    figures: Figures, segment: str, group: str, x: Floats, bought: Bools, train: Bools, test: Bools
) -> None:
    _, metrics = require_sklearn()
    place: Place = {"segment": segment, "group": group}
    figures.add("folds", "draws", int(test.sum()), **place, unit="count")
    if _too_few(bought[train]) or len(np.unique(bought[test])) < 2:
        figures.add("folds", "log-loss", None, **place, text="too few purchases to learn from, or to judge")
        return
    chance = _chance(_fit(x[train], bought[train]), x[test])
    base = np.full(len(chance), bought[train].mean())
    figures.add("folds", "log-loss", float(metrics.log_loss(bought[test], chance)), **place)
    figures.add("folds", "log-loss of a constant", float(metrics.log_loss(bought[test], base)), **place)
    figures.add("folds", "AUC", float(metrics.roc_auc_score(bought[test], chance)), **place)
    figures.add("folds", "predicted", float(chance.mean()), **place, unit="share")
    figures.add("folds", "observed", float(bought[test].mean()), **place, unit="share")


def _too_few(bought: Bools) -> bool:
    return min(int(bought.sum()), int((~bought).sum())) < BOUGHT_MIN


def _base(draws: Draws, divisions: Divisions) -> Floats:
    """Return what is known of a draw before its price, (n, b)."""
    category = draws.segments(divisions)["category"]
    columns = [
        np.log(draws.list_price),
        np.maximum(draws.intent, 0),
        (draws.sequence < NEW_USER_EVENTS).astype(np.float64),
        *(rows for _, rows in sorted(category.present())[1:]),
    ]
    stacked = np.stack(columns, axis=1).astype(np.float64)
    return np.asarray((stacked - stacked.mean(0)) / np.maximum(stacked.std(0), 1e-9))


def _features(base: Floats, multiplier: Floats) -> Floats:
    slope = (np.asarray(multiplier) - 1.0)[:, None] * 10.0
    return np.concatenate([base, slope, slope * base[:, :3]], axis=1)


def _fit(x: Floats, bought: Bools) -> Any:  # noqa: ANN401 - scikit-learn ships no types
    linear, _ = require_sklearn()
    return linear.LogisticRegression(C=1.0, max_iter=200).fit(x, bought)


def _chance(model: Any, x: Floats) -> Floats:  # noqa: ANN401 - scikit-learn ships no types
    return np.asarray(model.predict_proba(x)[:, 1])


def require_sklearn() -> tuple[Any, Any]:
    """Return the modules sklearn.linear_model and sklearn.metrics, or raise BadInput that says how to get them."""
    try:
        from sklearn import linear_model, metrics
    except ImportError:
        raise BadInput("A report needs scikit-learn: pip install 'pricetide[report]'") from None
    return linear_model, metrics
