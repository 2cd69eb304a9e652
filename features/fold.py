"""The fold: one event or consent into the state of its user. The only code that changes a state, offers aside.

Rules: no clock, time is the event's; every effect is bounded; a repeated event changes nothing. Late events count where
they belong in time. Does not decide prices and does not touch offers (pricing).
"""

from __future__ import annotations

from enum import IntFlag

from contracts.catalogue import CatalogueItem
from contracts.events import Consent, ShopEvent
from contracts.ids import short_hash
from contracts.semantics import Semantics
from features.affinities import strengthen
from features.recent import holds, remember
from features.session import visit
from features.state import UserState
from features.tokens import append_token, token_of
from features.windows import MINUTE_MS, count, events_in


class Folded(IntFlag):
    """What became of an event."""

    APPLIED = 0
    REPEATED = 1
    """Its id is among the recent ones; the state is unchanged."""
    IMPLAUSIBLE = 2
    """Applied, and marked: too many events in its minute, or a price far from the catalogue's."""


_APPLIED, _REPEATED, _IMPLAUSIBLE = Folded.APPLIED, Folded.REPEATED, Folded.IMPLAUSIBLE  # enum look-ups cost more


def fold(state: UserState, event: ShopEvent, item: CatalogueItem | None, semantics: Semantics) -> Folded:
    """Apply `event` to `state`, in place.

    Args:
        state: of the event's user, changed in place unless the event is a repeated one.
        event: a view, click or purchase.
        item: the catalogue's version of event.item in force at the event's time, None if it has none.
        semantics: limits and thresholds.
    """
    key = short_hash(event.event_id)
    if key in state.recent_ids and holds(state.recent_ids, key):  # `in` costs nothing
        return _REPEATED
    state.recent_ids = remember(state.recent_ids, key, semantics.recent_ids_max)
    state.sequence += 1
    now_ms = event.event_time_ms
    if now_ms > state.last_ms:  # noqa: PLR1730  # max() costs four times as much, on every event
        state.last_ms = now_ms
    count(state, event)
    list_price = 0
    if item is not None:
        list_price = item.list_price
        strengthen(state, event, item)
    visit(state, event, semantics.session_gap_ms)
    state.history, state.history_events = append_token(
        state.history, state.history_events, token_of(event, list_price), semantics.history_events_max
    )
    state.tokens += 1
    if _plausible(state, event, list_price, semantics):
        return _APPLIED
    state.implausible_ms = max(state.implausible_ms, now_ms)
    return _IMPLAUSIBLE


def _plausible(state: UserState, event: ShopEvent, list_price: int, semantics: Semantics) -> bool:
    """Whether the event's minute, if it is still in the 1-hour window, and its price look like a shopper's."""
    price, most = event.price, semantics.price_deviation_max_permille
    if list_price and (price * 1000 > list_price * most or price * most < list_price * 1000):
        return False
    limit = semantics.events_per_minute_max
    if state.sequence <= limit:  # then no minute can hold more, and most users never come further
        return True
    return events_in(state, event.event_time_ms // MINUTE_MS) <= limit


def fold_consent(state: UserState, event: Consent) -> bool:
    """Apply a consent to `state`, in place; return whether it has just withdrawn what was not withdrawn before.

    The latest by event time holds; at equal times the one applied later.
    """
    state.sequence += 1
    state.last_ms = max(state.last_ms, event.event_time_ms)
    if event.event_time_ms < state.consent_ms:
        return False
    withdrawn = not event.granted and state.consent is not False
    state.consent, state.consent_ms = event.granted, event.event_time_ms
    return withdrawn
