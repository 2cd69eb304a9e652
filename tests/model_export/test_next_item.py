"""The next-item protocol against a twin that sorts lists, one event at a time."""

from __future__ import annotations

from itertools import pairwise
from math import log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.next_item import SLICES, interactions_of, metrics_of, ranks_of, sliced_metrics, task_of

SPLIT, UNTIL = 50, 80
KNOWN = ["a", "shelf warmer"]


class Fixed:
    """Scores by a table: item of the event before, candidate; many of them equal."""

    name = "fixed"

    def scores(self, task, rows):
        last = [task.candidates[item] if item < len(task.candidates) else "?" for item in task.item[rows - 1]]
        return np.array([[score_of(one, other) for other in task.candidates] for one in last], dtype=np.float32)


def score_of(last, candidate):
    return (ord(last[0]) * 7 + ord(candidate[0])) % 3


events = st.lists(
    st.tuples(st.sampled_from("uvwx"), st.sampled_from("abcdef"), st.integers(0, 99)), min_size=1, max_size=40
)


def expected_by_sorting(log):
    """Return (all, new user, repeat, rank, rank without the last) per test event, users in order of first sight."""
    before = [item for _, item, at in log if at < SPLIT]
    candidates = sorted({*before, *KNOWN})
    popularity = {item: before.count(item) for item in candidates}
    out = []
    for user in dict.fromkeys(user for user, _, _ in log):
        own = [(item, at) for who, item, at in log if who == user]
        old = any(at < SPLIT for _, at in own)
        for (last, _), (item, at) in pairwise(own):
            if SPLIT <= at < UNTIL:
                known_last = last if last in candidates else "?"
                order = sorted(
                    candidates,
                    key=lambda one: (-score_of(known_last, one), -popularity[one], one),
                )
                rank = order.index(item) + 1 if item in candidates else len(candidates) + 1
                others = [one for one in order if one != last]
                without = others.index(item) + 1 if item in others else None
                out.append((not old, item == last, rank, without))
    return out


@given(events)
def test_candidates_events_and_ranks_are_those_of_sorted_lists(log) -> None:
    interactions, _ = interactions_of(log)
    task = task_of(interactions, SPLIT, UNTIL, KNOWN)
    expected = expected_by_sorting(log)
    assert set(task.candidates) == {item for _, item, at in log if at < SPLIT} | set(KNOWN)
    ranks = ranks_of(Fixed(), task)
    assert task.new_user.tolist() == [new for new, _, _, _ in expected]
    assert ranks.among_all.tolist() == [rank for _, _, rank, _ in expected]
    moved = [
        (got, wanted) for got, (_, repeat, _, wanted) in zip(ranks.without_last, expected, strict=True) if not repeat
    ]
    assert all(got == wanted for got, wanted in moved if wanted is not None)
    assert all(got > len(task.candidates) for got, wanted in moved if wanted is None)
    by_slice = sliced_metrics(task, ranks)
    assert [by_slice[name].events for name in SLICES] == [
        len(expected),
        sum(new for new, _, _, _ in expected),
        sum(not repeat for _, repeat, _, _ in expected),
        sum(new and not repeat for new, repeat, _, _ in expected),
    ]


def test_metrics_are_means_of_one_right_item() -> None:
    found = metrics_of(np.array([1, 2, 20, 21]), np.array([0, 1, 2, 3], dtype=np.int32))
    assert found.recall == 3 / 4
    assert found.ndcg == pytest.approx((1 + 1 / log2(3) + 1 / log2(21)) / 4)
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 20) / 4)
    assert found.error == pytest.approx(np.sqrt(3 * 0.25**2 + 0.75**2) / 4)


def test_the_standard_error_takes_a_user_as_one_observation() -> None:
    rank = np.array([1, 1, 1, 99, 99, 99])
    apart = metrics_of(rank, np.arange(6, dtype=np.int32))
    together = metrics_of(rank, np.array([0, 0, 0, 1, 1, 1], dtype=np.int32))
    assert together.error == pytest.approx(apart.error * np.sqrt(3))


def test_no_events_have_no_metrics() -> None:
    found = metrics_of(np.array([], dtype=np.int64), np.array([], dtype=np.int32))
    assert found.events == 0
    assert np.isnan(found.recall)


def test_interactions_stand_user_by_user_in_the_order_applied() -> None:
    interactions, order = interactions_of([("u", "a", 5), ("v", "b", 4), ("u", "c", 3)])
    assert order.tolist() == [0, 2, 1]
    assert [interactions.ids[item] for item in interactions.item] == ["a", "c", "b"]
    assert interactions.time_ms.tolist() == [5, 3, 4]
    assert interactions.first.tolist() == [0, 0, 2]
