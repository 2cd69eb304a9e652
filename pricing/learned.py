"""Learning policies inside the engine: what they see of a batch, and what a decision says of what they saw.

Between the two passes over a batch everything that does not depend on feasible prices is computed for all its draws at once;
a draw takes its row of it. What a policy has learned comes as a record (contracts.learned) and is made ready once per version.
Not here: the policies (pricing.choosers), how they learn (pricing.lessons).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contracts.errors import BrokenInvariant
from contracts.learned import Learned
from contracts.policies import Policy
from contracts.rules import LearningRule
from features.vectors import Taste
from pricing.arms import cost_of
from pricing.choosers import Learner, Sight, ignorance, learner_of
from pricing.contexts import Seen, scene_of
from pricing.demand import Posterior
from pricing.menus import PricedItem
from pricing.q_linear import Values

POLICIES_MAX = 64


class LearnedDraw(NamedTuple):
    """The last fields of contracts.decisions.Decision, in their order."""

    features: tuple[float, ...]
    feature_version: int
    learned: str
    level_contributions: tuple[float, ...] | None
    response_contributions: tuple[float, ...] | None
    cost_source: str
    churn: float | None
    churn_days: int | None


class Known(NamedTuple):
    """What a learning policy knows, ready to choose by. Read only."""

    chooser: Learner
    knowledge: Posterior | Values
    digest: str
    discount_weight: float


class KnownShelf:
    """What policies know, by the versions in force; each is made ready once. Holds POLICIES_MAX policies at most."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[Learned | None, Policy, Known]] = {}

    def of(self, policy: Policy, learned: Learned | None) -> Known:
        """Return what `policy`, whose rule learns, knows by `learned`; None: nothing yet.

        Raises:
            BadReference: `learned` is not what such a policy can have learned; a book refuses it before (contracts.learned).
        """
        entry = self._known.get(policy.version)
        if entry is None or entry[0] is not learned or entry[1] is not policy:
            if len(self._known) >= POLICIES_MAX:
                self._known.clear()
            entry = self._known[policy.version] = learned, policy, known_of(policy, learned)
        return entry[2]


def known_of(policy: Policy, learned: Learned | None) -> Known:
    """Return what `policy`, whose rule learns, knows by `learned`. Raises as `KnownShelf.of`."""
    assert isinstance(policy.rule, LearningRule)
    knowledge = restored(policy.rule, learned)
    weight = 0.0 if learned is None else learned.discount_weight
    digest = knowledge.digest() if learned is None else learned.digest
    return Known(learner_of(policy.rule, policy.seed, knowledge), knowledge, digest, weight)


def restored(rule: LearningRule, learned: Learned | None) -> Posterior | Values:
    """Return the knowledge in `learned`, or that of a rule before its first outcome. Raises as `KnownShelf.of`."""
    knowledge = ignorance(rule)
    assert knowledge is not None
    if learned is not None:
        knowledge.restore(learned.content)
    return knowledge


def sights_of(known: Known, seen: Sequence[Seen]) -> list[Sight]:
    """Return what a policy sees of each draw.

    Args:
        known: what it knows.
        seen: of every draw that there may be in the batch.

    Raises:
        BrokenInvariant: a feature is no number: the model, or the machine, is broken.
    """
    chooser = known.chooser
    scene = scene_of(chooser.features, seen)
    if not np.isfinite(scene.x).all():
        raise BrokenInvariant(
            "The model gave a user vector that is not finite: run `pricetide model verify` on its artifact, and report it"
        )
    rows = chooser.project(scene)
    _, knowledge, digest, weight = known
    return [Sight(chooser, rows[at : at + 1], scene.x[at], knowledge, digest, weight) for at in range(len(seen))]


def seen_of(list_price: int, intent: int, taste: Taste | None) -> Seen:
    """Return what is known of one draw."""
    if taste is None:
        return Seen(list_price, intent)
    return Seen(list_price, intent, taste.preference, taste.vector)


def record_of(sight: Sight, priced: PricedItem, churn: float | None) -> LearnedDraw:
    """Return what a decision says of a learning policy's draw; `churn` is the user's hazard, None: it is not known."""
    rule = priced.policy.rule
    assert isinstance(rule, LearningRule)
    level: tuple[float, ...] | None = None
    response: tuple[float, ...] | None = None
    if isinstance(sight.knowledge, Posterior):
        first, second = sight.knowledge.contributions(sight.x)
        level, response = tuple(first), tuple(second)
    return LearnedDraw(
        tuple(sight.x.tolist()),
        rule.features.version,
        sight.digest,
        level,
        response,
        cost_of(priced.item.cost, priced.list_price, rule.money)[1],
        churn,
        None if churn is None else rule.churn.horizon_days,
    )
