"""Signals: what a state says, worked out again from its parts; as of the event, and of nothing later."""

from __future__ import annotations

from math import log1p

import pytest

from contracts.catalogue import CatalogueItem
from contracts.events import Click, Purchase, View
from contracts.semantics import Semantics
from features.affinities import HALF_LIFE_MS
from features.fold import fold
from features.signals import NO_SIGNALS, SIGNAL_NAMES, signals_of
from features.state import UserState
from features.windows import DAY_MS, month, totals

T = 1_600_000_000_000
ITEM = CatalogueItem(
    item="kettle", list_price=4_000, currency="USD", category="kitchen", brand="Boil", title="", valid_from_ms=0
)


def event(kind, after_ms, item="kettle", **more):
    return kind(
        event_id=f"{after_ms}{kind.__name__}", user="ann", item=item, price=4_000, currency="USD",
        event_time_ms=T + after_ms, **more,
    )  # fmt: skip


def after(*events, item=ITEM):
    state = UserState()
    for one in events:
        fold(state, one, item, Semantics(consent_default=True))
    return state


def named(state, item_id="kettle", item=ITEM):
    return dict(zip(SIGNAL_NAMES, signals_of(state, item_id, item), strict=True))


def test_counts_money_and_time_are_logarithms_of_what_the_state_holds():
    state = after(
        event(View, 0, dwell_ms=900),
        event(Click, 60_000, action="add_to_cart"),
        event(Purchase, 90_000, quantity=2),
        event(View, 120_000, item="toaster"),
    )
    found = named(state)
    assert found == pytest.approx(
        {
            "views, 30 d": log1p(2), "clicks, 30 d": log1p(1), "purchases, 30 d": log1p(1), "spend, 30 d": log1p(8_000),
            "dwell, 30 d": log1p(900), "session events": log1p(4), "session items": log1p(2), "session age": log1p(120),
            "views of the item": log1p(1), "clicks on the item": log1p(1), "carts of the item": log1p(1),
            "dwell on the item": log1p(900), "affinity to the category": log1p(1 + 2 + 8 + 1),
            "affinity to the brand": log1p(1 + 2 + 8 + 1),
        },
        abs=1e-3,
    )  # fmt: skip


def test_affinities_halve_and_the_month_ends():
    state = after(event(View, 0), event(View, HALF_LIFE_MS, item="toaster"), item=ITEM)
    assert named(state)["affinity to the brand"] == pytest.approx(log1p(1.5))
    state = after(event(View, 0), event(View, 31 * DAY_MS))
    assert named(state)["views, 30 d"] == pytest.approx(log1p(1))


def test_what_nobody_knows_is_zero():
    state = after(event(View, 0), item=None)
    found = named(state, item=None)
    assert (found["affinity to the category"], found["affinity to the brand"]) == (0.0, 0.0)
    assert named(state, "never met", None)["views of the item"] == 0.0
    assert len(NO_SIGNALS) == len(SIGNAL_NAMES) == len(signals_of(UserState(), "kettle", None))


def test_a_late_event_of_a_session_that_is_over_has_signals_too():
    state = after(event(View, 86_400_000), event(View, 0, item="old"))
    assert named(state, "old")["views of the item"] == 0.0
    assert named(state, "old")["views, 30 d"] == pytest.approx(log1p(2))


def test_the_month_is_the_one_of_the_windows():
    state = after(*(event(View, at * 7_000_003, item=f"i{at}") for at in range(700)))
    for now_ms in (state.last_ms, state.last_ms + 3 * DAY_MS):
        assert month(state, now_ms) == totals(state, now_ms)[2]


def test_reading_signals_changes_nothing():
    state = after(event(View, 0), event(Click, 5))
    assert signals_of(state, "kettle", ITEM) == signals_of(state, "kettle", ITEM)
    assert state == after(event(View, 0), event(Click, 5))
