"""Rails: which points of the full lattice a personal offer may take. Integers in minor units.

Each rail is judged against the full lattice by itself, so their order cannot matter and one point may fall to several.
A rail binds, and is in the trail, when it removes at least one point. The list price is always feasible: charm endings,
step limit and band never remove it, and an item whose list price breaks its own bounds is refused. Not here: which
feasible price is chosen (pricing.policies), and when a price is held or prescribed (pricing.offers).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from contracts.catalogue import CatalogueItem
from contracts.decisions import TrailStep
from contracts.policies import Rails

Bound = tuple[str, int | None, int | None]
"""A rail's name and the lowest and highest price it allows; None: no bound."""


def own_bounds(item: CatalogueItem, margin_min_permille: int) -> list[Bound]:
    """Return the bounds that the item brings: floor, margin = ceil(cost * (1000 + least margin) / 1000), MAP, ceiling."""
    bounds: list[Bound] = []
    if item.floor is not None:
        bounds.append(("floor", item.floor, None))
    if item.cost is not None:
        bounds.append(("margin", -(-item.cost * (1000 + margin_min_permille) // 1000), None))
    if item.map_price is not None:
        bounds.append(("map", item.map_price, None))
    if item.ceiling is not None:
        bounds.append(("ceiling", None, item.ceiling))
    return bounds


def policy_bounds(list_price: int, rails: Rails, may_raise: bool) -> list[Bound]:
    """Return the bounds around the list price: discount-only (unless the market allows raises) and the static band."""
    low = -(-list_price * rails.band_low_permille // 1000)
    band: Bound = ("band", low, list_price * rails.band_high_permille // 1000)
    return [band] if may_raise else [("discount_only", None, list_price), band]


def step_limit(list_price: int, rails: Rails) -> int:
    """Return the most that a price may differ from the user's last price of the item."""
    return list_price * rails.step_max_permille // 1000


def allows(bound: Bound, price: int) -> bool:
    """Return whether `price` lies within `bound`."""
    _, low, high = bound
    return (low is None or price >= low) and (high is None or price <= high)


def judge(bound: Bound, lattice: Sequence[int], list_price: int) -> TrailStep | None:
    """Return the trail step of `bound` over the ascending `lattice`, or None if it removes nothing but the list price."""
    rail, low, high = bound
    removed = 0
    if low is not None:
        removed = bisect_left(lattice, low) - (list_price < low)
    if high is not None:
        removed += len(lattice) - bisect_right(lattice, high) - (list_price > high)
    return TrailStep(rail, low, high, removed) if removed else None


def judge_charm(lattice: Sequence[int], drops: Sequence[int], list_price: int) -> TrailStep | None:
    """Return the trail step of the charm endings, or None if they remove nothing but the list price.

    `drops` are those of the endings (pricing.lattice): 0 where one is allowed.
    """
    removed = sum([drops[price % 100] > 0 for price in lattice]) - (drops[list_price % 100] > 0)
    return TrailStep("charm", None, None, removed) if removed else None


def within(low: int, high: int, prices: tuple[int, ...], list_price: int) -> tuple[int, ...]:
    """Return those of the ascending `prices` in low..high, and the list price in its place, in the range or not."""
    if low <= list_price <= high:
        return prices[bisect_left(prices, low) : bisect_right(prices, high)]
    return tuple([price for price in prices if low <= price <= high or price == list_price])


def nearest_rail(trail: Sequence[TrailStep], ideal: int, chosen: int) -> str | None:
    """Return the rail that kept a policy from `ideal`: the tightest bound towards `chosen`, else the charm endings.

    None when the two are equal. The first in the trail's order wins a tie.
    """
    if chosen == ideal:
        return None
    if chosen > ideal:
        lows = [(step.low, step.rail) for step in trail if step.low is not None and step.low > ideal]
        return max(lows, key=lambda low: low[0])[1] if lows else "charm"
    highs = [(step.high, step.rail) for step in trail if step.high is not None and step.high < ideal]
    return min(highs, key=lambda high: high[0])[1] if highs else "charm"
