"""The full lattice of an item: every price that an offer may consider, before any rail. Integers in minor units.

For each multiplier the list price times it, and the charm price at or just below that; and the list price itself. Not
here: which points are allowed (pricing.rails).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache


def scaled(list_price: int, permille: int) -> int:
    """Return list_price * permille / 1000, rounded half up."""
    return (list_price * permille + 500) // 1000


@lru_cache(maxsize=64)
def charm_drops(endings: Collection[int]) -> tuple[int, ...]:
    """Return, for each last two digits of a price, how far below it the nearest price with an allowed ending lies.

    0 where the ending is allowed, so everywhere if `endings` is empty, which allows all.
    """
    return tuple(min(((digits - ending) % 100 for ending in endings), default=0) for digits in range(100))


def full_lattice(list_price: int, multipliers: Sequence[int], drops: Sequence[int]) -> dict[int, int]:
    """Return the points, as price -> nominal multiplier in permille; in no order.

    A point reached more than once carries the smallest multiplier that reaches it; the list price always 1000.

    Args:
        list_price: > 0, minor units.
        multipliers: ascending, in permille.
        drops: of the charm endings.
    """
    points = {list_price: 1000}
    for permille in multipliers:
        raw = (list_price * permille + 500) // 1000
        if raw > 0 and raw not in points:
            points[raw] = permille
        charm = raw - drops[raw % 100]
        if charm > 0 and charm not in points:
            points[charm] = permille
    return points
