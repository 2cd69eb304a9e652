"""The state of one user, and its compact bytes: a schema version, then MessagePack. One value per user, sparse.

Mutable on purpose: a state is decoded from its bytes, folded through a batch, and encoded again; nothing else holds it,
so a step over a batch is still a pure function of bytes. What grows with history (tiles, ids, tokens) is kept as packed
bytes, which a decode only copies. Not here: what an event does to a state (features.fold), how large it can get
(features.bounds).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct, field

from contracts.errors import BadSettings, BrokenInvariant

SCHEMA = 3
EXPOSURE_IDS_MAX = 8
"""Decision ids remembered of a draw that was not exposed yet, the newest of them."""


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


class DrawRef(Struct, array_like=True, gc=False):
    """A draw of this user that may be pending, as far as its user's next events need to know it (pricing.outcomes).

    It is pending while the partition's watermark is below `due_ms`; what is to be published of it, a record of its own holds.
    """

    item: str
    due_ms: int
    version: int
    """The partition's count of applied records at the draw: with `due_ms` the key of its record."""
    price: int
    marks: int
    """What its record has been told already: exposure, and reasons not to learn from it."""
    ids: bytes
    """short_hash of the decision ids that state its exposure, 8 bytes each, the newest last and at most
    EXPOSURE_IDS_MAX; empty where none do."""


class SessionItem(Struct, array_like=True, gc=False):
    """What this session did with one item."""

    views: int = 0
    clicks: int = 0
    """Clicks of every action."""
    carts: int = 0
    """add_to_cart less remove_from_cart, never below 0."""
    dwell_ms: int = 0


class UserState(Struct, array_like=True):
    """Everything known of a user. Rule: a new field, or another meaning of one, is a new SCHEMA with a reader for the old."""

    sequence: int = 0
    """Events and consents applied; repeated ones are not."""
    last_ms: int = 0
    """Highest event time applied, consents included."""
    consent: bool | None = None
    """None: never said anything."""
    consent_ms: int = 0
    """Event time of the consent that holds."""
    minutes: bytes = b""
    """Tiles of the 1-hour window, ascending (features.windows)."""
    hours: bytes = b""
    """Tiles of the 24-hour window."""
    days: bytes = b""
    """Tiles of the 30-day window."""
    affinity_ms: int = 0
    """Landmark of the affinities, 0 if there are none (features.affinities)."""
    categories: dict[str, float] = field(default_factory=dict)
    """Affinity per category as seen from the landmark; bounded."""
    brands: dict[str, float] = field(default_factory=dict)
    session_start_ms: int = 0
    session_last_ms: int = 0
    """Highest event time of the session."""
    session_events: int = 0
    session_searches: int = 0
    """Events of the session that came from a search (had a query)."""
    session_items: dict[str, SessionItem] = field(default_factory=dict)
    """Bounded; the item touched longest ago stands first, and goes first."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """By item; bounded by Semantics.offers_max (pricing decides which goes)."""
    recent_ids: bytes = b""
    """short_hash of the last event ids, 8 bytes each, oldest first (features.recent)."""
    history: bytes = b""
    """Token history for the user transformer, oldest first (features.tokens)."""
    history_events: int = 0
    """Tokens in `history`."""
    implausible_ms: int = 0
    """Highest event time of an implausible event, 0 if none: nothing is learned from such a user for a day."""
    tokens: int = 0
    """Tokens ever appended to `history`: the position of the next one, from 0."""
    draws: list[DrawRef] = field(default_factory=list)
    """Draws that may be pending, in applied order; bounded by Semantics.offers_max."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(UserState).decode
_VERSION = bytes([SCHEMA])

Reader = Callable[[memoryview], UserState]


def _read_1(body: memoryview) -> UserState:
    """Read schema 1, a state of schema 2 without the last field: an array that ends one element earlier.

    How many tokens the user ever had is not known, so they are counted from what is kept: the oldest one becomes the
    user's first. A click on the cart is a plain click in tokens of this schema, and stays one.
    """
    state = _decode(body)
    state.tokens = state.history_events
    return state


READERS: dict[int, Reader] = {1: _read_1, 2: _decode, SCHEMA: _decode}
"""From the schema version of stored bytes to what reads the rest of them as a state of today.

The path of the next version: raise SCHEMA, keep the old struct and its decoder, and put a function here under the old
number that decodes the old struct and returns a UserState (schema 2 ended before `draws`: what is missing is empty). Stores
and changelogs are then read as they are, and every state that is touched is written in the new schema.
"""


def encode_state(state: UserState) -> bytes:
    """Return the bytes of `state`, at most bounds.state_bytes_max. Equal states, orders of items included, give equal bytes."""
    return _VERSION + _encode(state)


def expired_state(state: UserState) -> UserState:
    """Return what is left of a state that its time to live has passed: what the user said about consent, nothing else.

    A withdrawal must outlive the state, or silence would turn it into the default.
    """
    return UserState(consent=state.consent, consent_ms=state.consent_ms)


def expired_bytes(value: bytes) -> bytes | None:
    """Return the bytes that replace those of an expired state, None where nothing is left."""
    left = expired_state(decode_state(value))
    return None if left.consent is None else encode_state(left)


def decode_state(value: bytes | None) -> UserState:
    """Return the state that `value` holds, of this or an older schema; an empty one for None.

    Raises:
        BadSettings: the bytes have a schema that this release does not know.
        BrokenInvariant: the bytes are no state.
    """
    if value is None:
        return UserState()
    reader = READERS.get(value[0]) if value else READERS[SCHEMA]
    if reader is None:
        raise BadSettings(
            f"A stored state has schema {value[0]}, this release reads {sorted(READERS)}: it was written by a newer "
            "pricetide; run that release, or one after it, on this data directory and changelog"
        )
    try:
        return reader(memoryview(value)[1:])
    except msgspec.DecodeError as error:
        raise BrokenInvariant(
            f"A stored state of {len(value)} bytes cannot be read ({error}): the store or the changelog is damaged; "
            "wipe the data directory to restore from the changelog, and report the bytes if that does not help"
        ) from error
