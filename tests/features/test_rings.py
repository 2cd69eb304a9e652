"""Rows of the slab: bounded, the least recently used user loses theirs, owners do not meet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from features.rings import NOTHING, Rings


@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=60))
def test_the_users_taken_last_have_rows_of_their_own_and_keep_what_was_noted(rows, taken):
    rings = Rings(rows)
    noted: list[int] = []  # the naive twin: users by last use
    for time_ms, user in enumerate(taken, 1):
        ring = rings.take((None, bytes([user])))
        kept = user in noted[-rows:]
        assert (ring.position == NOTHING) is not kept
        assert kept is (ring.time_ms != 0)
        noted = [other for other in noted if other != user] + [user]
        ring.position, ring.time_ms = user, time_ms
    resident = [rings.take((None, bytes([user]))).row for user in noted[-rows:]]
    assert len(set(resident)) == len(resident) == len(rings)
    assert set(resident) <= set(range(rows))


def test_owners_have_rings_of_their_own_and_release_only_theirs():
    rings = Rings(4)
    for owner in ("a", "b"):
        rings.take((owner, b"u")).position = 3
    rings.release("a")
    assert len(rings) == 1
    assert rings.take(("b", b"u")).position == 3
    assert rings.take(("a", b"u")).position == NOTHING


def test_the_ring_of_a_forgotten_user_is_given_to_the_next_one():
    rings = Rings(1)
    rings.take(("a", b"u")).position = 3
    rings.forget(("a", b"u"))
    rings.forget(("a", b"nobody"))
    assert len(rings) == 0
    assert rings.take(("a", b"u")).position == NOTHING
    assert rings.evicted == 0


def test_released_rows_are_given_out_again_before_anybody_loses_theirs():
    rings = Rings(2)
    rings.take(("a", b"u"))
    rings.take(("b", b"u"))
    rings.release("a")
    rings.take(("b", b"v"))
    assert rings.evicted == 0
    rings.take(("b", b"w"))
    assert (rings.evicted, len(rings)) == (1, 2)
