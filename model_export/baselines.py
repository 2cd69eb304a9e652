"""What the model has to beat: methods that count, and one that factorises. Each is made from the train part of a task.

Popularity, the last item, the recent items, co-visitation, item-kNN by cosine over sessions, implicit matrix factorisation
(the library `implicit`). Their few settings are chosen on a validation slice in time (`tuned`), as the model's are. Not
here: the protocol (model_export.next_item).

Sources. Item-kNN: Jannach & Ludewig 2017, "When Recurrent Neural Networks meet the Neighborhood for Session-Based
Recommendation", section 3; damping as in Hidasi et al. 2016. ALS: Hu, Koren & Volinsky 2008, "Collaborative Filtering for
Implicit Feedback Datasets".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model_export.next_item import SLICES, Recommender, Task, ranks_of, sliced_metrics

SESSION_GAP_MS = 1_800_000
HISTORY_MAX = 128
"""Events of a user that a method looks back on: as many as the model's tokens."""
_SEED = 7

Decay = Callable[[NDArray[np.int64]], NDArray[np.floating[Any]]]
"""Weight of an event by its age: 1 for the user's last one, 2 for the one before."""


def history_matrix(task: Task, rows: NDArray[np.int64], decay: Decay) -> sparse.csr_matrix:
    """Return (len(rows), candidates): the weights of the items that the user of each row met before it, summed per item."""
    length = np.minimum(rows - task.first[rows], HISTORY_MAX)
    row = np.repeat(np.arange(len(rows)), length)
    age = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length) + 1
    item = task.item[rows[row] - age]
    warm = item < len(task.candidates)
    weights = decay(age).astype(np.float32)
    shape = (len(rows), len(task.candidates))
    return sparse.csr_matrix((weights[warm], (row[warm], item[warm])), shape=shape, dtype=np.float32)


def last_only(age: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Keep the last event alone."""
    return np.asarray(age == 1, dtype=np.float64)


def halving(age: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Halve the weight with every event."""
    return np.asarray(0.5 ** (age - 1.0))


def inverse(age: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Weigh by 1 / age."""
    return np.asarray(1.0 / age)


def all_alike(age: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
    """Forget nothing."""
    return np.ones(len(age))


class Popular:
    """The items with most events before the split."""

    name = "most popular"

    def __init__(self, task: Task) -> None:
        self._scores = task.counts.astype(np.float32)

    def scores(self, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the same scores for everybody."""
        return np.broadcast_to(self._scores, (len(rows), len(self._scores)))


class HistoryItems:
    """The user's own items, the latest first: only the last one, or all of them."""

    def __init__(self, name: str, decay: Decay) -> None:
        self.name = name
        self._decay = decay

    def scores(self, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the decayed sum over the user's events of each item."""
        return np.asarray(history_matrix(task, rows, self._decay).toarray())


class ItemToItem:
    """Scores by a matrix of item against item: the user's weighted history times it."""

    def __init__(self, name: str, matrix: sparse.csr_matrix, decay: Decay) -> None:
        self.name = name
        self._matrix = matrix
        self._decay = decay

    def scores(self, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return history times matrix."""
        return np.asarray((history_matrix(task, rows, self._decay) @ self._matrix).toarray())


def co_visitation(task: Task, reach: int) -> ItemToItem:
    """Return the items that followed the user's last one, of whoever."""
    return ItemToItem("co-visitation (last item)", co_visits(task, reach), last_only)


def item_knn(task: Task, damping: float, decay: Decay) -> ItemToItem:
    """Return the items of the sessions that the user's items were in."""
    return ItemToItem("item-kNN", session_cosine(task, damping), decay)


def co_visits(task: Task, reach: int) -> sparse.csr_matrix:
    """Return (candidates, candidates): how often an event of j came up to `reach` events after one of i, weighted 1/distance.

    Events of one user before the split, with no silence of SESSION_GAP_MS between neighbours.
    """
    size = len(task.candidates)
    matrix = sparse.csr_matrix((size, size), dtype=np.float32)
    session = sessions(task)
    for distance in range(1, reach + 1):
        pairs = task.train[:-distance] & task.train[distance:] & (session[:-distance] == session[distance:])
        before = np.flatnonzero(pairs)
        weight = np.full(len(before), 1.0 / distance, dtype=np.float32)
        matrix = matrix + sparse.csr_matrix(
            (weight, (task.item[before], task.item[before + distance])), shape=(size, size), dtype=np.float32
        )
    return matrix


def sessions(task: Task) -> NDArray[np.int64]:
    """Return a session number per event: a new one per user, and after SESSION_GAP_MS of silence."""
    starts = np.ones(len(task.item), dtype=np.int64)
    starts[1:] = (np.diff(task.time_ms) > SESSION_GAP_MS) | (np.diff(task.user) != 0)
    return np.cumsum(starts) - 1


def session_cosine(task: Task, damping: float) -> sparse.csr_matrix:
    """Return (candidates, candidates): |S_i and S_j| / sqrt((|S_i| + damping) (|S_j| + damping)), S_i the sessions with i."""
    session = sessions(task)[task.train]
    item = task.item[task.train]
    shape = (int(session.max(initial=-1)) + 1, len(task.candidates))
    seen = sparse.csr_matrix((np.ones(len(item), dtype=np.float32), (session, item)), shape=shape)
    seen.data[:] = 1.0
    together = (seen.T @ seen).tocsr()
    scale = sparse.diags(1.0 / np.sqrt(np.maximum(together.diagonal(), 1.0) + damping))
    return (scale @ together @ scale).tocsr().astype(np.float32)


class Factors:
    """Implicit ALS; a user is folded in from the history, so new users and new events count."""

    name = "implicit ALS"

    def __init__(self, task: Task, factors: int, alpha: float, decay: Decay) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        shape = (int(task.user.max(initial=-1)) + 1, len(task.candidates))
        user, item = task.user[task.train], task.item[task.train]
        counts = sparse.csr_matrix((np.ones(len(item), dtype=np.float32), (user, item)), shape=shape)
        counts = counts[np.diff(counts.indptr) > 0]
        self._decay = decay
        self._model: Any = AlternatingLeastSquares(
            factors=factors, alpha=alpha, regularization=0.05, iterations=12, random_state=_SEED, num_threads=1
        )
        with threadpool_limits(limits=1, user_api="blas"):
            self._model.fit(counts, show_progress=False)

    def scores(self, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the product of the folded-in user with each item."""
        history = history_matrix(task, rows, self._decay)
        users = self._model.recalculate_user(np.arange(len(rows)), history)
        return np.asarray(users @ self._model.item_factors.T, dtype=np.float32)


Maker = Callable[[Task], Recommender]
_HALVING, _INVERSE, _ALIKE = ("1/2 per event", halving), ("1/age", inverse), ("none", all_alike)


def families() -> dict[str, dict[str, Maker]]:
    """Return, per baseline, its settings in words and how each is made from a task."""
    return {
        "most popular": {"": Popular},
        "last item": {"": lambda task: HistoryItems("last item", last_only)},
        "recent items": {"": lambda task: HistoryItems("recent items", halving)},
        "co-visitation (last item)": {f"reach {reach}": partial(co_visitation, reach=reach) for reach in (1, 3, 10)},
        "item-kNN": {
            f"damping {damping}, decay {words}": partial(item_knn, damping=damping, decay=decay)
            for damping in (0, 10, 40)
            for words, decay in (_HALVING, _INVERSE)
        },
        "implicit ALS": {
            f"{factors} factors, alpha {alpha:g}, decay {words}": partial(
                Factors, factors=factors, alpha=alpha, decay=decay
            )
            for factors, alpha in ((64, 40.0), (128, 40.0), (128, 100.0))
            for words, decay in (_HALVING, _ALIKE)
        },
    }


class Tuned(NamedTuple):
    """A baseline with the settings that did best on the validation slice."""

    settings: str
    make: Maker


def tuned(task: Task, settings: Mapping[str, Maker]) -> Tuned:
    """Return the best of `settings` on `task`: by NDCG@20 of all events and of those without repeats, added."""
    if len(settings) == 1:
        return Tuned(*next(iter(settings.items())))
    best, best_gain = "", -1.0
    for words, make in settings.items():
        metrics = sliced_metrics(task, ranks_of(make(task), task))
        gain = sum(metrics[name].ndcg for name in (SLICES[0], SLICES[2]) if metrics[name].events)
        if gain > best_gain:
            best, best_gain = words, gain
    return Tuned(best, settings[best])
