"""The naive twin of the fold: everything recomputed from the whole history, slowly and plainly. Imports nothing of features.

A history is what arrived, in order of arrival: shop events with their catalogue item (or None), and consents.
"""

from __future__ import annotations

from itertools import pairwise

from contracts.catalogue import CatalogueItem
from contracts.events import Click, Consent, Event, Purchase, View
from contracts.semantics import Semantics

WEEK_MS = 604_800_000
Arrival = tuple[Event, CatalogueItem | None]


def applied(history: list[Arrival], semantics: Semantics) -> list[Arrival]:
    """The arrivals that are no repetition: a shop event counts unless its id is among the last ids that counted."""
    out: list[Arrival] = []
    for event, item in history:
        ids = [before.event_id for before, _ in out if not isinstance(before, Consent)]
        if isinstance(event, Consent) or event.event_id not in ids[-semantics.recent_ids_max :]:
            out.append((event, item))
    return out


def shop(arrivals: list[Arrival]) -> list[Arrival]:
    return [(event, item) for event, item in arrivals if not isinstance(event, Consent)]


def consent(arrivals: list[Arrival]) -> bool | None:
    holds, since = None, 0
    for event, _ in arrivals:
        if isinstance(event, Consent) and event.event_time_ms >= since:
            holds, since = event.granted, event.event_time_ms
    return holds


def window(arrivals: list[Arrival], now_ms: int, tile_ms: int, tiles: int) -> tuple[int, int, int, int, int]:
    """Views, clicks, purchases, spend and dwell of the last `tiles` tiles, the one of `now_ms` included."""
    first = now_ms // tile_ms - tiles + 1
    inside = [event for event, _ in shop(arrivals) if event.event_time_ms // tile_ms >= first]
    return (
        sum(isinstance(event, View) for event in inside),
        sum(isinstance(event, Click) for event in inside),
        sum(isinstance(event, Purchase) for event in inside),
        sum(event.price * event.quantity for event in inside if isinstance(event, Purchase)),
        sum(event.dwell_ms or 0 for event in inside),
    )


def tokens(arrivals: list[Arrival], semantics: Semantics) -> list[tuple[str, str, int, int, int]]:
    return [
        (
            _token_kind(event),
            event.item,
            event.price,
            item.list_price if item else 0,
            event.event_time_ms,
        )
        for event, item in shop(arrivals)
    ][-semantics.history_events_max :]


def _token_kind(event: Event) -> str:
    if getattr(event, "action", "") == "add_to_cart":
        return "cart"
    return {View: "view", Click: "click", Purchase: "purchase"}[type(event)]


def affinities(arrivals: list[Arrival], of: str, now_ms: int, most: int) -> dict[str, float]:
    """Decayed weights of the labels `of` ("category" or "brand"), the `most` strongest as they came."""
    known = [(event, getattr(item, of)) for event, item in shop(arrivals) if item]
    entries: dict[str, list[float]] = {}
    for event, label in known:
        # Weights are compared as of the first event: any time will do, but rounding must not break a tie another way.
        halvings = (event.event_time_ms - known[0][0].event_time_ms) / WEEK_MS
        gain = {View: 1, Click: 2, Purchase: 8}[type(event)] * 2.0**halvings
        if label and label not in entries and len(entries) == most:
            del entries[min(entries, key=lambda entry: sum(entries[entry]))]
        if label:
            entries.setdefault(label, []).append(gain)
    age = 0.5 ** ((now_ms - known[0][0].event_time_ms) / WEEK_MS) if known else 0.0
    return {label: sum(gains) * age for label, gains in entries.items()}


def session(arrivals: list[Arrival], semantics: Semantics) -> list[Event]:
    """The events of the last session, in order of arrival."""
    events: list[Event] = []
    for event, _ in shop(arrivals):
        times = [other.event_time_ms for other in events]
        if not events or event.event_time_ms > max(times) + semantics.session_gap_ms:
            events = [event]
        elif event.event_time_ms >= min(times) - semantics.session_gap_ms:
            events.append(event)
    return events


def session_items(events: list[Event], most: int) -> list[tuple[str, int, int, int, int]]:
    """(item, views, clicks, carts, dwell) of the items touched last, oldest touch first; what was forgotten starts anew."""
    out = []
    for item in sorted({event.item for event in events}, key=lambda item: _last_touch(events, item)):
        if len({event.item for event in events[_last_touch(events, item) :]}) <= most:
            out.append((item, *_counts(_since_forgotten(events, item, most))))
    return out


def _last_touch(events: list[Event], item: str) -> int:
    return max(place for place, event in enumerate(events) if event.item == item)


def _since_forgotten(events: list[Event], item: str, most: int) -> list[Event]:
    """The touches of `item` after the last time that `most` other items were touched between two of them."""
    places = [place for place, event in enumerate(events) if event.item == item]
    start = 0
    for number, (earlier, later) in enumerate(pairwise(places), 1):
        if len({event.item for event in events[earlier + 1 : later]}) >= most:
            start = number
    return [events[place] for place in places[start:]]


def _counts(touches: list[Event]) -> tuple[int, int, int, int]:
    carts = 0
    for event in touches:
        step = {"add_to_cart": 1, "remove_from_cart": -1}.get(getattr(event, "action", ""), 0)
        carts = max(0, carts + step)
    return (
        sum(isinstance(event, View) for event in touches),
        sum(isinstance(event, Click) for event in touches),
        carts,
        sum(event.dwell_ms or 0 for event in touches),
    )


def implausible(arrivals: list[Arrival], semantics: Semantics) -> list[int]:
    """Event times of the implausible events, in order of arrival."""
    out, far = [], semantics.price_deviation_max_permille
    for place, (event, item) in enumerate(arrivals):
        if isinstance(event, Consent):
            continue
        so_far = arrivals[: place + 1]
        minute = event.event_time_ms // 60_000
        newest = max(other.event_time_ms for other, _ in so_far) // 60_000
        together = sum(other.event_time_ms // 60_000 == minute for other, _ in shop(so_far))
        crowd = together > semantics.events_per_minute_max and minute > newest - 60
        if crowd or (item and not item.list_price / far * 1000 <= event.price <= item.list_price * far / 1000):
            out.append(event.event_time_ms)
    return out
