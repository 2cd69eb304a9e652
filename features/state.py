"""The state of one user, and its compact bytes. One value per user, sparse, with a schema version in front.

Mutable on purpose: a state is decoded from its bytes, folded through a batch, and encoded again; nothing else holds it,
so a step over a batch is still a pure function of bytes. Not here: what an event does to it (features.fold).
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

SCHEMA = 1


class Offer(Struct, array_like=True, gc=False):
    """The last personal price of one item for this user, open or not. Money in minor units, times in ms of event time."""

    price: int
    list_price: int
    multiplier: int
    propensity: float
    draw_id: str
    drawn_ms: int
    valid_until_ms: int
    open: bool
    """False once bought, withdrawn or forbidden; the price stays, for the step limit. Past valid_until_ms it is not open
    either, whatever this says."""
    intent: int
    market: str | None


class SessionItem(Struct, array_like=True, gc=False):
    """What this session did with one item."""

    views: int = 0
    clicks: int = 0
    carts: int = 0
    """add_to_cart less remove_from_cart, never below 0."""
    dwell_ms: int = 0


class UserState(Struct, array_like=True):
    """Everything known of a user."""

    sequence: int = 0
    """Events applied."""
    last_ms: int = 0
    """Highest event time applied."""
    consent: bool | None = None
    """None: never said anything."""
    consent_ms: int = 0
    minutes: dict[int, list[int]] = field(default_factory=dict)
    """Tiles of the 1-hour window: event_time // 60_000 -> [views, clicks, purchases, spend, dwell_ms]."""
    hours: dict[int, list[int]] = field(default_factory=dict)
    """Tiles of the 24-hour window, by event_time // 3_600_000."""
    days: dict[int, list[int]] = field(default_factory=dict)
    """Tiles of the 30-day window, by event_time // 86_400_000."""
    categories: dict[str, list[float]] = field(default_factory=dict)
    """Decayed affinity per category: [weight, at_ms]; bounded."""
    brands: dict[str, list[float]] = field(default_factory=dict)
    session_start_ms: int = 0
    session_events: int = 0
    session_searches: int = 0
    session_items: dict[str, SessionItem] = field(default_factory=dict)
    """Bounded; the item touched longest ago goes first."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """By item; bounded by Semantics.offers_max; the one drawn longest ago goes first."""
    recent_ids: bytes = b""
    """short_hash of the last event ids, 8 bytes each, oldest first."""
    history: bytes = b""
    """Token history for the user transformer: length-prefixed tokens, oldest first (features.tokens)."""
    history_events: int = 0
    implausible_ms: int = 0
    """Event time of the last implausible event, 0 if none: nothing is learned from such a user for a day."""


_encoder = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(UserState).decode
_VERSION = bytes([SCHEMA])


def encode_state(state: UserState) -> bytes:
    """Return the bytes of `state`: a version byte, then MessagePack. Equal states give equal bytes."""
    return _VERSION + _encoder.encode(state)


def decode_state(value: bytes | None) -> UserState:
    """Return the state that `value` holds; an empty one for None."""
    if value is None:
        return UserState()
    return _decode(memoryview(value)[1:])
