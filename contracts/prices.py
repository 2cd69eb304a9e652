"""Price updates: what downstream services read. Compacted topic, key [user, item]; the highest version per key holds.

A decision says why and how (contracts.decisions); a price update only what to charge, from when, until when.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

Status = Literal["drawn", "held", "list"]
"""drawn: the policy chose now; held: an open offer's price again; list: the list price, without a draw."""

SCHEMA_VERSION = "1"
"""Value of the record header `schema-version` on every message of ours."""


class PriceUpdate(Struct, frozen=True, kw_only=True, gc=False):
    """The price of `item` for `user`. Money in minor units of `currency`, times in ms of event time."""

    decision_id: str
    user: str
    item: str
    market: str | None
    currency: str
    price: int
    list_price: int
    valid_from_ms: int
    valid_until_ms: int | None
    """None: until replaced."""
    version: int
    """The partition's count of applied records: newer versions of a user and item are higher, across restarts and expiry."""
    reasons: tuple[str, ...]
    """Reason codes; pricing.sentences has them in words."""
    status: Status
    draw_id: str | None
    """The decision that drew this price; None at list price without a draw."""


decode_price = msgspec.json.Decoder(PriceUpdate).decode
_encode = msgspec.json.Encoder().encode


def encode_price(update: PriceUpdate) -> bytes:
    """Return the JSON bytes of `update`; equal updates give equal bytes."""
    return _encode(update)


def price_key(user: str, item: str) -> bytes:
    """Return the record key: a JSON array [user, item]."""
    return _encode((user, item))
