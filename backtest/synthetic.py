"""Rules that invent what a public log lacks: consents and the bounds of items. Each by a hash, so that the same user or
item always gets the same; each with the sentence that marks it in a manifest.
"""

from __future__ import annotations

from hashlib import blake2b

from contracts.log_rows import CatalogueRow

DENIED_PERMILLE = 100
WITHDRAWN_PERMILLE = 30

RULES_CONSENT = (
    "Consents: every user speaks at the time of their first event; a user whose hash modulo 1000 is below 100 denies, all "
    "others grant.",
    "Withdrawals: a user whose hash modulo 1000 lies in 100..129 and who has at least two events withdraws at the time of "
    "their middle event, which is priced without consent.",
)
RULES_BOUNDS = (
    "Cost: 55 % to 85 % of list price by a hash of the item.",
    "Floor: 60 % to 85 % of list price by a hash of the item.",
    "MAP: 85 % to 95 % of list price for 15 % of the items, by a hash of the item; none for the others.",
    "Ceiling: 105 % to 115 % of list price for half of the items, by a hash of the item; none for the others.",
)


def _hash(purpose: str, text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16, person=purpose.encode()).digest()


def consent_class(user: str) -> int:
    """Return the user's place in 0..999: below 100 denied, 100..129 granted and withdrawn later, else granted."""
    return int.from_bytes(_hash("consent", user)[:8], "big") % 1000


def denies(user: str) -> bool:
    """Return whether the user denies consent from the start."""
    return consent_class(user) < DENIED_PERMILLE


def withdraws(user: str) -> bool:
    """Return whether the user withdraws consent in the middle of their events."""
    return DENIED_PERMILLE <= consent_class(user) < DENIED_PERMILLE + WITHDRAWN_PERMILLE


def with_bounds(row: CatalogueRow) -> CatalogueRow:
    """Fill in cost, floor, MAP and ceiling of `row` from its item and list price, and return it.

    The list price keeps all of them, also under the builtin margin of 8 % over cost: 0.85 * 1.08 < 1.
    """
    assert row.item is not None
    assert row.list_price is not None
    h = _hash("bounds", row.item)
    price = row.list_price
    row.cost = price * (550 + int.from_bytes(h[0:4], "big") % 301) // 1000
    row.floor = price * (600 + int.from_bytes(h[4:8], "big") % 251) // 1000 or None
    row.map_price = (price * (850 + h[9] % 101) // 1000 or None) if h[8] % 100 < 15 else None
    row.ceiling = price * (1050 + h[11] % 101) // 1000 if h[10] % 2 else None
    return row
