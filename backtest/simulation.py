"""A policy in a simulated world: the engine's own chooser, draw and learning, with the outcome known at once.

What is scored is expected margin, in list prices: the policy's probabilities times what every price earns on average; luck
decides only what the policy learns. Not here: the worlds (backtest.worlds), logs of real shops (backtest.replay).
"""

from __future__ import annotations

import time
from bisect import bisect_right
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backtest.worlds import COST_PERMILLE, LIST_PRICE, World
from contracts.errors import BadInput
from contracts.policies import Policy
from contracts.rules import LinearQ, Sarsa
from pricing.arms import Arms, of_rule
from pricing.choosers import Knowledge, chooser_of, ignorance
from pricing.contexts import Seen, scene_of
from pricing.demand import Posterior
from pricing.draws import cumulated, uniforms
from pricing.q_linear import Values

Floats = NDArray[np.float64]

SETTLED = 1_000
"""Visits after which a policy should no longer cost much, wherever it is."""
NEUTRAL_INTENT = 2
"""Level of every visit: the worlds know of no sessions."""


class Score(Struct, frozen=True, kw_only=True):
    """How a policy did; values are expected margin of the whole run, in list prices."""

    world: str
    seed: int
    policy: str
    events: int
    list_value: float
    oracle_value: float
    best_fixed_value: float
    """Of the one multiplier that was best in hindsight."""
    policy_value: float
    share: float
    """(policy - list) / (oracle - list), in percent."""
    best_fixed_share: float
    loss_after_1000: float | None
    """What the policy earned less than list price after the first 1,000 visits, in percent of list; None if there are no more."""
    events_per_second: float
    """Decisions with their updates, by the process's CPU time."""


class Yardsticks(NamedTuple):
    """What a policy is held against; expected margin of each visit, (T,)."""

    listed: Floats
    oracle: Floats
    best_fixed: float
    """Of the whole run."""


def decision_ids(seed: int, count: int) -> list[str]:
    """Return the ids of the visits of a world, 32 hex characters each."""
    return [sha256(b"%d/%d" % (seed, number)).hexdigest()[:32] for number in range(count)]


def is_held_out(decision_id: str, share: float) -> bool:
    """Return whether a visit belongs to the holdout: by its id alone, so that every policy has the same one."""
    return int(decision_id[-8:], 16) < share * 2.0**32


def arms_of(permille: tuple[int, ...], policy: Policy) -> Arms:
    """Return the arms of every visit under `policy`; its rails are not asked, the world says what may be charged."""
    prices = [LIST_PRICE * each // 1000 for each in permille]
    return of_rule(policy.rule, prices, LIST_PRICE, LIST_PRICE * COST_PERMILLE // 1000)


class Player:
    """A policy that plays one world, visit by visit, and learns."""

    def __init__(self, policy: Policy, permille: tuple[int, ...], knowledge: Knowledge = None) -> None:
        self.policy = policy
        self.arms = arms_of(permille, policy)
        self.knowledge = ignorance(policy.rule) if knowledge is None else knowledge
        self._chooser = chooser_of(policy, self.knowledge)
        self.x: Floats = np.empty(0)
        """Features of the last visit."""

    def weigh(self, vector: Floats) -> list[float]:
        """Return the probabilities of the arms for the visit with `vector`, (16,)."""
        scene = scene_of(self._chooser.features, [Seen(LIST_PRICE, NEUTRAL_INTENT, None, vector)])
        self.x = scene.x[0]
        chances: list[float] = self._chooser.weigh(self._chooser.project(scene), self.arms)[0].tolist()
        return chances

    def learn(self, arm: int, bought: bool) -> None:
        """Take the outcome of the last visit."""
        rule, shift = self.policy.rule, float(self.arms.shifts[0, arm])
        if isinstance(self.knowledge, Posterior):
            self.knowledge.learn(self.x, shift, bought)
        elif isinstance(self.knowledge, Values):
            assert isinstance(rule, LinearQ | Sarsa)
            self.knowledge.learn(rule, self.x, shift, self.arms.reward(arm, bought), None, None)


def drawn(chances: list[float], u: float) -> int:
    """Return the arm that the decision's number falls on, as a worker draws it."""
    return bisect_right(cumulated(chances), u)


def play(policy: Policy, world: World, seed: int, holdout: float = 0.0) -> tuple[Floats, float]:
    """Return (probabilities of every visit (T, K), seconds of CPU for decisions and updates).

    Args:
        policy: to play.
        world: to play in.
        seed: of the world; with the policy's seed it decides the draws.
        holdout: share of visits that are charged list price, whatever the policy; it learns from them, too.
    """
    player = Player(policy, world.permille)
    ids = decision_ids(seed, len(world.x))
    numbers = uniforms(policy.seed, ids)
    listed = [float(arm == world.list_arm) for arm in range(len(world.permille))]
    taken: list[list[float]] = []
    begun = time.process_time()
    for visit, (vector, u) in enumerate(zip(world.x, numbers, strict=True)):
        chances = player.weigh(vector)
        if holdout and is_held_out(ids[visit], holdout):
            chances = listed
        arm = drawn(chances, u)
        player.learn(arm, bool(world.luck[visit] < world.chances[visit, arm]))
        taken.append(chances)
    return np.array(taken), time.process_time() - begun


def simulate(
    policy: Policy, name: str, world: World, seed: int, discount_only: bool = False, holdout: float = 0.0
) -> Score:
    """Play `policy` in `world`, and score it against list price, the best fixed price, and the oracle."""
    if discount_only:
        world = world.without_raises()
    taken, seconds = play(policy, world, seed, holdout)
    return score(name, seed, policy.version, yardsticks_of(world), (taken * world.rewards).sum(-1), seconds)


def yardsticks_of(world: World) -> Yardsticks:
    """Return what list price, the oracle and the best fixed price earn in `world`."""
    rewards = world.rewards
    return Yardsticks(rewards[:, world.list_arm], rewards.max(-1), float(rewards.sum(0).max()))


def score(name: str, seed: int, policy: str, by: Yardsticks, earned: Floats, seconds: float) -> Score:
    """Return the score of what was earned, (T,) expected margin of each visit.

    Raises:
        BadInput: nothing could be gained on list price, so there is no share of it.
    """
    low, high, fixed = float(by.listed.sum()), float(by.oracle.sum()), by.best_fixed
    if high <= low:
        raise BadInput(
            f"In these {len(earned):,} visits of {name} nobody can gain on list price, so no policy can be scored: ask for more "
            "events, or another seed"
        )
    late, late_list = float(earned[SETTLED:].sum()), float(by.listed[SETTLED:].sum())
    return Score(
        world=name,
        seed=seed,
        policy=policy,
        events=len(earned),
        list_value=low,
        oracle_value=high,
        best_fixed_value=fixed,
        policy_value=float(earned.sum()),
        share=100.0 * (float(earned.sum()) - low) / (high - low),
        best_fixed_share=100.0 * (fixed - low) / (high - low),
        loss_after_1000=100.0 * (1.0 - late / late_list) if late_list else None,
        events_per_second=len(earned) / max(seconds, 1e-9),
    )
