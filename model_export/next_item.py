"""The next-item protocol: which item a user's next event is about, ranked among the same candidates for every method.

Train is everything before the split, test everything from it on. A test event is asked for if its user has an earlier
event; the answer is its item, and a method knows all earlier events of that user, those of the test hour included, and
of the other users only what lies before the split.

Candidates are the items of the events before the split and the catalogue entries in force by then. An item that is first
seen later cannot be proposed: such an event is a miss for every method, and their share is reported. Equal scores go to
the more popular item, for every method, so a method with nothing to say says what is popular; of equally popular ones to
the lower id.

*Without repeats* leaves out the events whose item is the user's last one; there, the last item is no candidate either.
Recall@k is 1 if the item stands among the first k; NDCG@k is 1 / log2(1 + rank) then, MRR@k 1 / rank, else 0. Means over
events. Not here: the methods (model_export.baselines, model_export.model_scores).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

TOP = 20
TEST_SHARE = 6
"""The last sixth of a log's time is the test, unless somebody says otherwise."""
ROWS_AT_A_TIME = 512
"""Score rows in memory at a time: times the candidates, times 4 bytes."""
_MINUTE_MS = 60_000
_LATE_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Interactions:
    """Events of a log, user by user, each user's in the order applied. Users and items are codes, from 0."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time_ms: NDArray[np.int64]
    first: NDArray[np.int64]
    """Index of the first event of the same user."""
    ids: Sequence[str]
    """Of the items, by code."""
    users: Sequence[str]
    """Ids of the users, by code."""


def interactions_of(events: Iterable[tuple[str, str, int]]) -> tuple[Interactions, NDArray[np.int64]]:
    """Return the interactions of (user, item, event time in ms), given in the order applied, and the place of each in it."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    columns = np.array(
        [(users.setdefault(u, len(users)), items.setdefault(i, len(items)), t) for u, i, t in events], dtype=np.int64
    ).reshape(-1, 3)
    order = np.argsort(columns[:, 0], kind="stable")
    user, item, time_ms = columns[order].T
    first = np.searchsorted(user, user, side="left")
    return Interactions(
        user.astype(np.int32), item.astype(np.int32), time_ms.copy(), first, list(items), list(users)
    ), order


def default_split_ms(log: Interactions) -> int:
    """Return the start of the last sixth of the time that the events span, rounded to a whole minute."""
    first_ms, last_ms = int(log.time_ms.min(initial=_LATE_MS)), int(log.time_ms.max(initial=0))
    split_ms = last_ms - (last_ms - first_ms) // TEST_SHARE
    return (split_ms + _MINUTE_MS // 2) // _MINUTE_MS * _MINUTE_MS


@dataclass(frozen=True, slots=True)
class Task:
    """One split of a log. Items are places in `candidates`, by falling popularity in `train`; beyond them, cold."""

    item: NDArray[np.int64]
    user: NDArray[np.int32]
    first: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    train: NDArray[np.bool_]
    """Events that a method may learn from."""
    rows: NDArray[np.int64]
    """Events to predict."""
    candidates: Sequence[str]
    counts: NDArray[np.int64]
    """Events of each candidate in `train`."""
    new_user: NDArray[np.bool_]
    """Per row: its user has no event in `train`."""

    @property
    def last(self) -> NDArray[np.int64]:
        """The item of the event before each row."""
        return self.item[self.rows - 1]

    @property
    def target(self) -> NDArray[np.int64]:
        """The item of each row."""
        return self.item[self.rows]


def task_of(log: Interactions, split_ms: int, until_ms: int, known: Iterable[str] = ()) -> Task:
    """Return the task of predicting the events of [split_ms, until_ms).

    Args:
        log: all events.
        split_ms: end of what a method may learn from, event time.
        until_ms: end of the test events.
        known: items of the catalogue in force by `split_ms`, seen or not.
    """
    between = (log.time_ms >= split_ms) & (log.time_ms < until_ms)
    return task_between(log, log.time_ms < split_ms, between, known)


def task_between(
    log: Interactions, train: NDArray[np.bool_], tested: NDArray[np.bool_], known: Iterable[str] = ()
) -> Task:
    """Return the task of predicting the events `tested` (n,) by methods that learn from those of `train` (n,).

    Among equally popular candidates order is by id, which nobody's events have a say in.

    Args:
        log: all events.
        train: which of them a method may learn from.
        tested: which to predict; those that are their user's first are left out.
        known: items of the catalogue that are candidates, met or not.
    """
    code = {item: place for place, item in enumerate(log.ids)}
    ids = list(log.ids) + sorted({item for item in known if item not in code})
    counts = np.bincount(log.item[train], minlength=len(ids))
    is_known = counts > 0
    is_known[[code.get(item, len(ids) - 1) for item in known]] = True
    is_known[len(log.ids) :] = True
    order = np.lexsort((np.array(ids, dtype=np.str_), -counts, ~is_known))
    place = np.empty(len(ids), dtype=np.int64)
    place[order] = np.arange(len(ids))
    known_count = int(is_known.sum())
    index = np.arange(len(log.item))
    rows = np.flatnonzero(tested & (index > log.first))
    seen = np.zeros(int(log.user.max(initial=-1)) + 1, dtype=bool)
    seen[log.user[train]] = True
    return Task(
        item=place[log.item],
        user=log.user,
        first=log.first,
        time_ms=log.time_ms,
        train=train,
        rows=rows,
        candidates=[ids[code] for code in order[:known_count]],
        counts=counts[order[:known_count]],
        new_user=~seen[log.user[rows]],
    )


class Recommender(Protocol):
    """A method: a score for each candidate, the higher the likelier."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    def scores(self, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (len(rows), candidates) scores of the item of each event, from the events of its user before it."""


class Ranks(NamedTuple):
    """The rank of the right item per row of a task, from 1; of a cold one, beyond all candidates."""

    among_all: NDArray[np.int64]
    without_last: NDArray[np.int64]
    """The same with the user's last item out of the candidates; meaningless where that is the answer."""


def ranks_of(method: Recommender, task: Task) -> Ranks:
    """Return the ranks that `method` gives to the right items."""
    size = len(task.candidates)
    among_all = np.full(len(task.rows), size + 1, dtype=np.int64)
    without_last = among_all.copy()
    warm = np.flatnonzero(task.target < size)
    for start in range(0, len(warm), ROWS_AT_A_TIME):
        part = warm[start : start + ROWS_AT_A_TIME]
        rows = task.rows[part]
        target, last = task.item[rows], task.item[rows - 1]
        scores = method.scores(task, rows)
        own = scores[np.arange(len(rows)), target][:, None]
        rank = 1 + np.count_nonzero(scores > own, axis=1)
        rank += np.count_nonzero((scores == own) & (np.arange(size) < target[:, None]), axis=1)
        of_last = scores[np.arange(len(rows)), np.minimum(last, size - 1)]
        before = (last < size) & ((of_last > own[:, 0]) | ((of_last == own[:, 0]) & (last < target)))
        among_all[part], without_last[part] = rank, rank - before
    return Ranks(among_all, without_last)


class Metrics(NamedTuple):
    """Means over `events` events."""

    recall: float
    ndcg: float
    mrr: float
    events: int
    error: float
    """Standard error of the recall, with the events of a user as one cluster; of the other two it is about that or less."""


def metrics_of(rank: NDArray[np.int64], user: NDArray[np.int32]) -> Metrics:
    """Return Recall@20, NDCG@20 and MRR@20 of one right item per event; NaN of no events."""
    if not len(rank):
        return Metrics(float("nan"), float("nan"), float("nan"), 0, float("nan"))
    hit = rank <= TOP
    gain = np.where(hit, 1.0 / np.log2(1.0 + rank), 0.0)
    recall = float(hit.mean())
    surplus = np.bincount(user, weights=hit - recall)
    error = float(np.sqrt(np.square(surplus).sum())) / len(rank)
    return Metrics(recall, float(gain.mean()), float(np.where(hit, 1.0 / rank, 0.0).mean()), len(rank), error)


SLICES = ("all users", "new users", "all users, without repeats", "new users, without repeats")


def sliced_metrics(task: Task, ranks: Ranks) -> dict[str, Metrics]:
    """Return the metrics of each of SLICES."""
    moved = task.target != task.last
    users = (np.ones(len(task.rows), dtype=bool), task.new_user)
    chosen = [(ranks.among_all, rows) for rows in users] + [(ranks.without_last, rows & moved) for rows in users]
    found = [metrics_of(rank[rows], task.user[task.rows[rows]]) for rank, rows in chosen]
    return dict(zip(SLICES, found, strict=True))
