"""Policies: how a price is chosen among the feasible ones, as a probability for each. Pure functions of rule and intent.

A rule has a target price, but for the uniform one; the share `explore` of draws is spread evenly over all feasible prices,
and the rest goes to the feasible price nearest at or below the target (the lowest, if all lie above). What is logged as
propensity is the probability of the price that left the house. Not here: the draw itself (pricing.draws), rails (pricing.rails).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from contracts.policies import FixedPrice, ListPrice, PlainRule, SessionIntent, UniformRandom
from features.state import SessionItem, UserState
from pricing.lattice import scaled

LONG_LOOK_MS = 60_000
"""Dwell on an item from which a look counts as interest."""
INTENT_MAX = 7

_NOTHING = SessionItem()


def intent_level(state: UserState, item: str) -> int:
    """Return how strongly this session intends to buy `item`: 0 (a first look) to INTENT_MAX.

    One level each for the second and the third view, a click, a minute of dwell, a search in this session; two for the
    cart. Grows with every signal and with nothing else: tenure, frequency over days and spend are never read.
    """
    seen = state.session_items.get(item, _NOTHING)
    level = min(max(seen.views - 1, 0), 2)
    if seen.clicks > 0:
        level += 1
    if seen.carts > 0:
        level += 2
    if seen.dwell_ms >= LONG_LOOK_MS:
        level += 1
    if state.session_searches > 0:
        level += 1
    return level


def target_price(rule: PlainRule, list_price: int, intent: int) -> int | None:
    """Return the price that `rule` would charge if there were no rails; None: it aims at none, but tries all alike."""
    if isinstance(rule, UniformRandom):
        return None
    if isinstance(rule, FixedPrice):
        return scaled(list_price, rule.multiplier_permille)
    if not isinstance(rule, SessionIntent):
        return list_price
    discounts = rule.discounts_permille
    return scaled(list_price, max(1000 - discounts[min(intent, len(discounts) - 1)], 0))


def nearest_at_or_below(prices: Sequence[int], target: int) -> int:
    """Return the index of the largest of the ascending `prices` that is <= `target`; 0 if all lie above."""
    return max(bisect_right(prices, target) - 1, 0)


def probabilities(rule: PlainRule, prices: Sequence[int], list_price: int, intent: int) -> list[float]:
    """Return the probability of each of the ascending feasible `prices`; they sum to 1."""
    if len(prices) == 1:
        return [1.0]
    explore, target = _explored(rule), target_price(rule, list_price, intent)
    chances = [explore / len(prices)] * len(prices)
    if target is not None:
        chances[nearest_at_or_below(prices, target)] += 1.0 - explore
    return chances


def _explored(rule: PlainRule) -> float:
    """Return the share of draws that is spread evenly."""
    if isinstance(rule, UniformRandom):
        return 1.0
    return 0.0 if isinstance(rule, ListPrice) else rule.explore
