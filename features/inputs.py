"""What the user transformer reads of a token: the numbers beside the item's vector. Version TOKENISATION of that reading.

The same function feeds training and the live path, one token at a time with scalar math, so a token has the same bits in
whatever batch it comes. Not here: item vectors (features.artifact), the bytes of a token (features.tokens).
"""

from __future__ import annotations

from math import log, log1p

TOKENISATION = "1"
"""Raised with every change of this module's results; an artifact made under another one is refused."""
FEATURE_NAMES = ("log_price", "log_price_over_list", "list_known", "log_gap", "first")
"""Names of what `token_features` returns, in its order."""
UNKNOWN_ITEM = 0
"""The row of an item that the artifact has not seen."""

_SCALE = 0.1
_RATIO_MAX = 2.0

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
