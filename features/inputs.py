"""What the user transformer reads of a token: the numbers beside the item's vector. Version TOKENISATION of that reading.

`token_features` says what they are, and training reads one token after another; the live path reads a batch at once, to the
same bits in whatever batch a token comes: logarithms are libm's, one by one, and sums and products are exact or correctly
rounded in every lane. Not here: item vectors (features.artifact), the bytes of a token (features.tokens).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, log1p
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.tokens import HEADER_BYTES, read_headers, tokens

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
    starts = _starts(history)
    ends = [*starts[1:], len(history)]
    kinds, prices, list_prices, times = read_headers(history, starts)
    items = [history[start + HEADER_BYTES : end].decode() for start, end in zip(starts, ends, strict=True)]
    befores_ms = np.concatenate((times[:1], times[:-1]))
    first = np.zeros(len(times), np.bool_)
    for number, before_ms in befores.items():
        first[number] = before_ms is None
        befores_ms[number] = times[number] if before_ms is None else before_ms
    return Inputs(
        rows=np.array([rows.get(item, UNKNOWN_ITEM) for item in items], np.int64),
        kinds=kinds,
        features=_features(prices, list_prices, times - befores_ms, first),
        times=times.tolist(),
    )


def _features(
    prices: NDArray[np.int64], list_prices: NDArray[np.int64], gaps_ms: NDArray[np.int64], first: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the `token_features` of n tokens, (n, FEATURE_NAMES); `gaps_ms` counts from the token before, 0 for a first one."""
    features = np.zeros((len(prices), len(FEATURE_NAMES)))
    log_prices = np.array([log(price) for price in (prices + 1).tolist()])
    features[:, 0] = log_prices * _SCALE
    known = list_prices > 0
    (other,) = np.nonzero(known & (prices != list_prices))
    of_list = np.array([log(price) for price in (list_prices[other] + 1).tolist()])
    features[other, 1] = np.clip(log_prices[other] - of_list, -_RATIO_MAX, _RATIO_MAX)
    features[:, 2] = known
    (later,) = np.nonzero(gaps_ms > 0)
    features[later, 3] = np.array([log1p(gap) for gap in (gaps_ms[later] * 0.001).tolist()]) * _SCALE
    features[:, 4] = first
    return features.astype(np.float32)


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
