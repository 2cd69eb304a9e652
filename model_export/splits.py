"""Which events methods learn from, which their settings are chosen on, and which they are tested on: once, or in folds.

By time, from a rolling origin: the log's events are cut at K + 1 parts of equally many, and fold k learns from parts 1 to k
and is tested on part k + 1. By user: a hash of the user names their fold, and fold k learns from the users of the others, all
of their time, and is tested on its own, who are new to what has learned. The slice that settings and early stopping are
chosen on is the end, in time, of what may be learned from.

What crosses a split, by intention: an event's user may have events on both sides of a cut in time, and a method knows
all earlier events of the user whom it is asked about; the catalogue, as of the time up to which is learned; in time, of
an event that arrived late, the gap and the counts of its user's state when it was applied, as in a worker. Nothing else. Not
here: the events (observed), what is made of a split (evaluation, crossvalidation).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadInput
from contracts.ids import user_hash
from model_export.next_item import Interactions

_ONE_SPLIT = "choose another --test-from"
_FOLDS = "use fewer --folds, or a longer log"


@dataclass(frozen=True, slots=True)
class Split:
    """One split of n events."""

    learned: NDArray[np.bool_]
    """(n,): what may be learned from, validation included."""
    tested: NDArray[np.bool_]
    """(n,): none of them among `learned`."""
    validation_ms: int
    """Where, in `learned`, validation begins."""
    learned_until_ms: int
    """Where learning ends, event time: items of the catalogue are known as of then, and windows of purchases are over."""
    tested_from_ms: int
    tested_until_ms: int
    remedy: str
    """What to do if there is too little on one of its sides."""


def split_at(events: Interactions, split_ms: int, until_ms: int, remedy: str = _ONE_SPLIT) -> Split:
    """Return the split that learns from what lies before `split_ms` and is tested on [split_ms, until_ms).

    Validation is as long as the test, at most half of what lies before the split.
    """
    first_ms = int(events.time_ms.min(initial=split_ms))
    return Split(
        learned=events.time_ms < split_ms,
        tested=(events.time_ms >= split_ms) & (events.time_ms < until_ms),
        validation_ms=max(2 * split_ms - until_ms, (first_ms + split_ms) // 2),
        learned_until_ms=split_ms,
        tested_from_ms=split_ms,
        tested_until_ms=until_ms,
        remedy=remedy,
    )


def folds_in_time(events: Interactions, folds: int) -> list[Split]:
    """Return `folds` splits of a rolling origin, whose tests follow one another up to the last event.

    Raises:
        BadInput: fewer than two folds, or too few different times to cut at.
    """
    _require_folds(folds)
    times = np.sort(events.time_ms)
    edges = times[np.arange(folds + 1) * len(times) // (folds + 1)].tolist() if len(times) else []
    if len(set(edges)) < folds + 1:
        raise BadInput(
            f"{folds} folds in time need {folds + 1} parts of the log, one after another, and its {len(times)} events, at "
            f"{len(np.unique(times))} different times, cannot be cut so often: use fewer --folds, or a longer log"
        )
    cuts = [*edges[1:], int(times[-1]) + 1]
    return [split_at(events, cut, end, _FOLDS) for cut, end in pairwise(cuts)]


def folds_of_users(events: Interactions, folds: int, validation: float) -> list[Split]:
    """Return `folds` splits by user; `validation` is the share of the learners' time, at its end, to choose settings on.

    Raises:
        BadInput: fewer than two folds, or one that no user falls into.
    """
    _require_folds(folds)
    fold = np.array([fold_of(user, folds) for user in events.users], dtype=np.int64)
    empty = [str(one + 1) for one in range(folds) if not (fold == one).any()]
    if empty:
        raise BadInput(
            f"The log has {len(fold)} users, and none of them falls into fold {', '.join(empty)} of {folds}: use fewer "
            "--folds, or a log of more users"
        )
    splits = []
    for one in range(folds):
        tested = fold[events.user] == one
        times = events.time_ms[~tested]
        until_ms = int(times.max()) + 1
        splits.append(
            Split(
                learned=~tested,
                tested=tested,
                validation_ms=until_ms - int((until_ms - int(times.min())) * validation),
                learned_until_ms=until_ms,
                tested_from_ms=int(events.time_ms[tested].min()),
                tested_until_ms=int(events.time_ms[tested].max()) + 1,
                remedy=_FOLDS,
            )
        )
    return splits


def fold_of(user: str, folds: int) -> int:
    """Return the fold of a user, 0..folds - 1: the same in every log, and no matter on which partition."""
    return int.from_bytes(user_hash(user.encode("utf-8", "surrogatepass")), "big") % folds


def _require_folds(folds: int) -> None:
    if folds < 2:
        raise BadInput(f"--folds {folds}: a mean with a spread needs at least 2")
