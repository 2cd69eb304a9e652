"""Simulated shops whose every purchase chance is known, so that a policy's value and the best possible one are, too.

LOGIT, MIS: 20,000 visits of as many people, nine multipliers from 0.80 to 1.20, unit cost 0.60 of list; at half time people
change. In LOGIT demand is logit, in MIS it is not. NULL: nobody gains by leaving list price. CARRY: people come back, and
remember: a low price lowers what they think is fair, and discounts wear off. Luck is common: whether somebody buys at a
price does not depend on which policy asked. Models of nobody: a policy's gain here is no promise.
Source of LOGIT and MIS: the project's reference on pricing, section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Demand = Callable[[NDArray[np.int64], Floats], Floats]
"""Chance of a purchase at any multiplier of list price: (n,) visits and (k,) multipliers to (n, k)."""

PERMILLE = tuple(range(800, 1201, 50))
"""Multipliers of list price that may be charged."""
COST_PERMILLE = 600
LIST_PRICE = 10_000
WIDTH = 16
"""Numbers that are known of a visit."""
DAY_MS = 86_400_000


@dataclass(frozen=True)
class World:
    """T visits; nothing in a visit depends on the prices of earlier ones. CARRY is another (backtest.memories)."""

    x: Floats
    """(T, 16): what is known of each visit."""
    chances: Floats
    """(T, K): of a purchase at each of PERMILLE."""
    luck: Floats
    """(T,): the visit ends in a purchase where this is below the chance."""
    demand: Demand
    """What `chances` are points of."""
    permille: tuple[int, ...] = PERMILLE

    @property
    def rewards(self) -> Floats:
        """Expected margin of each price, (T, K), in list prices."""
        return self.chances * margins(self.permille)

    @property
    def list_arm(self) -> int:
        """Which arm is the list price."""
        return self.permille.index(1000)

    def without_raises(self) -> World:
        """Return the same visits with the prices up to list only."""
        kept = self.list_arm + 1
        cheaper = np.ascontiguousarray(self.chances[:, :kept])
        return World(self.x, cheaper, self.luck, self.demand, self.permille[:kept])


def margins(permille: tuple[int, ...]) -> Floats:
    """Return what a purchase earns at each multiplier, in list prices."""
    return (np.array(permille) - COST_PERMILLE) / 1000.0


def world_of(name: str, seed: int, visits: int) -> World:
    """Return the world LOGIT, MIS or NULL of `seed`, halves of `visits` before and after the change."""
    return WORLDS[name](seed, visits)


def world_with(x: Floats, luck: Floats, demand: Demand) -> World:
    """Return the world of visits x, (T, 16), with their luck, (T,), and their demand."""
    return World(x, demand(np.arange(len(x)), np.array(PERMILLE) / 1000.0), luck, demand)


def _turned(x: Floats, weights: Floats) -> Floats:
    """Return x . weights, with the first half of the weights negated in the second half of the time."""
    turned = weights.copy()
    turned[: WIDTH // 2] *= -1.0
    now = np.arange(len(x))[:, None] < len(x) // 2
    along: Floats = (x * np.where(now, weights, turned)).sum(-1)
    return along


def _sigmoid(value: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-value))


def _logit(seed: int, visits: int) -> World:
    random = np.random.Generator(np.random.PCG64(seed))
    level, response = random.normal(0.0, 0.15, WIDTH), random.normal(0.0, 0.175, WIDTH)
    x = random.normal(0.0, 1.0, (visits, WIDTH))
    a = -1.0 + (x * level).sum(-1)
    b = np.exp(1.9 + _turned(x, response))
    return world_with(x, random.random(visits), lambda visit, m: _sigmoid(a[visit, None] - b[visit, None] * (m - 1.0)))


def _misspecified(seed: int, visits: int) -> World:
    """Three kinds of people: some never look at prices, some never buy, the others have a willingness to pay."""
    random = np.random.Generator(np.random.PCG64(1000 + seed))
    first, second = random.normal(0.0, 0.25, WIDTH), random.normal(0.0, 0.25, WIDTH)
    x = random.normal(0.0, 1.0, (visits, WIDTH))
    luck = random.random(visits)
    h = _turned(x, first)
    centre = -0.12 + 0.16 * np.tanh(h) + 0.08 * np.tanh(2.0 * (x * second).sum(-1) * h)
    spread = np.where(x[:, 0] > 0.0, 0.10, 0.22)
    cdf = np.vectorize(NormalDist().cdf, otypes=[float])

    def demand(visit: NDArray[np.int64], m: Floats) -> Floats:
        felt = np.log(m + 0.25 * np.maximum(m - 1.0, 0.0))
        below = (felt - centre[visit, None]) / spread[visit, None]
        buys: Floats = 0.05 * 0.9 + 0.2 * 0.01 + 0.75 * (1.0 - cdf(below))
        return buys

    return world_with(x, luck, demand)


def _null(seed: int, visits: int) -> World:
    """The response to prices is the same for all, and such that margin is highest at list price for the average visit."""
    random = np.random.Generator(np.random.PCG64(2000 + seed))
    level = random.normal(0.0, 0.15, WIDTH)
    x = random.normal(0.0, 1.0, (visits, WIDTH))
    a = -1.0 + (x * level).sum(-1)
    average = float(_sigmoid(np.array(-1.0)))
    b = 1000.0 / ((1000 - COST_PERMILLE) * (1.0 - average))  # where d/dm of (m - cost) * P is 0 at m = 1
    return world_with(x, random.random(visits), lambda visit, m: _sigmoid(a[visit, None] - b * (m - 1.0)))


WORLDS = {"LOGIT": _logit, "MIS": _misspecified, "NULL": _null}
"""By name: what makes the world of a seed, with so many visits."""
