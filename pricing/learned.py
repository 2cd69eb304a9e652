"""Learning policies inside the engine: what they see of a batch, and what a decision says of their draw.

Between the two passes over a batch everything that does not depend on feasible prices is computed for all its draws at once;
a draw takes its row of it. Not here: the policies (pricing.choosers), who gives them what they have learned (the shells).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from contracts.errors import BrokenInvariant
from contracts.policies import Policy
from contracts.rules import LearningRule
from features.vectors import Taste
from pricing.arms import cost_of
from pricing.choosers import Knowledge, Sight, ignorance, learner_of
from pricing.contexts import Seen, scene_of
from pricing.demand import Posterior
from pricing.menus import Chances, PricedItem


class LearnedDraw(NamedTuple):
    """The last fields of contracts.decisions.Decision, in their order."""

    probabilities: tuple[float, ...]
    u: float
    explored: bool
    features: tuple[float, ...]
    feature_version: int
    learned: str
    level_contributions: tuple[float, ...] | None
    response_contributions: tuple[float, ...] | None
    cost_source: str


def sights_of(policy: Policy, knowledge: Knowledge, seen: Sequence[Seen]) -> list[Sight] | None:
    """Return what `policy` sees of each draw; None if it does not learn.

    Args:
        policy: that prices.
        knowledge: what it has learned; None: nothing yet.
        seen: of every draw that there may be in the batch.

    Raises:
        BrokenInvariant: a feature is no number: the model, or the machine, is broken.
    """
    if not isinstance(policy.rule, LearningRule):
        return None
    knows = ignorance(policy.rule) if knowledge is None else knowledge
    assert knows is not None
    chooser = learner_of(policy.rule, policy.seed, knows)
    scene = scene_of(chooser.features, seen)
    if not np.isfinite(scene.x).all():
        raise BrokenInvariant(
            "The model gave a user vector that is not finite: run `pricetide model verify` on its artifact, and report it"
        )
    rows, digest = chooser.project(scene), knows.digest()
    return [Sight(chooser, rows[at : at + 1], scene.x[at], knows, digest) for at in range(len(seen))]


def seen_of(list_price: int, intent: int, taste: Taste | None) -> Seen:
    """Return what is known of one draw."""
    if taste is None:
        return Seen(list_price, intent)
    return Seen(list_price, intent, taste.preference, taste.vector)


def record_of(sight: Sight, chances: Chances, u: float, arm: int, priced: PricedItem) -> LearnedDraw:
    """Return what a decision says of the draw of `arm`."""
    rule = priced.policy.rule
    assert isinstance(rule, LearningRule)
    level: tuple[float, ...] | None = None
    response: tuple[float, ...] | None = None
    if isinstance(sight.knowledge, Posterior):
        first, second = sight.knowledge.contributions(sight.x)
        level, response = tuple(first), tuple(second)
    return LearnedDraw(
        chances.probabilities,
        u,
        arm != chances.target,
        tuple(sight.x.tolist()),
        rule.features.version,
        sight.digest,
        level,
        response,
        cost_of(priced.item.cost, priced.list_price, rule.money)[1],
    )
