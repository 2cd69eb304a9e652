"""Checks decisions from outside: reads their JSON with the standard library and judges every point by the definitions.

Imports nothing of what it checks. Slow and plain on purpose: fractions, loops, and the list price searched for by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

RAILS = ("floor", "margin", "map", "ceiling", "discount_only", "band", "charm", "step")
MONEY = ("price", "list_price", "multiplier")


class NotExplained(AssertionError):
    """A decision that its own record does not explain."""


@dataclass
class Terms:
    """What a decision must respect, as plain numbers; `None` where an item has no such bound."""

    list_price: int
    multipliers: tuple[int, ...]
    endings: tuple[int, ...]
    band: tuple[int, int]
    margin: int
    step: int
    may_raise: bool
    floor: int | None = None
    cost: int | None = None
    map_price: int | None = None
    ceiling: int | None = None
    points: list[int] = field(init=False)
    removed_by: dict[str, set[int]] = field(init=False)
    _found: dict[tuple[int | None, ...], set[int]] = field(default_factory=dict)
    """Answers that were given: terms judge many decisions, most of which state the same bounds."""
    accounted: dict[tuple[Any, ...], set[int]] = field(default_factory=dict)
    """Trails that were found right, by all that decides it, and the points that they leave."""

    def __post_init__(self) -> None:
        self.points = self._points()
        self.removed_by = {
            rail: {p for p in self.points if not self._permits(rail, p)} for rail in RAILS if rail != "step"
        }

    def _points(self) -> list[int]:
        points = {self.list_price}
        for multiplier in self.multipliers:
            exact = Fraction(self.list_price * multiplier, 1000)
            raw = int(exact) + (exact - int(exact) >= Fraction(1, 2))
            charm = raw
            while charm > 0 and self.endings and charm % 100 not in self.endings:
                charm -= 1
            points |= {raw, charm}
        return sorted(point for point in points if point > 0)

    def _permits(self, rail: str, price: int) -> bool:
        share = Fraction(price, self.list_price)
        if rail == "floor":
            return self.floor is None or price >= self.floor
        if rail == "margin":
            return self.cost is None or price >= self.cost * Fraction(1000 + self.margin, 1000)
        if rail == "map":
            return self.map_price is None or price >= self.map_price
        if rail == "ceiling":
            return self.ceiling is None or price <= self.ceiling
        if rail == "discount_only":
            return self.may_raise or price <= self.list_price
        if rail == "band":
            return price == self.list_price or Fraction(self.band[0], 1000) <= share <= Fraction(self.band[1], 1000)
        return price == self.list_price or not self.endings or price % 100 in self.endings

    def step_permits(self, price: int, last: int) -> bool:
        return price == self.list_price or abs(price - last) * 1000 <= self.list_price * self.step

    def removed_by_step(self, last: int) -> set[int]:
        if (last,) not in self._found:
            self._found[last,] = {point for point in self.points if not self.step_permits(point, last)}
        return self._found[last,]

    def beyond(self, low: int | None, high: int | None) -> set[int]:
        """Return the points below `low` or above `high`."""
        if (low, high) not in self._found:
            below = {p for p in self.points if low is not None and p < low}
            self._found[low, high] = below | {p for p in self.points if high is not None and p > high}
        return self._found[low, high]


def require(holds: bool, what: str, decision: dict[str, Any]) -> None:
    if not holds:
        raise NotExplained(f"{what}: {decision}")


def check(value: bytes, terms: Terms, last: int, holdout: float = 0.0) -> dict[str, Any]:
    """Return the decision in `value` if it is right and explains itself.

    Args:
        value: JSON of a decision.
        terms: of its item, market and policy.
        last: the user's last price of the item before this decision; the list price if there was none.
        holdout: share of the users of the experiment who are held out.

    Raises:
        NotExplained: a price outside its rails, money that is no integer, a trail that does not account for a point.
    """
    decision: dict[str, Any] = json.loads(value)
    trail, price = decision["trail"], decision["price"]
    amounts = [decision[name] for name in MONEY] + decision["lattice"]
    amounts += [bound for step in trail for bound in step[1:3] if bound is not None]
    require(all(type(amount) is int for amount in amounts), "money that is no integer", decision)
    require(decision["list_price"] == terms.list_price, "not the list price", decision)
    require(decision["lattice"] == terms.points, "not the full lattice", decision)
    known = last, decision["status"] == "drawn", decision["binding_rule"], str(trail)
    left = terms.accounted.get(known)
    if left is None:
        left = terms.accounted[known] = _check_trail(decision, terms, last)
    require(price in left, "a price outside its rails", decision)
    require(decision["status"] == "held" or terms.list_price in left, "list price must be feasible", decision)
    require(decision["forced"] is (len(left) == 1 and decision["status"] != "held"), "forced", decision)
    require(0.0 < decision["propensity"] <= 1.0, "a propensity of what cannot happen", decision)
    require(not decision["forced"] or decision["propensity"] == 1.0, "forced, yet by chance", decision)
    chose = decision["status"] == "drawn" and not decision["forced"]
    for name in ("feasible", "probabilities", "u", "explored"):
        require((name in decision) is chose, f"{name} of what was no draw, or a draw without it", decision)
    if chose:
        _check_draw(decision, sorted(left), holdout)
    if decision["status"] == "list":
        require(price == terms.list_price and decision["draw_id"] is None, "a list price that is none", decision)
    return decision


def _check_draw(decision: dict[str, Any], feasible: list[int], holdout: float) -> None:
    """Draw again: the first price whose probabilities up to it sum to more than the decision's number, or list price."""
    chances, u = decision["probabilities"], decision["u"]
    require(decision["feasible"] == feasible, "not the prices that its rails leave", decision)
    require(len(chances) == len(feasible), "not one probability per feasible price", decision)
    require(min(chances) >= 0.0 and abs(sum(chances) - 1.0) < 1e-12, "probabilities that are none", decision)
    below = 0.0
    for price, chance in zip(feasible, chances, strict=True):
        below += chance
        if price == decision["list_price"] if decision.get("held_out") else u < below or price == feasible[-1]:
            break
    marginal = (1.0 - holdout) * chance + holdout * (price == decision["list_price"])
    require(price == decision["price"] and marginal == decision["propensity"], "another price was drawn", decision)


def _check_trail(decision: dict[str, Any], terms: Terms, last: int) -> set[int]:
    """Account for every point of the lattice by the decision's own trail; return the points that are left."""
    removed_by = dict(terms.removed_by)
    removed_by["step"] = terms.removed_by_step(last)
    binding = [rail for rail in RAILS if removed_by[rail]]
    trail = decision["trail"]
    names = [step[0] for step in trail]
    drawn = decision["status"] == "drawn"
    pins = [] if drawn or len(terms.points) == 1 else [decision["binding_rule"]]
    require(names == binding + pins, f"the trail should name {binding + pins}", decision)
    left = set(terms.points)
    for rail, low, high, count in trail:
        gone = terms.beyond(low, high)
        if rail == "charm":
            gone = {p for p in terms.points if p % 100 not in terms.endings}
        if rail in RAILS:
            gone = gone - {terms.list_price}
            require(gone == removed_by[rail], f"{rail} states other bounds than it has", decision)
        require(len(gone) == count, f"{rail} removed {len(gone)} points", decision)
        left -= gone
    return left
