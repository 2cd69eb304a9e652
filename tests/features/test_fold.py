"""The fold by plain examples: implausible traffic and consents. tests/laws holds all of it against a recompute."""

from __future__ import annotations

import pytest

from contracts.catalogue import CatalogueItem
from contracts.events import Consent, View
from contracts.semantics import Semantics
from features.fold import Folded, fold, fold_consent
from features.state import UserState

NOW, MINUTE = 1_572_566_400_000, 60_000
SEMANTICS = Semantics(consent_default=True, events_per_minute_max=3, price_deviation_max_permille=4_000)
ITEM = CatalogueItem(item="i", valid_from_ms=0, title="", category="c", brand="b", currency="USD", list_price=1_000)


def view(event_id: str, at_ms: int = NOW, price: int = 1_000) -> View:
    return View(event_id=event_id, user="u", item="i", event_time_ms=at_ms, price=price, currency="USD")


@pytest.mark.parametrize(
    ("price", "folded"),
    [
        (249, Folded.IMPLAUSIBLE),
        (250, Folded.APPLIED),
        (4_000, Folded.APPLIED),
        (4_001, Folded.IMPLAUSIBLE),
    ],
)
def test_a_price_far_from_the_catalogues_is_implausible(price: int, folded: Folded) -> None:
    state = UserState()
    assert fold(state, view("e", price=price), ITEM, SEMANTICS) is folded
    assert state.implausible_ms == (NOW if folded is Folded.IMPLAUSIBLE else 0)


def test_a_price_of_an_unknown_item_cannot_be_implausible() -> None:
    assert fold(UserState(), view("e", price=1), None, SEMANTICS) is Folded.APPLIED


def test_more_events_in_a_minute_than_a_shopper_makes_are_implausible_and_applied() -> None:
    state = UserState()
    folded = [fold(state, view(f"e{n}", NOW + n), ITEM, SEMANTICS) for n in range(5)]
    assert folded == [Folded.APPLIED] * 3 + [Folded.IMPLAUSIBLE] * 2
    assert (state.sequence, state.history_events, state.implausible_ms) == (5, 5, NOW + 4)
    assert fold(state, view("e5", NOW + MINUTE), ITEM, SEMANTICS) is Folded.APPLIED
    assert fold(state, view("e6", NOW + 10), ITEM, SEMANTICS) is Folded.IMPLAUSIBLE, "late, into the crowded minute"
    assert state.implausible_ms == NOW + 10


def test_an_implausible_event_that_is_late_does_not_turn_the_mark_back() -> None:
    state = UserState()
    fold(state, view("e1", NOW, price=1), ITEM, SEMANTICS)
    fold(state, view("e2", NOW - MINUTE, price=1), ITEM, SEMANTICS)
    assert state.implausible_ms == NOW


def consent(granted: bool, at_ms: int) -> Consent:
    return Consent(user="u", granted=granted, event_time_ms=at_ms)


def test_the_latest_consent_by_event_time_holds_and_at_equal_times_the_later_one_applied() -> None:
    state = UserState()
    fold_consent(state, consent(True, NOW))
    fold_consent(state, consent(False, NOW - 1))
    assert state.consent is True
    fold_consent(state, consent(False, NOW))
    assert state.consent is False
    assert (state.sequence, state.last_ms) == (3, NOW)


@pytest.mark.parametrize(
    ("before", "granted", "at_ms", "withdrawn"),
    [
        (None, False, NOW, True),
        (True, False, NOW, True),
        (True, False, NOW - 1, False),
        (False, False, NOW + 1, False),
        (False, True, NOW, False),
        (None, True, NOW, False),
    ],
)
def test_a_withdrawal_is_told_once(before: bool | None, granted: bool, at_ms: int, withdrawn: bool) -> None:
    state = UserState()
    if before is not None:
        fold_consent(state, consent(before, NOW))
    assert fold_consent(state, consent(granted, at_ms)) is withdrawn
