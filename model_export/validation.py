"""How good a network is on the validation slice: next item by rank, purchases by calibrated probability.

The next-item metrics are those of the protocol (model_export.next_item), on the events of the slice. Not here: the test, and
the baselines (model_export.evaluation).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.examples import Examples, batches
from model_export.item_tables import ItemTables
from model_export.network import UserNetwork
from model_export.next_item import metrics_of
from model_export.propensity import propensity_metrics

_TOKENS_PER_BATCH = 8_192
_ROWS_AT_A_TIME = 512
_MISS = np.iinfo(np.int64).max
_NOTHING_ASKED = tuple(np.empty(0, kind) for kind in (np.int64, np.int64, np.bool_, np.int32))
_NOTHING_JUDGED = tuple(np.empty(0, kind) for kind in (np.float64, np.bool_, np.int32, np.int64))
"""Where a slice holds no next event, or no example of a purchase: the log is short."""


class Answers(NamedTuple):
    """What a network says of the validation slice."""

    rank: NDArray[np.int64]
    """Per next event its item's rank among the known items, from 1; of an item not known, beyond all."""
    rank_without_last: NDArray[np.int64]
    """The same, the user's last item being no candidate."""
    moved: NDArray[np.bool_]
    """Per next event, whether it is no repeat of the last item."""
    rank_user: NDArray[np.int32]
    logits: NDArray[np.float64]
    """The trunk's, per token whose purchase, or none, is known by the slice's end; not calibrated."""
    bought: NDArray[np.bool_]
    logit_user: NDArray[np.int32]
    logit_token: NDArray[np.int64]
    """Places of those tokens in the examples."""


def answers_of(network: UserNetwork, tables: ItemTables, examples: Examples) -> Answers:
    """Ask the network about everything in the validation slice; it must be in evaluation mode."""
    rows = np.flatnonzero(examples.known)
    place = np.full(len(examples.known), -1)
    place[rows] = np.arange(len(rows))
    asked: list[tuple[NDArray[Any], ...]] = [_NOTHING_ASKED]
    judged: list[tuple[NDArray[Any], ...]] = [_NOTHING_JUDGED]
    with torch.inference_mode():
        candidates, bias = tables.candidates(torch.from_numpy(rows))
        for batch in batches(examples, examples.later | examples.judged_later, _TOKENS_PER_BATCH, None):
            token, valid = batch
            item = tables.inputs(examples.row[token])
            vector, logit = network.history(item, examples.kind[token], examples.features[token])
            vector = network.pointed(vector, item)
            flat, there = token.numpy(), valid.numpy()
            for at in _pieces(there & examples.later[flat]):
                of = flat[at]
                scores = (vector[at] @ candidates.T + bias).numpy()
                scores[_met(examples, of, network.architecture.recent, place, len(rows))] += network.returning.item()
                ranks = _ranks(scores, place[examples.target[of].numpy()], place[examples.row[of].numpy()])
                asked.append((*ranks, ~examples.repeated[of], examples.user[of]))
            for at in _pieces(there & examples.judged_later[flat]):
                of = flat[at]
                judged.append((logit[at].double().numpy(), examples.bought[of].numpy(), examples.user[of], of))
    return Answers(*map(np.concatenate, zip(*asked, strict=True)), *map(np.concatenate, zip(*judged, strict=True)))


def _pieces(wanted: NDArray[np.bool_]) -> list[tuple[NDArray[np.int64], ...]]:
    """Return the places of what is wanted, as indices of some rows at a time; at least one piece."""
    places = np.argwhere(wanted)
    return [tuple(part.T) for part in np.array_split(places, max(1, -(-len(places) // _ROWS_AT_A_TIME)))]


def _met(
    examples: Examples, token: NDArray[np.int64], reach: int, place: NDArray[np.int64], size: int
) -> NDArray[np.bool_]:
    """Return (n, size): which candidates, by the `place` of their rows, the last `reach` tokens up to `token` (n,) are of."""
    first = examples.first[np.searchsorted(examples.first, token, side="right") - 1]
    back = token[:, None] - np.arange(reach)
    at = np.where(back >= first[:, None], place[examples.row.numpy()[np.maximum(back, 0)]], -1)
    met = np.zeros((len(token), size), bool)
    user, age = np.nonzero(at >= 0)
    met[user, at[user, age]] = True
    return met


def _ranks(
    scores: NDArray[np.float32], target: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ranks of `target` among all, and among all but `last`; places in a row of `scores`, -1: none."""
    row = np.arange(len(scores))
    own = scores[row, np.maximum(target, 0)][:, None]
    rank = 1 + (scores > own).sum(1)
    without = rank - ((last >= 0) & (scores[row, np.maximum(last, 0)] > own[:, 0]))
    return np.where(target < 0, _MISS, rank), np.where(target < 0, _MISS, without)


def next_item_metrics(answers: Answers) -> dict[str, float]:
    """Return Recall, NDCG and MRR at 20 of all events of the slice, and of those that repeat nothing; none where there is none."""
    found: dict[str, float] = {}
    everything = np.ones(len(answers.moved), dtype=bool)
    for name, rank, rows in (
        ("", answers.rank, everything),
        ("_without_repeats", answers.rank_without_last, answers.moved),
    ):
        if not rows.any():
            continue
        metrics = metrics_of(rank[rows], answers.rank_user[rows])
        found |= {f"recall{name}": metrics.recall, f"ndcg{name}": metrics.ndcg, f"mrr{name}": metrics.mrr}
    return found


class Platt(NamedTuple):
    """A calibration: probability = sigmoid(scale * logit + offset). Platt 1999, "Probabilistic Outputs for SVMs"."""

    scale: float
    offset: float

    def probability(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.scale * logits + self.offset))))


AS_IT_IS = Platt(1.0, 0.0)


def platt_of(logits: NDArray[np.float64], bought: NDArray[np.bool_]) -> Platt:
    """Fit the calibration; as it is where there is only one outcome, or the logits tell nothing."""
    from sklearn.linear_model import LogisticRegression

    if bought.all() or not bought.any():
        return AS_IT_IS
    fitted = LogisticRegression(C=1e6).fit(logits[:, None], bought)
    scale, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Platt(scale, offset) if scale > 0 else AS_IT_IS


def propensity_figures(answers: Answers) -> dict[str, float]:
    """Return AUC, log-loss and calibration error, each half of the users calibrated by the other half; none of one outcome."""
    even = answers.logit_user % 2 == 0
    halves = (even, ~even)
    if any(answers.bought[half].all() or not answers.bought[half].any() for half in halves):
        return {}
    probability = np.empty(len(answers.logits))
    for half in halves:
        probability[half] = platt_of(answers.logits[~half], answers.bought[~half]).probability(answers.logits[half])
    metrics = propensity_metrics(probability, answers.bought)
    return {
        "purchase_auc": metrics.auc,
        "purchase_log_loss": metrics.log_loss,
        "purchase_calibration_error": metrics.calibration_error,
    }
