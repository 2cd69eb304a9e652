"""Signals: what a user's state says right after an event, as numbers that the purchase propensity reads beside the trunk.

The transformer sees tokens; counts over a month, a session and the event's item it would have to learn to count. Signals go
into the head alone, never into a ring or a vector, so a rebuild needs none of the tokens that came before. A change of
these functions, or of what stands in a state behind them, raises SIGNALS. Scalar math only: the bits of a token's signals
cannot depend on its batch. Not here: what the trunk reads of a token (features.inputs).
"""

from __future__ import annotations

from math import log1p

from contracts.catalogue import CatalogueItem
from features.affinities import HALF_LIFE_MS
from features.state import SessionItem, UserState
from features.windows import month

SIGNALS = "1"
"""Version of the numbers; an artifact made under another one is refused."""
SIGNAL_NAMES = (
    "views, 30 d", "clicks, 30 d", "purchases, 30 d", "spend, 30 d", "dwell, 30 d",
    "session events", "session items", "session age",
    "views of the item", "clicks on the item", "carts of the item", "dwell on the item",
    "affinity to the category", "affinity to the brand",
)  # fmt: skip
"""Names of what `signals_of` returns, in its order."""

Signals = tuple[float, ...]
"""(SIGNAL_NAMES,)"""
NO_SIGNALS: Signals = (0.0,) * len(SIGNAL_NAMES)
"""Of a token whose propensity nobody asks for."""

_NEVER = SessionItem()


def signals_of(state: UserState, item_id: str, item: CatalogueItem | None) -> Signals:
    """Return ln(1 + x) of the counts behind SIGNAL_NAMES: money in minor units, dwell in ms, age in s.

    Args:
        state: of the user, right after the event was folded in.
        item_id: the item that the event is about.
        item: the catalogue's version in force at the event's time, None if it has none.
    """
    now_ms = state.last_ms
    views, clicks, purchases, spend, dwell_ms = month(state, now_ms)
    visited = state.session_items.get(item_id, _NEVER)
    to_category = to_brand = 0.0
    if item is not None:
        decay = 0.5 ** ((now_ms - state.affinity_ms) / HALF_LIFE_MS)
        to_category = log1p(state.categories.get(item.category, 0.0) * decay)
        to_brand = log1p(state.brands.get(item.brand, 0.0) * decay)
    return (
        log1p(views), log1p(clicks), log1p(purchases), log1p(spend), log1p(dwell_ms),
        log1p(state.session_events), log1p(len(state.session_items)), log1p((now_ms - state.session_start_ms) * 0.001),
        log1p(visited.views), log1p(visited.clicks), log1p(visited.carts), log1p(visited.dwell_ms),
        to_category, to_brand,
    )  # fmt: skip
