"""Menus: everything about the price of an item that does not depend on who asks, computed once and remembered.

A `PricedItem` is one version of an item under one policy; its `Menu` is what a user with a certain last price may be
offered; the menu's `Chances` are what the policy makes of it at a level of intent. Nothing here can change a byte: drop
every cache, and the same prices come out.
"""

from __future__ import annotations

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.catalogue import CatalogueItem
from contracts.decisions import TrailStep
from contracts.errors import BrokenInvariant
from contracts.policies import Policy
from contracts.rules import LearningRule
from pricing import policies, rails, reasons
from pricing.arms import Arms, best, of_rule
from pricing.choosers import Sight
from pricing.draws import cumulated
from pricing.lattice import charm_drops, full_lattice

ITEMS_MAX = 32_768
"""Item versions remembered by one shelf and kind of market, at 3 to 7 kB each, whatever the policies; the first one judged
goes first."""
LISTED_MAX = 16_384
"""List prices remembered per policy: a shop has fewer of them than items."""
MENUS_MAX = 32
"""Last prices remembered per item."""

_to_json = msgspec.json.Encoder().encode
_CERTAIN = msgspec.Raw(b"[1.0]")


class Trail(Struct, frozen=True, gc=False):
    """The rails that bind, and their JSON, written once for all decisions that carry it."""

    steps: tuple[TrailStep, ...]
    rails: tuple[str, ...]
    """Their names."""
    json: msgspec.Raw

    @classmethod
    def of(cls, *steps: TrailStep) -> Trail:
        """Return the trail of `steps`."""
        return cls(steps, tuple([step.rail for step in steps]), msgspec.Raw(_to_json(steps)))


class Chances(Struct, frozen=True, gc=False):
    """The probabilities of a menu's prices, ready to be drawn from by a uniform number."""

    probabilities: tuple[float, ...]
    """Per feasible price, ascending by price."""
    cumulative: tuple[float, ...]
    target: int | None
    """Index of the price that the policy aims at; None: it aims at none."""
    binding_rule: str | None
    """The rail that kept the policy from its target."""
    aimed: tuple[str, ...]
    """Reasons of the target."""
    explored: tuple[str, ...]
    """Reasons of any other price."""
    prices_json: msgspec.Raw
    """The menu's prices and their probabilities as JSON, for the decisions and outcomes of all draws from them."""
    probabilities_json: msgspec.Raw


class Basis:
    """What all menus of an item have in common. It knows none of them: an item that is forgotten must go at once, and circles
    would wait for the garbage collector, which comes seldom (pricing.garbage).
    """

    __slots__ = ("_cost", "_lattice_arms", "lattice", "list_price", "policy")

    def __init__(self, policy: Policy, list_price: int, cost: int | None, lattice: tuple[int, ...]) -> None:
        self.policy = policy
        self.list_price = list_price
        self.lattice = lattice
        self._cost = cost
        self._lattice_arms: tuple[float, Arms] | None = None

    def arms(self, prices: tuple[int, ...], discount_weight: float = 0.0) -> Arms:
        """Return `prices` of the item as numbers to compute with; `discount_weight` is lambda of the discount budget."""
        return of_rule(self.policy.rule, prices, self.list_price, self._cost, discount_weight)

    def values(self, sight: Sight) -> tuple[NDArray[np.float64], Arms]:
        """Return what a learning policy expects of every point of the full lattice, rails or not, (1, k); and these points."""
        known = self._lattice_arms
        if known is None or known[0] != sight.discount_weight:
            known = self._lattice_arms = sight.discount_weight, self.arms(self.lattice, sight.discount_weight)
        return sight.chooser.values(sight.row, known[1]), known[1]


class Menu:
    """What one user may be offered of one item: the feasible prices, and why no others."""

    __slots__ = ("_arms", "_basis", "_chances", "_pinned", "_prices_json", "prices", "trail")

    def __init__(self, basis: Basis, prices: tuple[int, ...], steps: tuple[TrailStep, ...]) -> None:
        self._basis = basis
        self._arms: tuple[float, Arms, NDArray[np.intp]] | None = None
        self._chances: dict[int, Chances] = {}
        self._pinned: dict[tuple[str, int], Trail] = {}
        self.prices = prices
        """Feasible, ascending; the list price is among them."""
        self.trail = Trail.of(*steps)
        self._prices_json = msgspec.Raw(_to_json(prices))

    def chances(self, intent: int) -> Chances:
        """Return what the policy makes of this menu at a level of intent."""
        known = self._chances.get(intent)
        if known is None:
            known = self._chances[intent] = self._weigh(intent)
        return known

    def _weigh(self, intent: int) -> Chances:
        rule, list_price, lattice = self._basis.policy.rule, self._basis.list_price, self._basis.lattice
        if isinstance(rule, LearningRule):  # prescribed prices apart, such a rule is asked with what it sees
            raise BrokenInvariant(
                f"A {rule.__struct_config__.tag} policy was asked for a price without features: report it"
            )
        aim = policies.target_price(rule, list_price, intent)
        target, binding = None, None
        if aim is not None:
            target = policies.nearest_at_or_below(self.prices, aim)
            ideal = lattice[policies.nearest_at_or_below(lattice, aim)]
            binding = rails.nearest_rail(self.trail.steps, ideal, self.prices[target])
        chances = tuple(policies.probabilities(rule, self.prices, list_price, intent))
        aimed, explored = reasons.of_draw(rule, binding, len(self.prices))
        chances_json = msgspec.Raw(_to_json(chances))
        return Chances(chances, cumulated(chances), target, binding, aimed, explored, self._prices_json, chances_json)

    def chances_of(self, sight: Sight) -> Chances:
        """Return what a learning policy makes of this menu, for one draw; nothing of it is remembered."""
        basis = self._basis
        if len(self.prices) == 1:
            aimed, explored = reasons.of_draw(basis.policy.rule, None, 1)
            return Chances((1.0,), (1.0,), 0, None, aimed, explored, self._prices_json, _CERTAIN)
        if self._arms is None or self._arms[0] != sight.discount_weight:
            places = np.searchsorted(basis.lattice, self.prices)
            self._arms = sight.discount_weight, basis.arms(self.prices, sight.discount_weight), places
        _, arms, places = self._arms
        chances: list[float] = sight.chooser.weigh(sight.row, arms)[0].tolist()
        values, every = basis.values(sight)
        target, ideal = int(best(values[:, places], arms)[0]), basis.lattice[int(best(values, every)[0])]
        binding = rails.nearest_rail(self.trail.steps, ideal, self.prices[target])
        aimed, explored = reasons.of_draw(basis.policy.rule, binding, len(self.prices))
        chances_json = msgspec.Raw(_to_json(chances))
        return Chances(
            tuple(chances), cumulated(chances), target, binding, aimed, explored, self._prices_json, chances_json
        )

    def pinned(self, rule: str, price: int) -> Trail:
        """Return the trail of a price that `rule` prescribes: it removes all other points of the lattice."""
        trail = self._pinned.get((rule, price))
        if trail is None:
            others = len(self._basis.lattice) - 1
            steps = self.trail.steps
            trail = Trail.of(*steps, TrailStep(rule, price, price, others)) if others else self.trail
            self._pinned[rule, price] = trail
        return trail


class Listed:
    """What a list price alone makes of an item under one policy: its lattice, and what the charm endings leave of it."""

    __slots__ = ("allowed", "charm", "json", "lattice", "multipliers")

    def __init__(self, list_price: int, policy: Policy) -> None:
        limits = policy.rails
        drops = charm_drops(limits.charm_endings)
        self.multipliers = full_lattice(list_price, limits.multipliers, drops)
        """Price -> nominal multiplier in permille."""
        self.lattice = lattice = tuple(sorted(self.multipliers))
        self.json = msgspec.Raw(_to_json(lattice))
        self.charm = rails.judge_charm(lattice, drops, list_price)
        self.allowed = tuple([price for price in lattice if not drops[price % 100] or price == list_price])
        """Ascending; the list price is among them."""


class PricedItem:
    """One version of an item under one policy, in markets that may raise prices above list or may not.

    `refused_by` names what makes the item unfit to be priced: a bound of its own that its list price breaks.
    """

    __slots__ = (
        "_basis",
        "_feasible",
        "_menus",
        "_step_limit",
        "_steps",
        "item",
        "lattice",
        "lattice_json",
        "list_price",
        "multipliers",
        "policy",
        "refused_by",
        "version",
    )

    def __init__(self, version: int, item: CatalogueItem, policy: Policy, listed: Listed, may_raise: bool) -> None:
        self.version = version
        self.item = item
        self.policy = policy
        self.list_price = list_price = item.list_price
        limits = policy.rails
        self.multipliers = listed.multipliers
        """Price -> nominal multiplier in permille."""
        self.lattice = lattice = listed.lattice
        self.lattice_json = listed.json
        own = rails.own_bounds(item, limits.margin_min_permille)
        self.refused_by = next((bound[0] for bound in own if not rails.allows(bound, list_price)), None)
        bounds = own + rails.policy_bounds(list_price, limits, may_raise)
        judged = [rails.judge(bound, lattice, list_price) for bound in bounds]
        judged.append(listed.charm)
        self._steps = tuple([step for step in judged if step is not None])
        low = max([low for _, low, _ in bounds if low is not None])
        high = min([high for _, _, high in bounds if high is not None])
        self._feasible = rails.within(low, high, listed.allowed, list_price)
        self._step_limit = rails.step_limit(list_price, limits)
        self._menus: dict[int, Menu] = {}
        self._basis = Basis(policy, list_price, item.cost, lattice)

    def allows(self, price: int) -> bool:
        """Return whether `price` is on the lattice and within every rail that does not depend on the user."""
        return price in self._feasible

    def menu(self, last_price: int) -> Menu:
        """Return what a user whose last price of this item was `last_price` may be offered."""
        menu = self._menus.get(last_price)
        if menu is None:
            if len(self._menus) >= MENUS_MAX:
                self._menus.clear()
            menu = self._menus[last_price] = self._menu(last_price)
        return menu

    def _menu(self, last_price: int) -> Menu:
        low, high = last_price - self._step_limit, last_price + self._step_limit
        step = rails.judge(("step", low, high), self.lattice, self.list_price)
        if step is None:
            return Menu(self._basis, self._feasible, self._steps)
        return Menu(self._basis, rails.within(low, high, self._feasible, self.list_price), (*self._steps, step))


class MenuBook:
    """The priced items of one policy; remembers the last `items_max` of them per kind of market."""

    __slots__ = ("_items", "_listed", "_raise_markets", "items_max", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.items_max = ITEMS_MAX
        self._raise_markets = frozenset(policy.rails.raise_markets)
        self._items: tuple[dict[int, PricedItem], dict[int, PricedItem]] = ({}, {})
        self._listed: dict[int, Listed] = {}

    def of(self, version: int, item: CatalogueItem, market: str | None) -> PricedItem:
        """Return `item`, of catalogue version `version`, as it is priced in `market`."""
        may_raise = market in self._raise_markets
        items = self._items[may_raise]
        known = items.get(version)
        if known is None or known.item is not item:  # another catalogue may give the same version to another item
            while len(items) >= self.items_max:
                del items[next(iter(items))]
            known = items[version] = self.priced(version, item, may_raise)
        return known

    def priced(self, version: int, item: CatalogueItem, may_raise: bool) -> PricedItem:
        """Return `item` priced, not remembered but for what its list price makes of it."""
        listed = self._listed.get(item.list_price)
        if listed is None:
            if len(self._listed) >= LISTED_MAX:
                self._listed.clear()
            listed = self._listed[item.list_price] = Listed(item.list_price, self.policy)
        return PricedItem(version, item, self.policy, listed, may_raise)


class MenuShelf:
    """The menus of the policies in force; one shelf may serve all engines of a process."""

    __slots__ = ("_books", "_shadow")

    def __init__(self) -> None:
        self._books: dict[int, MenuBook] = {}
        self._shadow: MenuBook | None = None

    def shadow_of(self, policy: Policy | None) -> MenuBook | None:
        """Return the menus of what decides as a shadow, beside all those of `of`; of None nothing, and they are forgotten."""
        if self._shadow is None or self._shadow.policy != policy:
            self._shadow = None if policy is None else MenuBook(policy)
        return self._shadow

    def of(self, *policies: Policy) -> list[MenuBook]:
        """Return the menus of each of `policies`; those of others are forgotten. Together they hold what one would alone."""
        wanted = {id(policy): policy for policy in policies}
        if wanted.keys() != self._books.keys():
            self._books = {key: self._books.get(key) or MenuBook(policy) for key, policy in wanted.items()}
            for book in self._books.values():
                book.items_max = max(ITEMS_MAX // len(self._books), 1)
        return [self._books[id(policy)] for policy in policies]
