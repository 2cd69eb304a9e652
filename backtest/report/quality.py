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
from backtest.report.figures import Figures, Place
from backtest.report.reward_model import require_sklearn
from backtest.report.watching import Foretold
from contracts.log_files import require_pyarrow

BINS = 15
TOP = 20
PROPENSITY, NEXT_ITEM, FUNNEL = "purchase propensity", "next item", "what the log itself shows"


def describe_next_item(figures: Figures, model: str, found: Foretold) -> None:
    """Add accuracy, recall, NDCG and MRR of the next item, means over events, with intervals clustered by user."""
    if not len(found.rank):
        return
    rank = np.where(found.rank == 0, found.candidates + 1, found.rank)
    hit = (found.rank > 0) & (rank <= TOP)
    place: Place = {"policy": model, "segment": NEXT_ITEM}
    figures.add("quality", "events", len(rank), **place, unit="count")
    figures.add("quality", "of an item that is no candidate", float((found.rank == 0).mean()), **place, unit="share")
    for name, values in (
        ("accuracy (first of the list)", (found.rank == 1).astype(np.float64)),
        (f"recall@{TOP}", hit.astype(np.float64)),
        (f"NDCG@{TOP}", np.where(hit, 1.0 / np.log2(1.0 + rank), 0.0)),
        (f"MRR@{TOP}", np.where(hit, 1.0 / rank, 0.0)),
    ):
        mean, half = clustered_mean(values, found.next_user)
        figures.add("quality", name, mean, mean - half, mean + half, **place)


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
    figures.add("quality", "log-loss", float(metrics.log_loss(observed, np.clip(predicted, 1e-6, 1 - 1e-6))), **place)
    figures.add("quality", "calibration error", error, **place)
    top = np.argsort(-predicted, kind="stable")[: max(1, len(predicted) // 10)]
    figures.add(
        "quality", "CVR in the tenth with the highest propensity", float(observed[top].mean()), **place, unit="share"
    )


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
        examples: dict[str, Any] = {"user": found.user, "probability": found.probability, "bought": found.bought}
        ranked: dict[str, Any] = {"user": found.next_user, "rank": found.rank}
        for question, columns in ((PROPENSITY, examples), (NEXT_ITEM, ranked)):
            named = {
                name: pa.array([text] * len(columns["user"]), pa.string())
                for name, text in (("model", model), ("question", question))
            }
            tables.append(pa.table(named | columns))
    pa.parquet.write_table(pa.concat_tables(tables, promote_options="default"), file, compression="zstd")
