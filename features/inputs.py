"""What the user transformer reads of a token: the numbers beside the item's vector. Version TOKENISATION of that reading.

The same function feeds training and the live path, one token at a time with the scalar functions of libm, so a token has
the same bits in whatever batch it comes. Not here: item vectors (features.artifact), the bytes of a token (features.tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, log1p
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.tokens import HEADER_BYTES, token_fields, tokens

TOKENISATION = "1"
"""Raised with every change of this module's results; an artifact made under another one is refused."""
FEATURE_NAMES = ("log_price", "log_price_over_list", "list_known", "log_gap", "first")
"""Names of what `token_features` returns, in its order."""
UNKNOWN_ITEM = 0
"""The row of an item that the artifact has not seen."""

_SCALE = 0.1
_RATIO_MAX = 2.0
_BLANK = bytes(HEADER_BYTES)
"""A token without length, item, price, time."""

Features = tuple[float, float, float, float, float]


def token_features(price: int, list_price: int, time_ms: int, before_ms: int | None) -> Features:
    """Return the features of a token, each within about [-2, 3].

    Args:
        price: the price the user saw, minor units, >= 0.
        list_price: the item's list price, minor units; 0: not known.
        time_ms: event time.
        before_ms: event time of the token before, in applied order; None for a user's first token. A late event has a
            gap of 0.

    Returns:
        ln(price + 1) / 10; ln((price + 1) / (list_price + 1)) within [-2, 2], 0 without a list price; 1 with a list price, else
        0; ln(1 + gap in s) / 10; 1 for a first token, else 0.
    """
    log_price = log(price + 1)
    ratio = known = 0.0
    if list_price > 0:
        known = 1.0
        if price != list_price:
            ratio = min(max(log_price - log(list_price + 1), -_RATIO_MAX), _RATIO_MAX)
    if before_ms is None:
        return log_price * _SCALE, ratio, known, 0.0, 1.0
    gap = log1p((time_ms - before_ms) * 0.001) * _SCALE if time_ms > before_ms else 0.0
    return log_price * _SCALE, ratio, known, gap, 0.0


class Inputs(NamedTuple):
    """Tokens as the graph takes them; n of them."""

    rows: NDArray[np.int64]
    """(n,) rows of the item table."""
    kinds: NDArray[np.int64]
    """(n,) numbers of KINDS."""
    features: NDArray[np.float32]
    """(n, FEATURE_NAMES)"""
    times: Sequence[int]
    """(n,) event times in ms."""


def read_inputs(history: bytes, befores: Mapping[int, int | None], rows: Mapping[str, int]) -> Inputs:
    """Return what the graph reads of the tokens of `history`, which may be of many users, one after another.

    Args:
        history: whole tokens, at least one.
        befores: by the number of a token in `history`: the event time before it, where it is not the one of the token in
            front of it: a user's first token here. Token 0 must be in it.
        rows: from item id to row.
    """
    kinds: list[int] = []
    items: list[int] = []
    numbers: list[float] = []
    times: list[int] = []
    before: int | None = None
    for number, (kind, item, price, list_price, time_ms) in enumerate(token_fields(history)):
        kinds.append(kind)
        items.append(rows.get(item, UNKNOWN_ITEM))
        numbers += token_features(price, list_price, time_ms, befores.get(number, before))
        times.append(time_ms)
        before = time_ms
    return Inputs(
        rows=np.array(items, np.int64),
        kinds=np.array(kinds, np.int64),
        features=np.array(numbers, np.float32).reshape(-1, len(FEATURE_NAMES)),
        times=times,
    )


class Suffix(NamedTuple):
    """The end of a history, as a rebuild reads it."""

    history: bytes
    """Its tokens, as many as were asked for."""
    before_ms: int | None
    """Event time of the token in front of them; None if they start with the user's first one."""


def suffix(history: bytes, position: int, count: int) -> Suffix:
    """Return the last `count` tokens of `history`.

    Where the history does not reach so far back, for fewer tokens are kept than were ever appended, blank tokens stand for
    what is gone: of no item, price and time 0. So what comes out is a function of what is kept, and nothing else.

    Args:
        history: tokens, oldest first.
        position: tokens ever appended.
        count: 0..position.
    """
    whole = count == position
    starts = _starts(history)
    wanted = count if whole else count + 1
    missing = wanted - len(starts)
    kept = _BLANK * missing + history if missing > 0 else history[starts[-wanted] :] if wanted else b""
    if whole:
        return Suffix(kept, None)
    return Suffix(kept[_length(kept, 0) :], next(tokens(kept)).event_time_ms)


def last_token(history: bytes) -> tuple[bytes, bytes]:
    """Return `history` without its last token, and that token; there is one at least."""
    start = _starts(history)[-1]
    return history[:start], history[start:]


def _starts(history: bytes) -> list[int]:
    starts, place = [], 0
    while place < len(history):
        starts.append(place)
        place += _length(history, place)
    return starts


def _length(history: bytes, start: int) -> int:
    return HEADER_BYTES + (history[start] << 8 | history[start + 1])
