"""The baselines against counting by hand, and that each finds what it is made to find."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_export.baselines import (
    SESSION_GAP_MS,
    Factors,
    HistoryItems,
    Popular,
    all_alike,
    co_visitation,
    co_visits,
    families,
    halving,
    history_matrix,
    session_cosine,
    tuned,
)
from model_export.next_item import interactions_of, ranks_of, sliced_metrics, task_of

SPLIT = 10 * SESSION_GAP_MS
steps = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcde"), st.integers(0, 3)), min_size=2, max_size=30
)


def log_of(done):
    """Events of users who wait 0, 0.5, 1 or 1.5 session gaps before each."""
    now: dict[str, int] = {}
    events = []
    for user, item, waits in done:
        now[user] = now.get(user, 0) + waits * SESSION_GAP_MS // 2
        events.append((user, item, now[user]))
    return events


def sessions_by_hand(events):
    """Return the items of each session before the split, in order."""
    sessions = []
    for user in dict.fromkeys(user for user, _, _ in events):
        own = [(item, at) for who, item, at in events if who == user and at < SPLIT]
        for place, (item, at) in enumerate(own):
            if place == 0 or at - own[place - 1][1] > SESSION_GAP_MS:
                sessions.append([])
            sessions[-1].append(item)
    return sessions


@given(steps, st.integers(1, 3))
def test_co_visits_are_counted_by_distance_within_a_session(done, reach) -> None:
    events = log_of(done)
    task = task_of(interactions_of(events)[0], SPLIT, 2 * SPLIT)
    found = co_visits(task, reach).toarray()
    for row, before in enumerate(task.candidates):
        for column, after in enumerate(task.candidates):
            wanted = sum(
                1 / distance
                for session in sessions_by_hand(events)
                for distance in range(1, reach + 1)
                for left, right in zip(session, session[distance:], strict=False)
                if (left, right) == (before, after)
            )
            assert found[row, column] == pytest.approx(wanted)


@given(steps, st.sampled_from([0.0, 20.0]))
def test_the_cosine_of_items_is_over_sessions(done, damping) -> None:
    events = log_of(done)
    task = task_of(interactions_of(events)[0], SPLIT, 2 * SPLIT)
    found = session_cosine(task, damping).toarray()
    sessions = [set(session) for session in sessions_by_hand(events)]
    for row, one in enumerate(task.candidates):
        for column, other in enumerate(task.candidates):
            having = [sum(item in session for session in sessions) for item in (one, other)]
            both = sum(one in session and other in session for session in sessions)
            assert found[row, column] == pytest.approx(both / sqrt((having[0] + damping) * (having[1] + damping)))


@given(steps)
def test_a_history_weighs_what_a_user_met_before_by_its_age(done) -> None:
    events = log_of(done)
    interactions, _ = interactions_of(events)
    task = task_of(interactions, SPLIT, 2 * SPLIT, known="abcde")
    rows = np.flatnonzero(np.arange(len(task.item)) > task.first)
    found = history_matrix(task, rows, halving).toarray()
    ordered = [
        [item for who, item, _ in events if who == user] for user in dict.fromkeys(user for user, _, _ in events)
    ]
    expected = []
    for own in ordered:
        for place in range(1, len(own)):
            weights = dict.fromkeys(task.candidates, 0.0)
            for age, item in enumerate(reversed(own[:place]), 1):
                weights[item] += 0.5 ** (age - 1)
            expected.append([weights[item] for item in task.candidates])
    assert found.tolist() == expected


def two_tastes():
    """Users of one taste meet a, b, c again and again, those of the other x, y, z; then new users come."""
    events = []
    for number in range(40):
        for step, item in enumerate("abcab" if number % 2 else "xyzxy"):
            events.append((f"old-{number}", item, step * 1000))
    for number, (first, second) in enumerate([("a", "b"), ("x", "y"), ("b", "c"), ("y", "z")]):
        events += [(f"new-{number}", first, SPLIT), (f"new-{number}", second, SPLIT + 1000)]
    return task_of(interactions_of(events)[0], SPLIT, 2 * SPLIT)


@pytest.mark.parametrize(
    "make",
    [
        lambda task: Factors(task, 2, 20.0, all_alike),
        lambda task: co_visitation(task, 3),
        families()["item-kNN"]["damping 10, decay 1/2 per event"],
    ],
    ids=["implicit ALS", "co-visitation", "item-kNN"],
)
def test_a_new_user_is_understood_from_one_event(make) -> None:
    task = two_tastes()
    assert task.new_user.all()
    scores = make(task).scores(task, task.rows)
    for row, first in enumerate("axby"):
        mine = "abc" if first in "abc" else "xyz"
        worst = min(scores[row][task.candidates.index(item)] for item in mine)
        best = max(scores[row][task.candidates.index(item)] for item in set("abcxyz") - set(mine))
        assert worst > best


def test_the_last_item_is_first_and_then_come_the_recent_ones_and_the_popular() -> None:
    events = (
        [(f"old-{number}", "p", 0) for number in range(5)] + [("u", item, 0) for item in "abc"] + [("u", "p", SPLIT)]
    )
    task = task_of(interactions_of(events)[0], SPLIT, 2 * SPLIT)
    rank = {
        name: ranks_of(families()[name][""](task), task).among_all.tolist()
        for name in ("most popular", "last item", "recent items")
    }
    assert rank == {"most popular": [1], "last item": [2], "recent items": [4]}


def test_factors_do_not_depend_on_the_run() -> None:
    task = two_tastes()
    first, again = (Factors(task, 4, 5.0, halving).scores(task, task.rows) for _ in range(2))
    assert np.array_equal(first, again)


def test_the_settings_that_do_best_on_the_slice_are_chosen() -> None:
    task = two_tastes()
    choices = {"nothing": Popular, "neighbours": lambda task: co_visitation(task, 1), "nothing again": Popular}
    assert tuned(task, choices).settings == "neighbours"


def test_settings_are_chosen_where_every_event_repeats_the_last_item() -> None:
    task = task_of(interactions_of([("u", "a", at) for at in range(6)])[0], 3, 6)
    choices = {"popular": Popular, "nothing": lambda task: HistoryItems("nothing", all_alike)}
    assert tuned(task, choices).settings == "popular"


def test_every_family_gives_a_score_to_every_candidate() -> None:
    task = two_tastes()
    for name, choices in families().items():
        for make in choices.values():
            method = make(task)
            assert method.name == name
            assert method.scores(task, task.rows).shape == (len(task.rows), len(task.candidates))
            metrics = sliced_metrics(task, ranks_of(method, task)).values()
            assert all(one.mrr <= one.ndcg <= one.recall for one in metrics)


def test_the_sessions_of_the_twin_are_what_it_says() -> None:
    events = log_of([("u", "a", 0), ("u", "b", 2), ("u", "c", 3)])
    assert sessions_by_hand(events) == [["a", "b"], ["c"]]
    assert [later - earlier for (_, _, earlier), (_, _, later) in pairwise(events)] == [
        SESSION_GAP_MS,
        SESSION_GAP_MS * 3 // 2,
    ]
