"""Affinities decay by half every HALF_LIFE_MS, and the weakest makes room."""

from __future__ import annotations

import pytest

from contracts.catalogue import CatalogueItem
from contracts.events import Click, Purchase, View
from features.affinities import AFFINITIES_MAX, HALF_LIFE_MS, strengthen, weights_at
from features.state import UserState

NOW = 1_572_566_400_000
YEAR_2000, YEAR_2100 = 946_684_800_000, 4_102_444_800_000


def do(state: UserState, category: str, at_ms: int = NOW, kind: type = View, brand: str = "") -> None:
    event = kind(event_id="e", user="u", item="i", event_time_ms=at_ms, price=1, currency="USD")
    item = CatalogueItem(
        item="i", valid_from_ms=0, title="", category=category, brand=brand, currency="USD", list_price=1
    )
    strengthen(state, event, item)


def test_a_weight_halves_with_every_half_life_and_purchases_weigh_most() -> None:
    state = UserState()
    do(state, "shoes", brand="acme")
    do(state, "hats", kind=Click)
    do(state, "coats", kind=Purchase)
    assert weights_at(state, NOW) == ({"shoes": 1.0, "hats": 2.0, "coats": 8.0}, {"acme": 1.0})
    assert weights_at(state, NOW + 3 * HALF_LIFE_MS)[0] == {"shoes": 0.125, "hats": 0.25, "coats": 1.0}


def test_the_order_of_arrival_does_not_matter_to_a_weight() -> None:
    early, late = UserState(), UserState()
    times = [NOW, NOW + HALF_LIFE_MS // 3, NOW + 5 * HALF_LIFE_MS]
    for at_ms in times:
        do(early, "shoes", at_ms)
    for at_ms in reversed(times):
        do(late, "shoes", at_ms)
    now = times[-1]
    assert weights_at(early, now)[0] == pytest.approx(weights_at(late, now)[0])


def test_the_weakest_makes_room_and_of_equal_ones_the_first() -> None:
    state = UserState()
    for number in range(AFFINITIES_MAX):
        do(state, f"c{number}", NOW + (number != 3))
    do(state, "new", NOW + 2)
    assert "c3" not in state.categories
    do(state, "newer", NOW + 2)
    assert "c0" not in state.categories
    assert len(state.categories) == AFFINITIES_MAX


def test_an_item_without_category_or_brand_strengthens_nothing() -> None:
    state = UserState()
    do(state, "", brand="")
    assert weights_at(state, NOW) == ({}, {})


def test_a_century_of_one_user_neither_overflows_nor_forgets_the_present() -> None:
    state = UserState()
    step = (YEAR_2100 - YEAR_2000) // 700
    for at_ms in range(YEAR_2000, YEAR_2100, step):
        do(state, "shoes", at_ms)
    expected = sum(0.5 ** (n * step / HALF_LIFE_MS) for n in range(100))
    assert weights_at(state, at_ms)[0]["shoes"] == pytest.approx(expected)


def test_times_a_century_apart_are_no_error_in_either_order() -> None:
    state = UserState()
    do(state, "shoes", YEAR_2000)
    do(state, "hats", YEAR_2100)
    do(state, "coats", YEAR_2000)
    assert weights_at(state, YEAR_2100)[0] == {"shoes": 0.0, "hats": 1.0, "coats": 0.0}
