"""Sessions: where they begin, what they count, which items they remember."""

from __future__ import annotations

from contracts.events import Click, View
from features.session import SESSION_ITEMS_MAX, visit
from features.state import SessionItem, UserState

NOW, GAP = 1_572_566_400_000, 1_800_000


def view(item: str, at_ms: int, query: str | None = None, dwell_ms: int | None = None) -> View:
    return View(
        event_id="e", user="u", item=item, event_time_ms=at_ms, price=1, currency="USD", query=query, dwell_ms=dwell_ms
    )


def click(item: str, action: str) -> Click:
    return Click(event_id="e", user="u", item=item, event_time_ms=NOW, price=1, currency="USD", action=action)


def test_silence_longer_than_the_gap_ends_a_session_and_exactly_the_gap_does_not() -> None:
    state = UserState()
    visit(state, view("a", NOW, query="shoes"), GAP)
    visit(state, view("a", NOW + GAP), GAP)
    assert (state.session_start_ms, state.session_events, state.session_searches) == (NOW, 2, 1)
    visit(state, view("b", NOW + 2 * GAP + 1), GAP)
    assert (state.session_start_ms, state.session_events, state.session_searches) == (NOW + 2 * GAP + 1, 1, 0)
    assert list(state.session_items) == ["b"]


def test_a_late_event_joins_the_session_it_is_close_to_and_one_of_an_earlier_session_changes_nothing() -> None:
    state = UserState()
    visit(state, view("a", NOW), GAP)
    visit(state, view("b", NOW - GAP), GAP)
    assert (state.session_start_ms, state.session_last_ms, state.session_events) == (NOW - GAP, NOW, 2)
    visit(state, view("c", NOW - 2 * GAP - 1), GAP)
    assert (state.session_events, list(state.session_items)) == (2, ["a", "b"])


def test_an_item_knows_its_views_clicks_carts_and_dwell() -> None:
    state = UserState()
    for event in (
        view("a", NOW, dwell_ms=500),
        view("a", NOW, dwell_ms=250),
        click("a", "remove_from_cart"),
        click("a", "add_to_cart"),
        click("a", "add_to_cart"),
        click("a", "remove_from_cart"),
        click("a", "wishlist"),
    ):
        visit(state, event, GAP)
    assert state.session_items == {"a": SessionItem(views=2, clicks=5, carts=1, dwell_ms=750)}


def test_an_empty_query_is_no_search() -> None:
    state = UserState()
    visit(state, view("a", NOW, query=""), GAP)
    assert state.session_searches == 0


def test_the_item_touched_longest_ago_is_forgotten_first() -> None:
    state = UserState()
    for number in range(SESSION_ITEMS_MAX):
        visit(state, view(f"i{number}", NOW), GAP)
    visit(state, view("i0", NOW), GAP)
    visit(state, view("new", NOW), GAP)
    assert len(state.session_items) == SESSION_ITEMS_MAX
    assert next(iter(state.session_items)) == "i2"
    assert list(state.session_items)[-2:] == ["i0", "new"]
    assert state.session_items["i0"].views == 2
