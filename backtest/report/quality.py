"""How well a model foretells: purchases after a look at an item, and the item of a user's next event. Two artifacts, one log.

Propensity: an example is a view, click or cart; its label is whether that user buys that item within PURCHASE_WITHIN_MS
after it; examples whose window the log does not see the end of are left out. Recommendation: events of returning users are
ranked among the model's own candidates by the vector after the event before; an item that is no candidate is a miss. Only
events after all models' learning from this log ended count. Calibration error: mean |predicted - observed| over BINS bins
of equal mass. Not here: how it is found out (watching), baselines and other protocols (`pricetide model evaluate`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtest.report.clusters import clustered_mean
from backtest.report.facts import Bools, Floats
from backtest.report.figures import Figures, Place
from backtest.report.reward_model import require_sklearn
from backtest.report.watching import Foretold
from contracts.log_files import require_pyarrow

BINS = 15
_LEAST = 1e-6
"""Chance that a prediction is taken to have at least, where its logarithm counts."""
TOP = 20
SLICES = 5
PROPENSITY, NEXT_ITEM, FUNNEL = "purchase propensity", "next item", "what the log itself shows"


def describe_next_item(figures: Figures, model: str, found: Foretold) -> None:
    """Add accuracy, recall, NDCG and MRR of the next item, means over events, with intervals clustered by user."""
    if not len(found.rank):
        return
    place: Place = {"policy": model, "segment": NEXT_ITEM}
    figures.add("quality", "events", len(found.rank), **place, unit="count")
    figures.add("quality", "of an item that is no candidate", float((found.rank == 0).mean()), **place, unit="share")
    for name, values in _ranked(found).items():
        mean, half = clustered_mean(values, found.next_user)
        figures.add("quality", name, mean, mean - half, mean + half, **place)


def _ranked(found: Foretold) -> dict[str, Floats]:
    """Return what each next item counts for, by measure, (n,) each."""
    rank = np.maximum(found.rank, 1)
    hit = (found.rank > 0) & (rank <= TOP)
    return {
        "accuracy (first of the list)": (found.rank == 1).astype(np.float64),
        f"recall@{TOP}": hit.astype(np.float64),
        f"NDCG@{TOP}": np.where(hit, 1.0 / np.log2(1.0 + rank), 0.0),
        f"MRR@{TOP}": np.where(hit, 1.0 / rank, 0.0),
    }


def describe_differences(figures: Figures, models: Mapping[str, Foretold]) -> None:
    """Add by how much each further model is better than the first, event by event, with intervals clustered by user."""
    (first, base), *others = models.items()
    for name, found in others:
        place: Place = {"policy": name, "segment": f"better than {first}, on the same events, by"}
        pairs = [("log-loss saved", _losses(base) - _losses(found), base.user)]
        theirs = _ranked(base)
        pairs += [(measure, values - theirs[measure], base.next_user) for measure, values in _ranked(found).items()]
        for measure, more, users in pairs:
            if len(more):
                mean, half = clustered_mean(more, users)
                figures.add("quality", measure, mean, mean - half, mean + half, **place, unit="change of number")


def _losses(found: Foretold) -> Floats:
    chance = np.clip(found.probability, _LEAST, 1.0 - _LEAST)
    loss: Floats = -np.log(np.where(found.bought, chance, 1.0 - chance))
    return loss


def describe_propensity(figures: Figures, model: str, found: Foretold) -> None:
    """Add AUC, log-loss and calibration of r_ui, and the log's own funnel."""
    _funnel(figures, model, found)
    predicted, observed = found.probability, found.bought
    place: Place = {"policy": model, "segment": PROPENSITY}
    figures.add("quality", "examples", len(observed), **place, unit="count")
    if len(np.unique(observed)) < 2:
        figures.add("quality", "AUC", None, **place, text="the test part has only one outcome")
        return
    _, metrics = require_sklearn()
    bins = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    error = 0.0
    for one in (one for one in bins if len(one)):
        mean, share = float(predicted[one].mean()), float(observed[one].mean())
        error += abs(mean - share) * len(one) / len(observed)
        figures.add("calibration", "observed share", share, policy=model, x=mean, unit="share")
    figures.add("quality", "share that bought", float(observed.mean()), **place, unit="share")
    figures.add("quality", "predicted share", float(predicted.mean()), **place, unit="share")
    figures.add("quality", "AUC", float(metrics.roc_auc_score(observed, predicted)), **place)
    figures.add(
        "quality", "log-loss", float(metrics.log_loss(observed, np.clip(predicted, _LEAST, 1 - _LEAST))), **place
    )
    figures.add("quality", "calibration error", error, **place)
    top = np.argsort(-predicted, kind="stable")[: max(1, len(predicted) // 10)]
    figures.add(
        "quality", "CVR in the tenth with the highest propensity", float(observed[top].mean()), **place, unit="share"
    )


def describe_slices(figures: Figures, model: str, found: Foretold) -> None:
    """Add how well purchases are foretold slice by slice: of time, and of users before and since the model learned."""
    slices = {("by time", f"slice {one + 1} of {SLICES}"): rows for one, rows in enumerate(_in_time(found))}
    if found.known.any():
        slices["by user", "users with events before those that are tested"] = found.known
        slices["by user", "users without"] = ~found.known
    _, metrics = require_sklearn()
    for (segment, group), rows in slices.items():
        observed, predicted = found.bought[rows], found.probability[rows]
        place: Place = {"policy": model, "segment": segment, "group": group}
        figures.add("slices", "examples", len(observed), **place, unit="count")
        if len(np.unique(observed)) < 2:
            figures.add("slices", "AUC", None, **place, text="only one outcome")
            continue
        figures.add("slices", "AUC", float(metrics.roc_auc_score(observed, predicted)), **place)
        losses = _losses(found)[rows]
        mean, half = clustered_mean(losses, found.user[rows])
        figures.add("slices", "log-loss", mean, mean - half, mean + half, **place)


def _in_time(found: Foretold) -> list[Bools]:
    """Return the examples of each of SLICES parts with as many of them, by time."""
    parts = np.array_split(np.argsort(found.time_ms, kind="stable"), SLICES)
    return [np.isin(np.arange(len(found.time_ms)), one) for one in parts]


def _funnel(figures: Figures, model: str, found: Foretold) -> None:
    """Add clicks and purchases per view, which no model decides; carts are clicks."""
    place: Place = {"policy": model, "segment": FUNNEL}
    if found.views:
        figures.add("quality", "CTR: clicks per view", found.clicks / found.views, **place, unit="share")
        figures.add("quality", "CVR: purchases per view", found.purchases / found.views, **place, unit="share")


def write_predictions(file: Path, models: Mapping[str, Foretold]) -> None:
    """Write what models foretold and what came, as Parquet: `model`, `question`, and the columns of that question."""
    pa = require_pyarrow()
    tables = []
    for model, found in models.items():
        examples: dict[str, Any] = {
            "user": found.user, "time_ms": found.time_ms, "known": found.known, "probability": found.probability,
            "bought": found.bought,
        }  # fmt: skip
        ranked: dict[str, Any] = {"user": found.next_user, "rank": found.rank}
        for question, columns in ((PROPENSITY, examples), (NEXT_ITEM, ranked)):
            named = {
                name: pa.array([text] * len(columns["user"]), pa.string())
                for name, text in (("model", model), ("question", question))
            }
            tables.append(pa.table(named | columns))
    pa.parquet.write_table(pa.concat_tables(tables, promote_options="default"), file, compression="zstd")
