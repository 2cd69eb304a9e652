"""The events of a shop: views, clicks, purchases and consents; JSON bytes in, frozen structs out.

Unknown fields are ignored, so that producers may be ahead of us. Money is an integer in minor units (cents). Not here:
what an event does to a user (features.fold) and which records are refused for where they stand (contracts.intake).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from contracts.nesting import shallow

Id = Annotated[str, Meta(min_length=1, max_length=128)]
TIME_MAX_MS = 4_102_444_800_000
"""The end of 2099; what is later was not measured in milliseconds."""
EventTime = Annotated[int, Meta(ge=946_684_800_000, le=TIME_MAX_MS)]
"""Milliseconds since 1970, between the years 2000 and 2100: seconds by mistake are noticed."""
PriceMinor = Annotated[int, Meta(gt=0, le=10_000_000_000)]
Currency = Annotated[str, Meta(min_length=3, max_length=3)]
DwellMs = Annotated[int, Meta(ge=0, le=86_400_000)]


class _Event(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", gc=False):
    event_id: Id
    user: Id
    item: Id
    event_time_ms: EventTime
    price: PriceMinor
    """The price the user saw, in minor units of `currency`."""
    currency: Currency
    market: Annotated[str, Meta(min_length=1, max_length=16)] | None = None
    session: Annotated[str, Meta(max_length=128)] | None = None
    dwell_ms: DwellMs | None = None
    query: Annotated[str, Meta(max_length=512)] | None = None
    decision_id: Annotated[str, Meta(max_length=64)] | None = None
    """The decision the shop rendered: exposure is stated, never inferred from equal prices."""


class View(_Event, frozen=True, kw_only=True, omit_defaults=True, tag="view", gc=False):
    """A user looked at an item."""


class Click(_Event, frozen=True, kw_only=True, omit_defaults=True, tag="click", gc=False):
    """A user acted on an item short of buying it."""

    action: Annotated[str, Meta(min_length=1, max_length=32)] = "click"
    """`add_to_cart`, `remove_from_cart`, `wishlist`, `click`, or the shop's own word."""


class Purchase(_Event, frozen=True, kw_only=True, omit_defaults=True, tag="purchase", gc=False):
    """A user bought `quantity` pieces of an item at `price` each."""

    quantity: Annotated[int, Meta(ge=1, le=10_000)] = 1


class Consent(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="consent", gc=False):
    """A user granted or withdrew consent to personal prices, the latest by event time holds; or asks to be forgotten."""

    user: Id
    granted: bool
    event_time_ms: EventTime
    erase: bool = False
    """Erase what is known of the user, on top of the withdrawal (pricing.erasure). A release that does not know
    it takes the record for a withdrawal."""

    def __post_init__(self) -> None:
        if self.erase and self.granted:
            raise ValueError("erase is for a user who wants to be forgotten: granted must be false")


ShopEvent = View | Click | Purchase
Event = View | Click | Purchase | Consent
EventType = Literal["view", "click", "purchase", "consent"]

decode_event = shallow(msgspec.json.Decoder(Event).decode)
"""bytes -> Event. Raises msgspec.DecodeError (not JSON), msgspec.ValidationError (JSON, but not an event), or ValueError for JSON
that is nested too deep (contracts.nesting)."""
_encode = msgspec.json.Encoder().encode


def encode_event(event: Event) -> bytes:
    """Return the JSON bytes of `event`, as producers send them."""
    return _encode(event)


def event_key(event: Event) -> bytes:
    """Return the record key: the user id, so that a user's events share a partition."""
    return event.user.encode()
