"""Minor units of currencies. Amounts are integers in minor units everywhere; this says how many of them make a whole one."""

from __future__ import annotations

_DIGITS = {"BHD": 3, "CLP": 0, "ISK": 0, "JOD": 3, "JPY": 0, "KRW": 0, "KWD": 3, "OMR": 3, "TND": 3, "VND": 0}
"""ISO 4217 currencies whose minor unit is not a hundredth."""


def minor_digits(currency: str) -> int:
    """Return how many decimals an amount in `currency` has: 2 for USD, 0 for JPY."""
    return _DIGITS.get(currency, 2)
