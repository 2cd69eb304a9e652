"""The session: what a user did since the last silence of Semantics.session_gap_ms, item by item.

A late event of before the session's start less the gap belongs to a session that is over, and changes nothing here.
Not here: the shop's own session ids, which nobody guarantees; what a session says about intent (pricing).
"""

from __future__ import annotations

from contracts.events import Click, ShopEvent, View
from features.state import SessionItem, UserState

SESSION_ITEMS_MAX = 24
"""Items remembered of a session; the one touched longest ago goes first."""

_CARTS = {"add_to_cart": 1, "remove_from_cart": -1}


def visit(state: UserState, event: ShopEvent, gap_ms: int) -> None:
    """Count `event` into the session, a new one after `gap_ms` of silence."""
    now_ms = event.event_time_ms
    if now_ms > state.session_last_ms:
        if now_ms - state.session_last_ms > gap_ms:
            _start(state, now_ms)
        state.session_last_ms = now_ms
    elif now_ms < state.session_start_ms:
        if state.session_start_ms - now_ms > gap_ms:
            return
        state.session_start_ms = now_ms
    state.session_events += 1
    if event.query:  # an empty query is no search
        state.session_searches += 1
    items = state.session_items
    item = items.pop(event.item, None)
    if item is None:
        item = SessionItem()
        if len(items) >= SESSION_ITEMS_MAX:
            del items[next(iter(items))]
    items[event.item] = item  # behind the others
    if type(event) is View:
        item.views += 1
    elif type(event) is Click:
        item.clicks += 1
        if event.action in _CARTS:
            item.carts = max(0, item.carts + _CARTS[event.action])
    if event.dwell_ms is not None:
        item.dwell_ms += event.dwell_ms


def _start(state: UserState, now_ms: int) -> None:
    state.session_start_ms = now_ms
    state.session_events = state.session_searches = 0
    state.session_items.clear()
