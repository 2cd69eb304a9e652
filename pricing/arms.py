"""Arms: the feasible prices of a batch of draws as numbers to compute with. Integers stay integers; padded where ragged.

A price is seen as its shift: how far it lies below list, in units of 20 % of list. Its gain is what a purchase at it is
worth, as a share of list price. Not here: which prices are feasible (pricing.menus), which is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.policies import Rule
from contracts.rules import LearningRule, Money, Thompson

SHIFTS_PER_LIST = 5.0
"""Shifts in the whole list price: a discount of 20 % is one shift."""

CostSource = Literal["catalogue", "assumed", "none"]
Floats = NDArray[np.float64]


class Arms(NamedTuple):
    """The feasible prices of n draws, each ascending, the shorter ones padded to k with their last price."""

    prices: NDArray[np.int64]
    """(n, k), minor units."""
    list_prices: NDArray[np.int64]
    """(n, 1)."""
    shifts: Floats
    """(n, k): 5 * (1 - price / list)."""
    gains: Floats
    """(n, k): worth of a purchase over list price; the same for padding."""
    aims: Floats
    """(n, k): gains less the rule's hurdle, which grows with the distance from list price: what prices are compared by."""
    counts: NDArray[np.int64]
    """(n, 1): feasible prices."""
    preferred: NDArray[np.intp]
    """(n, k): the arms in the order in which equal ones are best: the nearer to list price, then the higher. So whoever knows
    nothing charges list price. Padding comes behind what it repeats."""
    besides: Floats | None = None
    """(n, k): what charging the price is worth whether or not it sells, over list price; None: nothing, of no arm."""

    def reward(self, arm: int, bought: bool) -> float:
        """Return what came of charging `arm`, where there is one draw, over list price."""
        sold = float(self.gains[0, arm]) if bought else 0.0
        return sold if self.besides is None else sold + float(self.besides[0, arm])


def cost_of(cost: int | None, list_price: int, money: Money) -> tuple[float, CostSource]:
    """Return (cost in minor units, where it is from); 0 where none is known, so that revenue counts."""
    if cost is not None:
        return float(cost), "catalogue"
    if money.assumed_cost_permille is not None:
        return list_price * money.assumed_cost_permille / 1000.0, "assumed"
    return 0.0, "none"


def of_rule(rule: Rule, prices: Sequence[int], list_price: int, cost: int | None, discount_weight: float = 0.0) -> Arms:
    """Return the arms of one draw as `rule` values them; other arguments as of `one`."""
    if not isinstance(rule, LearningRule):
        return one(prices, list_price, cost, Money())
    hurdle, churn = rule.hurdle if isinstance(rule, Thompson) else 0.0, rule.churn
    arms = one(prices, list_price, cost, rule.money, discount_weight, hurdle)
    if churn.weight == 0.0:
        return arms
    return arms._replace(besides=churn.weight * churn.slope_value * arms.shifts)


def one(
    prices: Sequence[int],
    list_price: int,
    cost: int | None,
    money: Money,
    discount_weight: float = 0.0,
    hurdle: float = 0.0,
) -> Arms:
    """Return the arms of one draw.

    Args:
        prices: feasible, ascending.
        list_price: > 0.
        cost: the catalogue's.
        money: what a purchase is worth.
        discount_weight: lambda of the discount budget, on top of that of `money`.
        hurdle: contracts.rules.Thompson.hurdle.
    """
    amounts = np.array([prices], dtype=np.int64)
    m = amounts / list_price
    spent = cost_of(cost, list_price, money)[0] / list_price
    gains = m - spent - (money.discount_weight + discount_weight) * np.maximum(1.0 - m, 0.0)
    shifts = SHIFTS_PER_LIST * (1.0 - m)
    aims = gains if hurdle == 0.0 else gains - hurdle / SHIFTS_PER_LIST * np.abs(shifts * gains)
    counts, lists = np.full((1, 1), len(prices), dtype=np.int64), np.full((1, 1), list_price, dtype=np.int64)
    return Arms(amounts, lists, shifts, gains, aims, counts, _preferred(amounts, lists))


def stacked(many: Sequence[Arms]) -> Arms:
    """Return the arms of several draws as one."""
    width = max(each.prices.shape[1] for each in many)
    rows = [[_padded(array, width) for array in (each.prices, each.shifts, each.gains, each.aims)] for each in many]
    prices, shifts, gains, aims = (np.concatenate(column) for column in zip(*rows, strict=True))
    lists, counts = (np.concatenate(column) for column in zip(*[(e.list_prices, e.counts) for e in many], strict=True))
    weighed = [each.besides for each in many if each.besides is not None]
    besides = np.concatenate([_padded(one, width) for one in weighed]) if len(weighed) == len(many) else None
    return Arms(prices, lists, shifts, gains, aims, counts, _preferred(prices, lists), besides)


def best(worth: Floats, arms: Arms) -> NDArray[np.intp]:
    """Return the arm of the highest worth, of equal ones the preferred: (n,) of (n, k), (n, s) of (n, s, k)."""
    order = arms.preferred
    if len(order) == 1:  # one draw, at its turn: no index per row
        places: NDArray[np.intp] = order[0][worth.take(order[0], -1).argmax(-1)]
        return places
    if worth.ndim == 3:
        order = order[:, None]
    first = np.take_along_axis(worth, order, -1).argmax(-1)
    return np.take_along_axis(order, first[..., None], -1)[..., 0]


def _preferred(prices: NDArray[np.int64], list_prices: NDArray[np.int64]) -> NDArray[np.intp]:
    distances = 2 * np.abs(prices - list_prices) - (prices > list_prices)
    order: NDArray[np.intp] = distances.argsort(-1, kind="stable")
    return order


def _padded(row: NDArray, width: int) -> NDArray:  # type: ignore[type-arg]  # of any dtype
    return np.pad(row, ((0, 0), (0, width - row.shape[1])), mode="edge")
