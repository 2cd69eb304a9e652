"""The ring of recent ids, at its edge."""

from __future__ import annotations

from contracts.events import View
from contracts.semantics import Semantics
from features.fold import Folded, fold
from features.recent import holds, remember
from features.state import UserState, encode_state

SEMANTICS = Semantics(consent_default=True, recent_ids_max=64)


def view(event_id: str) -> View:
    return View(event_id=event_id, user="u", item="i", event_time_ms=1_572_566_400_000, price=1, currency="USD")


def test_a_repeat_within_the_ring_changes_nothing_and_one_beyond_it_is_applied() -> None:
    state = UserState()
    for number in range(64):
        assert fold(state, view(f"e{number}"), None, SEMANTICS) is Folded.APPLIED
    before = encode_state(state)
    assert fold(state, view("e0"), None, SEMANTICS) is Folded.REPEATED
    assert encode_state(state) == before
    assert fold(state, view("e64"), None, SEMANTICS) is Folded.APPLIED
    assert fold(state, view("e1"), None, SEMANTICS) is Folded.REPEATED
    assert fold(state, view("e0"), None, SEMANTICS) is Folded.APPLIED
    assert state.sequence == 66


def test_bytes_that_straddle_two_ids_are_no_match() -> None:
    ring = bytes(range(24))
    assert holds(ring, bytes(range(8, 16)))
    assert not holds(ring, bytes(range(4, 12)))
    assert not holds(ring, bytes(range(1, 9)))
    assert not holds(b"", bytes(8))


def test_an_id_is_found_behind_a_match_that_straddles() -> None:
    assert holds(bytes([0, 1, 1, 1, 1, 1, 1, 1]) + bytes([1] * 8), bytes([1] * 8))
    assert not holds(bytes([0, 1, 1, 1, 1, 1, 1, 1]) + bytes([1] * 7 + [0]), bytes([1] * 8))


def test_a_smaller_setting_cuts_the_ring_with_the_next_event() -> None:
    assert remember(bytes(range(24)), b"newest!!", ids_max=2) == bytes(range(16, 24)) + b"newest!!"
    assert remember(bytes(range(24)), b"newest!!", ids_max=1) == b"newest!!"
