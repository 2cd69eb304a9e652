"""How well a model foretells: purchases after a look at an item, and the item of a user's next event. Two artifacts, one log.

Propensity: an example is a view, click or cart; its label is whether that user buys that item within PURCHASE_WITHIN_MS
after it; examples whose window the log does not see the end of are left out. Recommendation: events of returning users are
ranked among the model's own candidates by the vector after the event before; an item that is no candidate is a miss. Only
events after all models' learning from this log ended count. Calibration error: mean |predicted - observed| over BINS bins
of equal mass. Not here: baselines and other protocols (`pricetide model evaluate`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from backtest.report.facts import Bools, Codes, Floats, Ints
from backtest.report.figures import Figures, Place
from backtest.report.prices import clustered_mean
from backtest.report.reward_model import require_sklearn
from contracts.log_files import require_pyarrow
from features.artifact import NO_ITEM, Artifact
from features.tokens import KINDS, token_fields
from features.vectors import Encoded, TokenAsk, TokenEncoder

PURCHASE_WITHIN_MS = 1_800_000
BINS = 15
TOP = 20
NEXT_ITEMS = 20_000
"""Events, about, whose next item is asked for: a sample of a longer log, by a hash of user and position."""
_AT_ONCE = 256
PROPENSITY, NEXT_ITEM, FUNNEL = "purchase propensity", "next item", "what the log itself shows"
_VIEW, _PURCHASE = KINDS.index("view"), KINDS.index("purchase")


Columns = dict[str, NDArray[np.generic]]


@dataclass(slots=True)
class Watcher:
    """An encoder that remembers every event that it was asked about, and of a sample what it had said before it."""

    encoder: TokenEncoder
    artifact: Artifact
    from_ms: int
    """Only next items from here on are remembered."""
    share: float
    """Of the events whose next item is remembered."""
    rows: list[tuple[int, int, int, int, float]] = field(default_factory=list)
    """User and item as codes, time, kind, logit; per user in the order applied."""
    vectors: list[Floats] = field(default_factory=list)
    recent: list[Ints] = field(default_factory=list)
    """Of each of `vectors`: rows of the items of the user's last tokens then, as Artifact.scores wants them."""
    targets: list[tuple[int, int]] = field(default_factory=list)
    """Of each of `vectors`: the user, and the candidate that came (0: none)."""
    users: Codes = field(default_factory=Codes)
    items: Codes = field(default_factory=Codes)
    _last: dict[tuple[Hashable, bytes], tuple[Floats, Ints]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The artifact's."""
        return self.encoder.digest

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """Return what the encoder says, and remember it."""
        encoded = self.encoder.encode(owner, asks)
        for ask, vector, logit in zip(asks, encoded.vectors, encoded.logits.tolist(), strict=True):
            ((kind, item, _, _, time_ms),) = token_fields(ask.token)
            user = self.users.code(ask.user.decode("utf-8", "replace"))
            self.rows.append((user, self.items.code(item), time_ms, kind, logit))
            before = self._last.pop((owner, ask.user), None)
            if before is not None and time_ms >= self.from_ms:
                self.vectors.append(before[0])
                self.recent.append(before[1])
                self.targets.append((user, self.artifact.rows.get(item, 0)))
            if crc32(ask.user, ask.position + 1) < self.share * 2.0**32:
                self._last[owner, ask.user] = vector.copy(), self._recent(ask)
        return encoded

    def _recent(self, ask: TokenAsk) -> Ints:
        count = self.artifact.manifest.architecture.recent
        items = [item for _, item, *_ in token_fields(ask.history + ask.token)][: -count - 1 : -1]
        rows = np.full(count, NO_ITEM, np.int64)
        rows[: len(items)] = [self.artifact.rows.get(item, 0) for item in items]
        return rows

    def release(self, owner: Hashable) -> None:
        """Pass on; what was said stays said."""
        self.encoder.release(owner)

    def forget(self, owner: Hashable, user: bytes) -> None:
        """Pass on; nothing is expected of the user's next event any more."""
        self._last.pop((owner, user), None)
        self.encoder.forget(owner, user)


def describe_next_item(figures: Figures, model: str, watcher: Watcher) -> Columns:
    """Add accuracy, recall, NDCG and MRR of the next item, means over events, with intervals clustered by user.

    Returns users and ranks; the rank of what is no candidate is 0.
    """
    if not watcher.targets:
        return {}
    users, target = np.array(watcher.targets, np.int64).T
    rank = _ranks(watcher, target)
    hit = rank <= TOP
    place: Place = {"policy": model, "segment": NEXT_ITEM}
    figures.add("quality", "events", len(target), **place, unit="count")
    figures.add("quality", "of an item that is no candidate", float((target == 0).mean()), **place, unit="share")
    for name, values in (
        ("accuracy (first of the list)", (rank == 1).astype(np.float64)),
        (f"recall@{TOP}", hit.astype(np.float64)),
        (f"NDCG@{TOP}", np.where(hit, 1.0 / np.log2(1.0 + rank), 0.0)),
        (f"MRR@{TOP}", np.where(hit, 1.0 / rank, 0.0)),
    ):
        mean, half = clustered_mean(values, users)
        figures.add("quality", name, mean, mean - half, mean + half, **place)
    return {"user": users, "rank": np.where(target == 0, 0, rank)}


def _ranks(watcher: Watcher, target: Ints) -> Ints:
    """Return the rank of each row's item among the candidates, ties before it; the number of candidates + 1 for none."""
    rank = np.full(len(target), len(watcher.artifact.rows) + 1, np.int64)
    for start in range(0, len(target), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scores = watcher.artifact.scores(np.stack(watcher.vectors[part]), np.stack(watcher.recent[part]))[:, 1:]
        known = target[part] > 0
        own = scores[np.arange(len(scores)), np.maximum(target[part] - 1, 0)]
        rank[part] = np.where(known, (scores >= own[:, None]).sum(1), rank[part])
    return rank


def describe_propensity(figures: Figures, model: str, watcher: Watcher, from_ms: int) -> Columns:
    """Add AUC, log-loss and calibration of r_ui, and the log's own funnel; return users, probabilities and outcomes."""
    user, item, time_ms, kind = np.array([row[:4] for row in watcher.rows], np.int64).reshape(-1, 4).T
    logit = np.array([row[4] for row in watcher.rows], np.float64)
    _funnel(figures, model, kind[time_ms >= from_ms])
    bought = followed_by_purchase(user, item, time_ms, kind == _PURCHASE)
    last_ms = int(time_ms.max(initial=0))
    example = (kind != _PURCHASE) & (time_ms >= from_ms) & (time_ms + PURCHASE_WITHIN_MS <= last_ms)
    predicted, observed = 1.0 / (1.0 + np.exp(-logit[example])), bought[example]
    columns: Columns = {"user": user[example], "probability": predicted, "bought": observed}
    place: Place = {"policy": model, "segment": PROPENSITY}
    figures.add("quality", "examples", len(observed), **place, unit="count")
    if len(np.unique(observed)) < 2:
        figures.add("quality", "AUC", None, **place, text="the test part has only one outcome")
        return columns
    _, metrics = require_sklearn()
    bins = np.array_split(np.argsort(predicted, kind="stable"), BINS)
    error = 0.0
    for one in bins:
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
    return columns


def _funnel(figures: Figures, model: str, kind: Ints) -> None:
    """Add clicks and purchases per view, which no model decides; carts are clicks."""
    views, purchases = int((kind == _VIEW).sum()), int((kind == _PURCHASE).sum())
    place: Place = {"policy": model, "segment": FUNNEL}
    if views:
        clicks = len(kind) - views - purchases
        figures.add("quality", "CTR: clicks per view", clicks / views, **place, unit="share")
        figures.add("quality", "CVR: purchases per view", purchases / views, **place, unit="share")


def followed_by_purchase(user: Ints, item: Ints, time_ms: Ints, purchase: Bools) -> Bools:
    """Return which events are followed by a purchase of the item by the user within PURCHASE_WITHIN_MS, (n,).

    Args:
        user: codes, (n,); rows of one user in the order applied.
        item: codes, (n,).
        time_ms: event times, (n,).
        purchase: which events are purchases, (n,); their own answers mean nothing.
    """
    pairs = user * (int(item.max(initial=0)) + 1) + item
    order = np.lexsort((np.arange(len(pairs)), pairs))
    names, times = pairs[order], time_ms[order]
    places = np.where(purchase[order], np.arange(len(order)), len(order))
    nearest = np.minimum.accumulate(places[::-1])[::-1]  # the next purchase in this order, maybe of another pair
    at = np.minimum(nearest, len(order) - 1)
    gap = times[at] - times
    bought = np.zeros(len(order), np.bool_)
    bought[order] = (nearest < len(order)) & (names[at] == names) & (gap >= 0) & (gap <= PURCHASE_WITHIN_MS)
    return bought


def write_predictions(file: Path, parts: Sequence[tuple[str, str, Columns]]) -> None:
    """Write what models foretold and what came, as Parquet: (model, question, columns) each; a question has its own columns."""
    pa = require_pyarrow()
    tables = [
        pa.table({"model": [model] * len(columns["user"]), "question": [question] * len(columns["user"]), **columns})
        for model, question, columns in parts
        if columns
    ]
    if tables:
        pa.parquet.write_table(pa.concat_tables(tables, promote_options="default"), file, compression="zstd")
