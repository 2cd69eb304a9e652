"""How well a model foretells: purchases after a look at an item, and the item of a user's next event. Two artifacts, one log.

Propensity: an example is a view or click that led to a decision; its label is whether that user buys that item within
PURCHASE_WITHIN_MS after it; examples whose window the log does not see the end of are left out. Recommendation: each event
of a returning user is ranked among the model's own candidates by the vector after the event before; an item that is no
candidate is a miss. Only events after all models' learning from this log ended count. Calibration error: mean |predicted -
observed| over BINS bins of equal mass. Not here: baselines and other protocols (`pricetide model evaluate`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from backtest.report.facts import Bools, Decisions, Floats, Ints
from backtest.report.figures import Figures, Place
from backtest.report.prices import clustered_mean
from backtest.report.reward_model import require_sklearn
from features.artifact import Artifact
from features.tokens import tokens
from features.vectors import Encoded, TokenAsk, TokenEncoder

PURCHASE_WITHIN_MS = 1_800_000
BINS = 15
TOP = 20
NEXT_ITEMS_MAX = 20_000
"""Events whose next item is asked for; of a longer log a sample."""
_AT_ONCE = 256
PROPENSITY, NEXT_ITEM, FUNNEL = "purchase propensity", "next item", "what the log itself shows"


@dataclass(slots=True)
class Watcher:
    """An encoder that remembers, user by user, what it said before each event."""

    encoder: TokenEncoder
    artifact: Artifact
    from_ms: int
    """Only events from here on are remembered."""
    vectors: list[Floats] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    """Row of the item that came; 0: no candidate."""
    users: list[int] = field(default_factory=list)
    _last: dict[tuple[Hashable, bytes], Floats] = field(default_factory=dict)
    _codes: dict[bytes, int] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The artifact's."""
        return self.encoder.digest

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """Return what the encoder says, and remember what it said before."""
        encoded = self.encoder.encode(owner, asks)
        for ask, vector in zip(asks, encoded.vectors, strict=True):
            before = self._last.get((owner, ask.user))
            (token,) = tokens(ask.token)
            if before is not None and token.event_time_ms >= self.from_ms:
                self.vectors.append(before)
                self.targets.append(self.artifact.rows.get(token.item, 0))
                self.users.append(self._codes.setdefault(ask.user, len(self._codes)))
            self._last[owner, ask.user] = vector.copy()
        return encoded

    def release(self, owner: Hashable) -> None:
        """Pass on; what was said stays said."""
        self.encoder.release(owner)


def describe_next_item(figures: Figures, model: str, watcher: Watcher) -> None:
    """Add accuracy, recall, NDCG and MRR of the next item, means over events, with intervals clustered by user."""
    rows = np.arange(len(watcher.targets))
    if len(rows) > NEXT_ITEMS_MAX:
        rows = np.sort(np.random.default_rng(11).choice(rows, NEXT_ITEMS_MAX, replace=False))
    if not len(rows):
        return
    target, users = np.array(watcher.targets)[rows], np.array(watcher.users)[rows]
    rank = _ranks(watcher, rows, target)
    hit = rank <= TOP
    place: Place = {"policy": model, "segment": NEXT_ITEM}
    figures.add("quality", "events", len(rows), **place, unit="count")
    figures.add("quality", "of an item that is no candidate", float((target == 0).mean()), **place, unit="share")
    for name, values in (
        ("accuracy (first of the list)", (rank == 1).astype(np.float64)),
        (f"recall@{TOP}", hit.astype(np.float64)),
        (f"NDCG@{TOP}", np.where(hit, 1.0 / np.log2(1.0 + rank), 0.0)),
        (f"MRR@{TOP}", np.where(hit, 1.0 / rank, 0.0)),
    ):
        mean, half = clustered_mean(values, users)
        figures.add("quality", name, mean, mean - half, mean + half, **place)


def _ranks(watcher: Watcher, rows: Ints, target: Ints) -> Ints:
    """Return the rank of each row's item among the candidates, ties before it; the number of candidates + 1 for none."""
    artifact = watcher.artifact
    candidates, bias = np.ascontiguousarray(artifact.candidates[1:].T), artifact.candidate_bias[1:]
    rank = np.full(len(rows), len(bias) + 1, np.int64)
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scores = np.stack([watcher.vectors[row] for row in rows[part].tolist()]) @ candidates + bias
        known = target[part] > 0
        own = scores[np.arange(len(scores)), np.maximum(target[part] - 1, 0)]
        rank[part] = np.where(known, (scores >= own[:, None]).sum(1), rank[part])
    return rank


def describe_propensity(figures: Figures, model: str, run: Decisions, from_ms: int, end_ms: int) -> None:
    """Add AUC, log-loss and calibration of r_ui, on the decisions of a run with one model."""
    example, bought = purchases_after(run, from_ms, end_ms)
    example &= np.isfinite(run.preference)
    predicted, observed = run.preference[example], bought[example]
    place: Place = {"policy": model, "segment": PROPENSITY}
    figures.add("quality", "examples", len(observed), **place, unit="count")
    if len(np.unique(observed)) < 2:
        figures.add("quality", "AUC", None, **place, text="the test part has only one outcome")
        return
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


def describe_funnel(figures: Figures, model: str, run: Decisions, topics: tuple[str, str], from_ms: int) -> None:
    """Add clicks and purchases per view, which no model decides.

    Args:
        figures: to add to.
        model: whose column it is.
        run: decisions.
        topics: of views and of clicks; equal where they share one, and then there is no rate of clicks.
        from_ms: where the test begins.
    """
    inside = run.time_ms >= from_ms
    purchase = run.binding == "purchase"
    views = int((inside & (run.topic == topics[0]) & ~purchase).sum())
    clicks = int((inside & (run.topic == topics[1]) & ~purchase).sum())
    place: Place = {"policy": model, "segment": FUNNEL}
    if views and topics[0] != topics[1]:
        figures.add("quality", "CTR: clicks per view", clicks / views, **place, unit="share")
    if views:
        figures.add("quality", "CVR: purchases per view", int((inside & purchase).sum()) / views, **place, unit="share")


def purchases_after(run: Decisions, from_ms: int, end_ms: int) -> tuple[Bools, Bools]:
    """Return which decisions are examples, and which of all were followed by a purchase of the item by the user, (n,) each."""
    purchase = run.binding == "purchase"
    pairs = run.user * (int(run.item.max(initial=0)) + 1) + run.item
    order = np.lexsort((run.time_ms, pairs))
    times, names = run.time_ms[order], pairs[order]
    after = np.full(len(run.user) + 1, np.iinfo(np.int64).max // 2)
    places = np.where(purchase[order], np.arange(len(order)), len(order))
    nearest = np.minimum.accumulate(places[::-1])[::-1]  # the next purchase in this order, maybe of another pair
    after[: len(order)] = np.where(purchase[order], times, after[0])
    known = nearest < len(order)
    same = known & (names[np.minimum(nearest, len(order) - 1)] == names)
    bought = np.zeros(len(order), np.bool_)
    bought[order] = same & (after[nearest] - times <= PURCHASE_WITHIN_MS)
    example = ~purchase & (run.time_ms >= from_ms) & (run.time_ms + PURCHASE_WITHIN_MS <= end_ms)
    return example, bought
