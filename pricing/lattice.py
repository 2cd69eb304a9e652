"""The full lattice of an item: every price that an offer may consider, before any rail. Integers in minor units.

For each multiplier the list price times it, and the charm price just below that; and the list price itself. Not here:
which points are allowed (pricing.rails).
"""

from __future__ import annotations

from collections.abc import Sequence


def scaled(list_price: int, permille: int) -> int:
    """Return list_price * permille / 1000, rounded half up."""
    return (list_price * permille + 500) // 1000


def charm_at_or_below(price: int, endings: Sequence[int]) -> int:
    """Return the largest price <= `price` whose last two digits are among `endings`; at most 0 if there is none."""
    return max([price - (price - ending) % 100 for ending in endings], default=0)


def full_lattice(list_price: int, multipliers: Sequence[int], endings: Sequence[int]) -> dict[int, int]:
    """Return the points as price -> nominal multiplier in permille, ascending by price.

    A point reached more than once carries the smallest multiplier that reaches it; the list price always 1000.

    Args:
        list_price: > 0, minor units.
        multipliers: ascending, in permille.
        endings: allowed last two digits of a charm price; empty: no charm points.
    """
    points = {list_price: 1000}
    for permille in multipliers:
        raw = scaled(list_price, permille)
        for price in (raw, charm_at_or_below(raw, endings)):
            if price > 0:
                points.setdefault(price, permille)
    return dict(sorted(points.items()))
