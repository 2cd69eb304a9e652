"""Every policy behind one interface: from what is seen of n draws and their feasible prices to all their probabilities.

Two steps, because feasible prices may depend on the draw before: `project` for a whole batch at once, then `weigh`, for one
draw or for many, to the same bits. Pure functions of rule, seed, what was learned, features and arms; the draw itself picks
an arm by the decision's own number (pricing.draws). Not here: learning (pricing.demand, pricing.q_linear).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.policies import FixedPrice, ListPrice, PlainRule, Policy, Rule, SessionIntent, UniformRandom
from contracts.rules import DemandRule, Features, Greedy, LearningRule, LinearQ, Sarsa, Thompson, ValueRule
from pricing import q_linear, thompson
from pricing.arms import Arms
from pricing.contexts import Scene
from pricing.demand import Posterior
from pricing.q_linear import Values
from pricing.thompson import softened

Floats = NDArray[np.float64]
Knowledge = Posterior | Values | None
"""What a policy has learned; None for one that does not learn."""


class Chooser(Protocol):
    """A policy, ready to choose."""

    features: Features | None
    """What `project` wants to see; None: the level of intent alone."""

    def project(self, scene: Scene) -> Floats:
        """Return what does not depend on prices, (n, c) float64, one row per draw; equal draws give equal rows."""

    def weigh(self, rows: Floats, arms: Arms) -> Floats:
        """Return the probability of every arm, (n, k), from n rows of `project`; 0 for padding, each row sums to 1."""


class Learner(Chooser, Protocol):
    """A policy that learns; it aims at the best arm (pricing.arms.best), and explores others."""

    def values(self, rows: Floats, arms: Arms) -> Floats:
        """Return what the policy expects of every arm, (n, k)."""


class Sight(NamedTuple):
    """What a learning policy sees of one draw, before its feasible prices are known."""

    chooser: Learner
    row: Floats
    """(1, c): of `Chooser.project`."""
    x: Floats
    """(D,): the features."""
    knowledge: Posterior | Values
    digest: str
    """Of the knowledge."""
    discount_weight: float = 0.0
    """Lambda of the discount budget."""


class Plain:
    """List price, fixed price, discount by intent, and uniform: nothing is learned."""

    features: Features | None = None

    def __init__(self, rule: PlainRule) -> None:
        self._rule = rule

    def project(self, scene: Scene) -> Floats:
        """Return the levels of intent, (n, 1)."""
        return scene.intents[:, None].astype(np.float64)

    def weigh(self, rows: Floats, arms: Arms) -> Floats:
        """Return the probabilities; see Chooser."""
        if isinstance(self._rule, UniformRandom):
            return softened(np.zeros(arms.shifts.shape), 0.0, 1.0, arms)
        shares = np.zeros(arms.shifts.shape)
        shares[np.arange(len(shares)), self._nearest(rows, arms)] = 1.0
        explore = 0.0 if isinstance(self._rule, ListPrice) else self._rule.explore
        return softened(shares, 1.0 - explore, explore, arms)

    def _nearest(self, rows: Floats, arms: Arms) -> NDArray[np.int64]:
        """Return the feasible price nearest at or below the target; the lowest if all lie above."""
        below = (arms.prices <= self._targets(rows, arms)).sum(-1)
        nearest: NDArray[np.int64] = np.clip(below - 1, 0, arms.counts[:, 0] - 1)
        return nearest

    def _targets(self, rows: Floats, arms: Arms) -> NDArray[np.int64]:
        """Return the price that the rule would charge if there were no rails, (n, 1), rounded half up."""
        rule = self._rule
        if isinstance(rule, SessionIntent):
            discounts = np.array(rule.discounts_permille)
            levels = np.minimum(rows.astype(np.int64), len(discounts) - 1)
            permille = np.maximum(1000 - discounts[levels], 0)
        else:
            permille = np.full((1, 1), rule.multiplier_permille if isinstance(rule, FixedPrice) else 1000)
        targets: NDArray[np.int64] = (arms.list_prices * permille + 500) // 1000
        return targets


class OnDemand:
    """Thompson sampling and the greedy price, on a demand model."""

    def __init__(self, rule: DemandRule, seed: int, posterior: Posterior) -> None:
        self._rule, self._seed, self._posterior = rule, seed, posterior
        self.features: Features | None = rule.features

    def project(self, scene: Scene) -> Floats:
        """Return the level and the response of each draw, under the mean and under every sample."""
        return thompson.sampled(self._rule, self._seed, self._posterior.project(scene.x))

    def weigh(self, rows: Floats, arms: Arms) -> Floats:
        """Return the probabilities; see Chooser."""
        return thompson.weigh(self._rule, rows, arms)

    def values(self, rows: Floats, arms: Arms) -> Floats:
        """Return what each arm earns under the mean, less the rule's hurdle."""
        return thompson.values(rows, arms)


class OnValues:
    """Linear Q-learning and SARSA."""

    def __init__(self, rule: ValueRule, values: Values) -> None:
        self._rule, self._values = rule, values
        self.features: Features | None = rule.features

    def project(self, scene: Scene) -> Floats:
        """Return the coefficients of each draw, (n, 3)."""
        return self._values.project(scene.x)

    def weigh(self, rows: Floats, arms: Arms) -> Floats:
        """Return the probabilities; see Chooser."""
        return q_linear.weigh(self._rule, rows, arms)

    def values(self, rows: Floats, arms: Arms) -> Floats:
        """Return Q of each arm."""
        return q_linear.values(rows, arms)


def ignorance(rule: Rule) -> Knowledge:
    """Return what `rule` knows before the first outcome."""
    if isinstance(rule, Thompson | Greedy):
        return Posterior(rule.prior, rule.features.width)
    if isinstance(rule, LinearQ | Sarsa):
        return Values(rule.features.width)
    return None


def chooser_of(policy: Policy, knowledge: Knowledge = None) -> Chooser:
    """Return the chooser of `policy`; one that learns chooses by `knowledge`, or as one that has seen nothing yet."""
    rule = policy.rule
    if isinstance(rule, LearningRule):
        return learner_of(rule, policy.seed, ignorance(rule) if knowledge is None else knowledge)
    return Plain(rule)


def learner_of(rule: LearningRule, seed: int, knows: Knowledge) -> Learner:
    """Return the chooser of a rule that learns, by what it knows."""
    if isinstance(rule, Thompson | Greedy):
        assert isinstance(knows, Posterior)
        return OnDemand(rule, seed, knows)
    assert isinstance(knows, Values)
    return OnValues(rule, knows)
