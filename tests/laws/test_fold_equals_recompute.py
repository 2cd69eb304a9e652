"""Laws of the fold, on any sequence of events: late, repeated, implausible, with consents among them."""

from __future__ import annotations

from collections.abc import Iterator

import naive_fold as naive
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.catalogue import CatalogueItem
from contracts.events import Click, Consent, Purchase, View
from contracts.semantics import Semantics
from features import affinities
from features import session as sessions
from features.fold import Folded, fold, fold_consent
from features.state import UserState, decode_state, encode_state
from features.tokens import tokens
from features.windows import totals

START_MS = 1_572_566_400_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
FEW = 3
"""Bound of affinities and session items here: small, so that short histories cross it."""
SEMANTICS = Semantics(consent_default=True, recent_ids_max=4, history_events_max=5, events_per_minute_max=2)
ITEMS = {
    f"i{n}": CatalogueItem(
        item=f"i{n}",
        valid_from_ms=0,
        title="",
        category=["", "a", "b", "c", "d"][n % 5],
        brand=["x", "y", "z", "w", ""][n % 5],
        currency="USD",
        list_price=100 * (n + 1),
    )
    for n in range(7)
}
UNKNOWN = "not in the catalogue"

Steps = st.sampled_from(
    [
        0,
        0,
        0,
        1,
        900,
        MINUTE,
        7 * MINUTE,
        30 * MINUTE,
        30 * MINUTE + 1,
        HOUR,
        23 * HOUR,
        DAY,
        8 * DAY,
        29 * DAY,
        30 * DAY,
    ]
)
"""Tile and session edges, as START_MS is a midnight."""


@pytest.fixture(autouse=True, scope="module")
def small_bounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(affinities, "AFFINITIES_MAX", FEW)
        patch.setattr(sessions, "SESSION_ITEMS_MAX", FEW)
        yield


@st.composite
def arrivals(draw: st.DrawFn) -> list[naive.Arrival]:
    now_ms, out = START_MS, []
    for _ in range(draw(st.integers(1, 30))):
        now_ms += draw(Steps)
        at_ms = max(START_MS - 40 * DAY, now_ms - draw(st.sampled_from([0, 0, 0, 1, 2, 40])) * draw(Steps))
        if draw(st.integers(0, 7)) == 0:
            out.append((Consent(user="u", granted=draw(st.booleans()), event_time_ms=at_ms), None))
            continue
        fields = {
            "event_id": f"e{draw(st.integers(0, 20))}",
            "user": "u",
            "item": draw(st.sampled_from([*ITEMS, UNKNOWN])),
            "event_time_ms": at_ms,
            "price": draw(st.sampled_from([20, 100, 400, 401, 700, 3000])),
            "currency": "USD",
            "dwell_ms": draw(st.sampled_from([None, 0, 1500])),
            "query": draw(st.sampled_from([None, "", "shoes"])),
        }
        kind = draw(st.sampled_from([View, View, Click, Purchase]))
        if kind is Click:
            fields["action"] = draw(st.sampled_from(["click", "add_to_cart", "remove_from_cart"]))
        if kind is Purchase:
            fields["quantity"] = draw(st.integers(1, 3))
        out.append((kind(**fields), ITEMS.get(fields["item"])))
    return out


def apply(state: UserState, arrival: naive.Arrival) -> Folded | bool:
    event, item = arrival
    if isinstance(event, Consent):
        return fold_consent(state, event)
    return fold(state, event, item, SEMANTICS)


@settings(max_examples=400)
@given(arrivals(), Steps)
def test_the_fold_equals_a_recompute_over_the_whole_history(history: list[naive.Arrival], later_ms: int) -> None:
    state = UserState()
    for arrival in history:
        apply(state, arrival)
    kept = naive.applied(history, SEMANTICS)
    now_ms = max(event.event_time_ms for event, _ in kept) + later_ms

    assert state.sequence == len(kept)
    assert state.last_ms == now_ms - later_ms
    assert state.consent == naive.consent(kept)
    windows = ((MINUTE, 60), (HOUR, 24), (DAY, 30))
    assert totals(state, now_ms) == tuple(naive.window(kept, now_ms, tile_ms, tiles) for tile_ms, tiles in windows)
    assert list(tokens(state.history)) == naive.tokens(kept, SEMANTICS)
    assert state.history_events == len(naive.tokens(kept, SEMANTICS))
    assert state.tokens == len(naive.shop(kept))
    categories, brands = affinities.weights_at(state, now_ms)
    assert categories == pytest.approx(naive.affinities(kept, "category", now_ms, FEW))
    assert brands == pytest.approx(naive.affinities(kept, "brand", now_ms, FEW))
    session = naive.session(kept, SEMANTICS)
    times = [event.event_time_ms for event in session] or [0]
    assert (state.session_start_ms, state.session_last_ms) == (min(times), max(times))
    assert (state.session_events, state.session_searches) == (len(session), sum(bool(event.query) for event in session))
    touched = [(item, did.views, did.clicks, did.carts, did.dwell_ms) for item, did in state.session_items.items()]
    assert touched == naive.session_items(session, FEW)
    assert state.implausible_ms == max(naive.implausible(kept, SEMANTICS), default=0)


@given(arrivals())
def test_the_fold_says_which_events_are_repeated_and_which_are_implausible(history: list[naive.Arrival]) -> None:
    state, kept = UserState(), []
    for arrival in history:
        before = encode_state(state)
        folded = apply(state, arrival)
        if isinstance(arrival[0], Consent):
            kept.append(arrival)
        elif len(naive.applied([*kept, arrival], SEMANTICS)) == len(kept):
            assert folded is Folded.REPEATED
            assert encode_state(state) == before
        else:
            marked = len(naive.implausible(kept, SEMANTICS))
            kept.append(arrival)
            expected = Folded.IMPLAUSIBLE if len(naive.implausible(kept, SEMANTICS)) > marked else Folded.APPLIED
            assert folded is expected


@given(arrivals(), st.sets(st.integers(0, 30)))
def test_storing_a_state_between_any_two_events_changes_nothing(history: list[naive.Arrival], stored: set[int]) -> None:
    straight, interrupted = UserState(), UserState()
    for place, arrival in enumerate(history):
        if place in stored:
            interrupted = decode_state(encode_state(interrupted))
        assert apply(straight, arrival) == apply(interrupted, arrival)
    assert encode_state(straight) == encode_state(interrupted)
