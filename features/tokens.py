"""Token history: what the user transformer will read, one token per event, oldest first, in one bytes object.

A token is a 16-byte header and the item id in UTF-8. The header is one big-endian integer: 16 bits of length of the id
in bytes, 42 bits of event time in ms, 34 of price, 34 of list price (both minor units; list 0: not in the catalogue),
2 of kind. Every token starts with its length, so the oldest are dropped by a cut. Not here: vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.events import Click, Purchase, ShopEvent, View

HEADER_BYTES = 16
Kind = Literal["view", "click", "purchase", "cart"]
KINDS: tuple[Kind, ...] = ("view", "click", "purchase", "cart")
"""By the number that a token carries. A cart is a click with the action `add_to_cart`, a click any other one."""
_NUMBERS = {View: 0, Click: 1, Purchase: 2}
_CART = KINDS.index("cart")
_HEADER = np.arange(HEADER_BYTES)
_TIME_MASK, _PRICE_MASK = (1 << 42) - 1, (1 << 34) - 1


class Token(NamedTuple):
    """One event as the transformer sees it."""

    kind: Kind
    item: str
    price: int
    list_price: int
    """0: the item was not in the catalogue."""
    event_time_ms: int


def token_of(event: ShopEvent, list_price: int) -> bytes:
    """Return the bytes of the token of `event`; `list_price` is 0 for an item that is not in the catalogue."""
    item = event.item.encode()
    kind = _NUMBERS[type(event)]
    if type(event) is Click and event.action == "add_to_cart":
        kind = _CART
    header = (len(item) << 42 | event.event_time_ms) << 34 | event.price
    return ((header << 34 | list_price) << 2 | kind).to_bytes(HEADER_BYTES, "big") + item


def append_token(history: bytes, count: int, token: bytes, count_max: int) -> tuple[bytes, int]:
    """Return `history` with `token` behind it and its number of tokens, the oldest beyond `count_max` dropped.

    Args:
        history: whole tokens, oldest first.
        count: number of tokens in `history`.
        token: from `token_of`.
        count_max: tokens to keep, >= 1.
    """
    start = 0
    while count >= count_max:
        start += HEADER_BYTES + (history[start] << 8 | history[start + 1])
        count -= 1
    return history[start:] + token, count + 1


def newest(history: bytes, item: str) -> bytes:
    """Return the last token of `history`, which is one of `item`."""
    return history[-HEADER_BYTES - len(item.encode()) :]


def tokens(history: bytes) -> Iterator[Token]:
    """Yield the tokens of `history`, oldest first."""
    for kind, item, price, list_price, event_time_ms in token_fields(history):
        yield Token(KINDS[kind], item, price, list_price, event_time_ms)


def token_fields(history: bytes) -> Iterator[tuple[int, str, int, int, int]]:
    """Yield the fields of `tokens`, the kind as its number: for the event path, where a name per field costs too much."""
    start, end = 0, len(history)
    while start < end:
        body = start + HEADER_BYTES
        header = int.from_bytes(history[start:body], "big")
        start = body + (header >> 112)
        yield (
            header & 3,
            history[body:start].decode(),
            header >> 36 & _PRICE_MASK,
            header >> 2 & _PRICE_MASK,
            header >> 70 & _TIME_MASK,
        )


class Headers(NamedTuple):
    """The numbers in the headers of n tokens, (n,) each; as in Token, the kind as its number."""

    kinds: NDArray[np.int64]
    prices: NDArray[np.int64]
    list_prices: NDArray[np.int64]
    times: NDArray[np.int64]


def read_headers(history: bytes, starts: list[int]) -> Headers:
    """Return what `token_fields` yields of the tokens that begin at `starts`, but for the items."""
    words = np.frombuffer(history, np.uint8)[np.array(starts)[:, None] + _HEADER].view(">u8").astype(np.uint64)
    high, low = words[:, 0], words[:, 1]
    return Headers(
        (low & 3).astype(np.int64),
        ((high & 63) << 28 | low >> 36).astype(np.int64),
        (low >> 2 & _PRICE_MASK).astype(np.int64),
        (high >> 6 & _TIME_MASK).astype(np.int64),
    )
