"""What a learning policy charges before it has learned anything, for whoever is about to publish it. Asks the engine's own
functions; changes nothing.
"""

from __future__ import annotations

from msgspec import Struct

from contracts.policies import Policy
from contracts.rules import LearningRule
from pricing.learned import known_of, seen_of, sights_of
from pricing.menus import MenuBook
from pricing.verdicts import bare_item

LIST_PRICE = 10_000


class Beginning(Struct, frozen=True, kw_only=True):
    """The prices of an item of list price LIST_PRICE without bounds or cost of its own, for a user's first look at it."""

    mean: float
    likeliest: int
    probability: float
    """Of the likeliest."""
    lowest: int
    """Feasible."""
    assumed_cost_permille: int | None
    """Of list price; None: the rule assumes none."""

    @property
    def sentence(self) -> str:
        """It in words."""
        permille = self.assumed_cost_permille
        cost = "without a known cost" if permille is None else f"with its assumed cost of {permille / 10:.2f}"
        place = " (the lowest that the rails allow)" if self.likeliest == self.lowest < LIST_PRICE else ""
        return (
            f"Until it has learned, a first look at an item of list price {LIST_PRICE / 100:.2f} {cost} is priced at "
            f"{self.mean / 100:.2f} on average; most often, in {self.probability:.1%} of draws, at "
            f"{self.likeliest / 100:.2f}{place}."
        )


def beginning_of(policy: Policy) -> Beginning | None:
    """Return what `policy` charges before its first version; None: it learns nothing."""
    if not isinstance(policy.rule, LearningRule):
        return None
    priced = MenuBook(policy).priced(0, bare_item("item", 0, "USD", LIST_PRICE), may_raise=False)
    menu = priced.menu(LIST_PRICE)
    (sight,) = sights_of(known_of(policy, None), [seen_of(LIST_PRICE, 0, None)])
    chances = menu.chances_of(sight).probabilities
    probability, likeliest = max(zip(chances, menu.prices, strict=True))
    return Beginning(
        mean=sum(p * price for p, price in zip(chances, menu.prices, strict=True)),
        likeliest=likeliest,
        probability=probability,
        lowest=menu.prices[0],
        assumed_cost_permille=policy.rule.money.assumed_cost_permille,
    )
