"""The worlds LOGIT, MIS and NULL as shops: every visit is somebody new, who looks at one item, and what is known of the visit
comes to the policy as the vector of a user, as it would from a model. And what any simulated shop is made of.

Not here: the worlds (backtest.worlds), what shoppers do (backtest.crowd).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from hashlib import sha256

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backtest.crowd import Look
from backtest.shoppers import START_MS
from backtest.worlds import COST_PERMILLE, LIST_PRICE, Floats, World, world_of
from contracts.log_rows import CatalogueRow
from features.vectors import Encoded, TokenAsk, TokenEncoder

ITEMS = 20
"""All at the same list price and cost."""
PACE_MS = 5_000
"""Between two visits."""
GRANT, DENY = 0.90, 0.05
"""Shares of visitors that grant and deny consent; the rest says nothing."""
LEAVE = 0.05
"""Share that is gone before the price is seen."""
TEMPTED = 0.1
"""Share that puts the item into the cart, buying or not."""


class Town(Struct, kw_only=True):
    """A simulated shop: what it sells, who looks at it, and what a policy is told of them."""

    name: str
    catalogue: list[CatalogueRow]
    currency: str = "USD"
    looks: Callable[[], Iterator[Look]]
    """Begins anew with every call."""
    encoder: TokenEncoder | None = None
    """What a policy sees of a user, besides what the events say."""
    rules: tuple[str, ...] = ()
    """For the manifest of a log, a sentence each."""


class VisitVectors:
    """In the place of a model: the vector of a user is what the world says of the visit. Remembers nothing."""

    def __init__(self, world: World, name: str, seed: int) -> None:
        self._x = world.x.astype(np.float32)
        self.digest = sha256(f"{name} {seed} {len(world.x)}".encode()).hexdigest()

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """Return the numbers of each ask's visit, and the same propensity for all."""
        visits = [int(ask.user.rpartition(b"-")[2]) for ask in asks]
        return Encoded(self._x[visits], np.full(len(visits), -3.0, dtype=np.float32))

    def release(self, owner: Hashable) -> None:
        """Nothing to forget."""

    def forget(self, owner: Hashable, user: bytes) -> None:
        """Nothing to forget."""


def passers_by(name: str, seed: int, visits: int) -> Town:
    """Return the world of that name and seed as a shop."""
    world = world_of(name, seed, visits)
    return Town(
        name=name,
        catalogue=[
            CatalogueRow(
                item=f"item-{number:02d}", valid_from_ms=0, title=f"item {number}", category="all", brand="none",
                currency="USD", list_price=LIST_PRICE, cost=LIST_PRICE * COST_PERMILLE // 1000,
            )
            for number in range(ITEMS)
        ],
        looks=partial(_looks, world, seed),
        encoder=VisitVectors(world, name, seed),
        rules=(
            f"Everything: visits, prices and purchases are of the simulated world {name}, seed {seed}; truth.* says what the "
            "chance of a purchase was at every feasible price.",
            "What the policy saw of a visitor stands in the outcomes beside the log, not in the events.",
        ),
    )  # fmt: skip


def pauses(random: np.random.Generator) -> tuple[int, int, int]:
    """Return when a shopper sees a price, carts and buys, in ms after opening the page; see backtest.crowd.Look."""
    steps = random.integers((3_000, 5_000, 5_000), (15_000, 120_000, 400_000))
    sees, carts, buys = np.cumsum(steps).tolist()
    return sees, carts, buys


def _looks(world: World, seed: int) -> Iterator[Look]:
    random = np.random.Generator(np.random.PCG64([seed, 1]))
    for visit in range(len(world.x)):
        leaves, tempted, says = random.random(3).tolist()
        at, user = np.array([visit]), f"visitor-{visit:07d}"
        demand = partial(_demand, world, at)
        yield Look(
            at_ms=START_MS + visit * PACE_MS, user=user, item=f"item-{visit % ITEMS:02d}", list_price=LIST_PRICE,
            cost=LIST_PRICE * COST_PERMILLE // 1000, session=user, demand=demand,
            luck=float(world.luck[visit]), leaves=leaves < LEAVE, tempted=tempted < TEMPTED, pauses_ms=pauses(random),
            says=True if says < GRANT else False if says < GRANT + DENY else None,
        )  # fmt: skip


def _demand(world: World, visit: NDArray[np.int64], m: Floats) -> Floats:
    chances: Floats = world.demand(visit, m)[0]
    return chances
