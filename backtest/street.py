"""SHOP: a shop with the traffic of a recorded one (backtest.habits), and a demand whose elasticity is a parameter.

People come in sessions, look at some items of one category, buy as often at list price as the log says. What nobody can read off
a log without price variation is given: `elasticity`, by how many percent purchases fall when list price rises by one, for the
average look. Around it people differ: those who searched are keener, dear items are compared more, and each person has a
sensitivity that no policy sees. Sweep the elasticity before believing any gain. Not here: what shoppers do (backtest.crowd).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from heapq import heappop, heappush
from math import exp, log

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backtest import synthetic
from backtest.crowd import RUSH_MS, Look
from backtest.habits import HOUR_MS, Category, Habits
from backtest.passers_by import LEAVE, Town, pauses
from backtest.shoppers import START_MS
from contracts.log_rows import CatalogueRow

Floats = NDArray[np.float64]

KEENNESS = 0.5
"""Standard deviation of a person's log-odds of buying, which no policy sees."""
SEARCHED = 0.8
"""Added to the log-odds of those who searched; taken from the others, so that the mean stays about that of the log."""
SENSITIVITY = 0.35
"""Standard deviation of the logarithm of a person's elasticity, which no policy sees."""
DEARNESS = 0.3
"""Added to that logarithm per factor e^1.5 of list price above the shop's median."""
ITEMS_MAX = 5_000
"""Of the whole shop; a log with more has them thinned out."""
PAUSE_MIN_MS = 20_000
"""Between two looks of a session: a price is seen before the next page is opened."""
PEOPLE_KNOWN_MAX = 10_000


class _Shelf(Struct):
    category: Category
    items: list[CatalogueRow]
    popularity: Floats
    """Cumulative."""


class _Person(Struct):
    name: str
    keen: float
    sensitive: float
    says: bool | None
    sessions: int = 0


class _Session(Struct):
    person: _Person
    shelf: _Shelf
    left: int
    name: str
    searched: bool


def street(habits: Habits, elasticity: float, seed: int, looks: int, traffic: float = 1.0) -> Town:
    """Return the shop of `seed`.

    Args:
        habits: of its people.
        elasticity: > 0; see the module.
        seed: of everything.
        looks: so many pages are opened.
        traffic: sessions per hour, as a share of those of `habits`: fewer of them take longer, so more is learned on the way.
    """
    random = np.random.Generator(np.random.PCG64([seed, 2]))
    shelves = _shelves(habits, random)
    per_hour = tuple([rate * traffic for rate in habits.sessions_per_hour])
    slower = msgspec.structs.replace(habits, sessions_per_hour=per_hour)
    median = float(np.median([row.list_price for shelf in shelves for row in shelf.items]))
    return Town(
        name=f"SHOP, elasticity {elasticity:g}",
        currency=habits.currency,
        catalogue=[row for shelf in shelves for row in shelf.items],
        looks=partial(_looks, slower, shelves, elasticity, median, seed, looks),
        rules=(
            f"Everything: a shop simulated with seed {seed} after the traffic of: {habits.source}",
            f"Demand: elasticity {elasticity:g} at list price, given and not found in any data; truth.* says what the chance of a "
            "purchase was at every feasible price.",
            *synthetic.RULES_BOUNDS,
        ),
    )


def _shelves(habits: Habits, random: np.random.Generator) -> list[_Shelf]:
    """Return the shop's items by category: prices at the log's quantiles, popular ones looked at more often (Zipf)."""
    thin = min(1.0, ITEMS_MAX / sum(category.items for category in habits.categories))
    shelves = []
    for place, category in enumerate(habits.categories):
        count = max(round(category.items * thin), 1)
        points = np.linspace(0.0, 1.0, len(category.list_prices))
        prices = np.interp(random.random(count), points, category.list_prices)
        items = [
            synthetic.with_bounds(
                CatalogueRow(
                    item=f"item-{place:02d}-{number:04d}", valid_from_ms=0, title=f"{category.name} {number}",
                    category=category.name[:256], brand="none", currency=habits.currency, list_price=max(round(price), 100),
                )
            )
            for number, price in enumerate(prices.tolist())
        ]  # fmt: skip
        shelves.append(_Shelf(category, items, np.cumsum(1.0 / np.arange(1, count + 1))))
    return shelves


class _People:
    """Who comes: somebody new, or somebody who was here before."""

    def __init__(self, habits: Habits, random: np.random.Generator) -> None:
        self._habits, self._random = habits, random
        self._known: list[_Person] = []
        self._count = 0

    def one(self) -> _Person:
        """Return the person of a new session."""
        random, habits = self._random, self._habits
        if self._known and random.random() < 1.0 - 1.0 / habits.sessions_per_user:
            return self._known[int(random.integers(len(self._known)))]
        self._count += 1
        lot = float(random.random())
        says = True if lot < habits.grants else False if lot < habits.grants + habits.denies else None
        keen, sensitive = random.normal(0.0, 1.0, 2).tolist()
        person = _Person(f"shopper-{self._count:07d}", keen, sensitive, says)
        if len(self._known) < PEOPLE_KNOWN_MAX:
            self._known.append(person)
        else:
            self._known[int(random.integers(PEOPLE_KNOWN_MAX))] = person
        return person


def _looks(
    habits: Habits, shelves: list[_Shelf], elasticity: float, median: float, seed: int, looks: int
) -> Iterator[Look]:
    random = np.random.Generator(np.random.PCG64([seed, 3]))
    people, shares = _People(habits, random), np.cumsum([shelf.category.share for shelf in shelves])
    lengths, points = np.cumsum(habits.looks), np.linspace(0.0, 1.0, len(habits.pauses_ms))
    due: list[tuple[int, int, _Session]] = []
    arrival_ms, begun = START_MS, 0
    for _ in range(looks):
        while not due or arrival_ms <= due[0][0]:
            begun += 1
            heappush(due, (arrival_ms, begun, _session(people.one(), shelves, shares, lengths, habits, random)))
            arrival_ms += _until_next(habits, arrival_ms, random)
        now_ms, number, session = heappop(due)
        yield _look(session, now_ms, elasticity, median, random)
        session.left -= 1
        if session.left:
            pause_ms = max(int(np.interp(random.random(), points, habits.pauses_ms)), PAUSE_MIN_MS)
            heappush(due, (now_ms + min(pause_ms, 2 * RUSH_MS), number, session))


def _until_next(habits: Habits, now_ms: int, random: np.random.Generator) -> int:
    rate = max(habits.sessions_per_hour[now_ms // HOUR_MS % 24], 1e-3)
    return max(int(random.exponential(HOUR_MS / rate)), 1)


def _session(
    person: _Person, shelves: list[_Shelf], shares: Floats, lengths: Floats, habits: Habits, random: np.random.Generator
) -> _Session:
    shelf = shelves[_drawn(shares, random)]
    person.sessions += 1
    name = f"{person.name}-{person.sessions}"
    return _Session(person, shelf, 1 + _drawn(lengths, random), name, bool(random.random() < habits.searches))


def _drawn(cumulative: Floats, random: np.random.Generator) -> int:
    place = int(np.searchsorted(cumulative, random.random() * cumulative[-1], side="right"))
    return min(place, len(cumulative) - 1)


def _look(session: _Session, now_ms: int, elasticity: float, median: float, random: np.random.Generator) -> Look:
    person, category = session.person, session.shelf.category
    item = session.shelf.items[_drawn(session.shelf.popularity, random)]
    assert item.list_price is not None
    assert item.item is not None
    assert item.cost is not None
    usual = min(max(category.purchases, 1e-4), 0.95)
    level = log(usual / (1.0 - usual)) + KEENNESS * person.keen + SEARCHED * (session.searched - 0.5)
    dear = log(item.list_price / median) / 1.5
    chance = 1.0 / (1.0 + exp(-level))
    slope = elasticity * exp(SENSITIVITY * person.sensitive + DEARNESS * dear) / (1.0 - chance)
    leaves, tempted, luck = random.random(3).tolist()
    says, person.says = person.says, None
    return Look(
        at_ms=now_ms, user=person.name, item=item.item, list_price=item.list_price, cost=item.cost, session=session.name,
        demand=partial(chances_at, level, slope), luck=luck, leaves=leaves < LEAVE,
        tempted=tempted < max(category.carts - category.purchases, 0.0), pauses_ms=pauses(random), says=says,
        query=item.title if session.searched else None,
    )  # fmt: skip


def chances_at(level: float, slope: float, m: Floats) -> Floats:
    """Return P(buy) at the multipliers m, (k,): logit, with `level` at list price."""
    chances: Floats = 1.0 / (1.0 + np.exp(slope * (m - 1.0) - level))
    return chances
