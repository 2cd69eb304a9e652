"""CARRY: a simulated shop whose visitors come back and remember; what is charged today moves what they do tomorrow.

A person's reference price moves towards every price seen; paying more than it is resented, less is enjoyed. Discounts also
tire: a person used to them responds less. Both are known of a visit (the first two of its numbers), so a policy that looks
ahead can save its discounts. The oracle plans by dynamic programming over both memories. Not here: worlds without memory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtest.simulation import Player, Score, Yardsticks, decision_ids, drawn, score
from backtest.worlds import DAY_MS, PERMILLE, WIDTH, margins
from contracts.policies import Policy
from contracts.rules import LinearQ, Sarsa
from pricing.draws import uniforms
from pricing.q_linear import Next, Values

Floats = NDArray[np.float64]

VISITS_EACH = 25
"""Of every person; days apart."""
LEVEL, RESPONSE = -1.0, 4.0
LEARNING = 0.4
"""How far a reference price moves towards a price seen."""
RESENTMENT = 6.0
"""Log-odds per unit of multiplier that a price lies above the reference."""
TIRING = 0.3
"""How far fatigue moves towards 1 at a discount, towards 0 without one."""
TIRED = 0.5
"""Share of the response that full fatigue takes away."""
GRID = (33, 17)
"""Points of the plan along reference price and fatigue."""
"""References lie within the multipliers, fatigue in 0..1."""
_M = np.array(PERMILLE) / 1000.0
_OFF = (_M < 1.0).astype(np.float64)


@dataclass(frozen=True)
class Shoppers:
    """P people, who come in turn, VISITS_EACH times."""

    x: Floats
    """(P, visits, 14): what is known of a visit besides its memories."""
    levels: Floats
    """(P, visits): log-odds of a purchase at list price by somebody without memories."""
    luck: Floats
    """(P, visits)."""


def shoppers_of(seed: int, visits: int) -> Shoppers:
    """Return the people of `seed`, as many as make `visits`."""
    random = np.random.Generator(np.random.PCG64(3000 + seed))
    weights = random.normal(0.0, 0.15, WIDTH - 2)
    people = max(visits // VISITS_EACH, 1)
    x = random.normal(0.0, 1.0, (people, VISITS_EACH, WIDTH - 2))
    return Shoppers(x, LEVEL + (x * weights).sum(-1), random.random((people, VISITS_EACH)))


def chances_at(levels: Floats, reference: Floats, fatigue: Floats) -> Floats:
    """Return P(buy) at each multiplier: arguments of any one shape, the arms as a last axis."""
    pull = RESPONSE * (1.0 - TIRED * fatigue)[..., None] * (1.0 - _M)
    odds = levels[..., None] + pull + RESENTMENT * (reference[..., None] - _M)
    chances: Floats = 1.0 / (1.0 + np.exp(-odds))
    return chances


def remembered(reference: Floats, fatigue: Floats, arm: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return the memories after a visit that saw the price of `arm`."""
    return reference + LEARNING * (_M[arm] - reference), fatigue + TIRING * (_OFF[arm] - fatigue)


class Plan:
    """What the rest of a person's visits are worth if every price is chosen best, by visits left and memories.

    Levels of later visits are not known yet: the plan averages over a sample of them. Between points it is linear.
    """

    def __init__(self, levels: Floats, visits: int = VISITS_EACH) -> None:
        """Plan back from the last visit; `levels` (n,) is a sample."""
        self.references = np.linspace(_M[0], _M[-1], GRID[0])
        self.fatigues = np.linspace(0.0, 1.0, GRID[1])
        reference, fatigue = np.meshgrid(self.references, self.fatigues, indexing="ij")
        arms = np.arange(len(_M))
        later = remembered(reference[..., None], fatigue[..., None], arms)
        now = chances_at(
            levels[:, None, None], np.broadcast_to(reference, (1, *GRID)), np.broadcast_to(fatigue, (1, *GRID))
        )
        earned = now * margins(PERMILLE)
        self.left: list[Floats] = [np.zeros(GRID)]
        """By visits left: the value at every point."""
        for _ in range(visits):
            self.left.append((earned + self.value(len(self.left) - 1, *later)).max(-1).mean(0))

    def value(self, visits_left: int, reference: Floats, fatigue: Floats) -> Floats:
        """Return the value at memories of any one shape, bilinear between the points."""
        table = self.left[visits_left]
        r = (reference - _M[0]) / (_M[-1] - _M[0]) * (GRID[0] - 1)
        f = fatigue * (GRID[1] - 1)
        r0 = np.clip(r.astype(np.int64), 0, GRID[0] - 2)
        f0 = np.clip(f.astype(np.int64), 0, GRID[1] - 2)
        dr, df = r - r0, f - f0
        low = table[r0, f0] * (1.0 - df) + table[r0, f0 + 1] * df
        high = table[r0 + 1, f0] * (1.0 - df) + table[r0 + 1, f0 + 1] * df
        value: Floats = low * (1.0 - dr) + high * dr
        return value


def planned(shoppers: Shoppers, plan: Plan | None) -> Floats:
    """Return the expected margin of every visit (P, visits) under the plan; without one, under the best price of each visit
    taken alone, by somebody who knows demand but not the morrow.
    """
    people, visits = shoppers.levels.shape
    reference, fatigue = np.ones(people), np.zeros(people)
    earned, arms = np.empty((people, visits)), np.arange(len(_M))
    for visit in range(visits):
        now = chances_at(shoppers.levels[:, visit], reference, fatigue) * margins(PERMILLE)
        ahead: Floats | float = 0.0
        if plan is not None:
            later = remembered(reference[:, None], fatigue[:, None], arms)
            ahead = plan.value(visits - visit - 1, *later)
        chosen = (now + ahead).argmax(-1)
        earned[:, visit] = now[np.arange(people), chosen]
        reference, fatigue = remembered(reference, fatigue, chosen)
    return earned


def fixed(shoppers: Shoppers, arm: int) -> Floats:
    """Return the expected margin of every visit (P, visits) at one multiplier for all."""
    people, visits = shoppers.levels.shape
    reference, fatigue, always = np.ones(people), np.zeros(people), np.full(people, arm)
    earned = np.empty((people, visits))
    for visit in range(visits):
        now = chances_at(shoppers.levels[:, visit], reference, fatigue) * margins(PERMILLE)
        earned[:, visit] = now[:, arm]
        reference, fatigue = remembered(reference, fatigue, always)
    return earned


class _Visitor:
    """What a player remembers of one person between two visits: the outcome that waits for the next draw."""

    def __init__(self) -> None:
        self.waiting: tuple[Floats, float, float] | None = None
        self.trace: Floats | None = None


def play(policy: Policy, shoppers: Shoppers, seed: int, cohort: int = 50) -> Floats:
    """Return what `policy` earns at every visit, (P, visits) expected margin. It learns as it goes.

    People come in cohorts: all of one make their first visit, then all their second, ...; then the next cohort.
    """
    player = Player(policy, PERMILLE)
    people, visits = shoppers.levels.shape
    numbers = np.array(uniforms(policy.seed, decision_ids(seed, people * visits))).reshape(people, visits)
    reference, fatigue = np.ones(people), np.zeros(people)
    earned = np.empty((people, visits))
    known = [_Visitor() for _ in range(people)]
    for first in range(0, people, cohort):
        for visit in range(visits):
            for person in range(first, min(first + cohort, people)):
                memories = [5.0 * (reference[person] - 1.0), 2.0 * fatigue[person] - 1.0]
                chances = player.weigh(np.concatenate((memories, shoppers.x[person, visit])))
                arm = drawn(chances, numbers[person, visit])
                one = slice(person, person + 1)
                buys = chances_at(shoppers.levels[one, visit], reference[one], fatigue[one])[0]
                earned[person, visit] = float((np.array(chances) * buys * margins(PERMILLE)).sum())
                bought = bool(shoppers.luck[person, visit] < buys[arm])
                _learn(player, known[person], arm, bought, visit == visits - 1)
                seen = remembered(reference[one], fatigue[one], np.array([arm]))
                reference[person], fatigue[person] = seen[0][0], seen[1][0]
    return earned


def _learn(player: Player, visitor: _Visitor, arm: int, bought: bool, last: bool) -> None:
    """Teach the demand model at once; a value, when the person's next draw is known."""
    rule, values = player.policy.rule, player.knowledge
    if not isinstance(values, Values) or not isinstance(rule, LinearQ | Sarsa):
        player.learn(arm, bought)
        return
    x, shift = player.x, float(player.arms.shifts[0, arm])
    if visitor.waiting is not None:
        after = Next(DAY_MS, x, shift, player.arms.shifts[0])
        visitor.trace = values.learn(rule, *visitor.waiting, after, visitor.trace)
    visitor.waiting = (x, shift, player.arms.reward(arm, bought))
    if last:
        values.learn(rule, *visitor.waiting, None, visitor.trace)


def simulate(policy: Policy, seed: int, visits: int) -> Score:
    """Score `policy` in CARRY against list price and the plan."""
    shoppers = shoppers_of(seed, visits)
    plan = Plan(shoppers.levels.ravel()[:1_000])
    began = time.process_time()
    earned = play(policy, shoppers, seed)
    seconds = time.process_time() - began
    listed, best = fixed(shoppers, PERMILLE.index(1000)), planned(shoppers, plan)
    at_best = max(float(fixed(shoppers, arm).sum()) for arm in range(len(PERMILLE)))
    return score(
        "CARRY", seed, policy.version, Yardsticks(listed.ravel(), best.ravel(), at_best), earned.ravel(), seconds
    )
