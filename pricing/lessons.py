"""Lessons: from the outcomes of draws, in order, to what a policy has learned. A pure fold: version and outcomes in, version out.

A policy learns from every draw that was seen with its own features (`Features` alike, so also from other policies' draws and
from those of users who are held out), whatever price was shown and whoever chose it: demand is modelled at the price that was
shown, so nothing needs to be weighted. What teaches nothing is counted by why, and the discount of its purchase all the same
where a budget is kept: what was given away does not depend on who learns from it. A user's influence is bounded: at most
`Guard.user_outcomes_max` outcomes of one user in a window of event time. Windows, and what waits for a user's next draw
(pricing.chains), are per partition and by its resolve times, so two windows of a partition give them again.

The order is the caller's: (resolve time, partition, offset), where a partition's time never falls. Not here: where outcomes
come from and versions go (streams.lesson_session).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Literal

import numpy as np
from msgspec import Struct

from contracts.errors import BadReference, BrokenInvariant
from contracts.learned import BudgetPeriod, Learned, digest_of, payload_of, require_fit
from contracts.outcomes import Outcome
from contracts.policies import Policy
from contracts.rules import DISCOUNT_WEIGHT_MAX, DemandRule, Features, LearningRule, LinearQ, Sarsa
from pricing.arms import SHIFTS_PER_LIST
from pricing.chains import Chains
from pricing.choosers import ignorance
from pricing.demand import Posterior
from pricing.learned import restored
from pricing.q_linear import Values

Why = Literal["unlearnable", "not_exposed", "other_features", "too_old", "influence"]
"""Why an outcome teaches nothing. unlearnable: as contracts.outcomes says. not_exposed: the draw was not seen. other_features:
of a policy that does not learn, that means something else by them, or of another model than this policy was made for. too_old:
of before `Guard.since_ms`. influence: the user has taught enough in this window."""

FeaturesOf = Callable[[str], Features | None]
"""Of the version of a policy; None for one that does not learn, or that nobody knows."""


class Lesson(Struct, gc=False):
    """A record of the topic `outcomes`, as a learner sees it."""

    order_ms: int
    """Highest resolve time of the partition so far, this one's included."""
    partition: int
    offset: int
    outcome: Outcome | None
    """None for a purchase that rewards no draw."""
    received: float = 0.0
    """As in contracts.intake.Inbound."""


class _Memory:
    """What is remembered of the users of one partition: of the window that runs, and of the one before it."""

    __slots__ = ("chains", "learned", "span", "starts", "window")

    def __init__(self, offset: int) -> None:
        self.starts = (offset, offset)
        """Offsets at which the window before this one began, and this one."""
        self.span: int | None = None
        """Which stretch of event time this window is."""
        self.window = 0
        """Number of this window, of those that had records."""
        self.learned: dict[str, int] = {}
        """Outcomes learned in this window, by user."""
        self.chains = Chains()

    def enter(self, span: int, offset: int) -> bool:
        """Go to the window that the record at `offset` lies in; return whether that is another one."""
        if span == self.span:
            return False
        self.starts = (offset if self.span is None else self.starts[1], offset)
        self.span = span
        self.window += 1
        self.learned.clear()
        return True


class Lessons:
    """What one policy learns. `recall` what lies between `begins` and `positions` first, then `learn` what follows."""

    def __init__(self, policy: Policy, partitions: int, last: Learned | None, features_of: FeaturesOf) -> None:
        """Go on from a version.

        Args:
            policy: its rule learns.
            partitions: of the topic.
            last: the version to go on from; None: the first lesson is to come.
            features_of: what other policies' draws were seen with.

        Raises:
            BadReference: `last` is not what such a policy can have learned.
        """
        assert isinstance(policy.rule, LearningRule)
        self._policy, self._rule = policy, policy.rule
        self._features_of = features_of
        self.knowledge = restored(policy.rule, last)
        """What is known by now."""
        self._scratch = None if isinstance(policy.rule, DemandRule) else ignorance(policy.rule)
        """Learns in its place while recalling."""
        zeros = (0,) * partitions
        self.positions = list(zeros if last is None else last.positions)
        """Per partition, the offset behind the last record gone past."""
        self._memories = [_Memory(begin) for begin in (zeros if last is None else last.begins)]
        self._left: Counter[str] = Counter({} if last is None else last.left)
        self._version = 0 if last is None else last.version
        self._resolved_ms = 0 if last is None else last.resolved_ms
        self._stragglers = 0 if last is None else last.stragglers
        self._weight = 0.0 if last is None else last.discount_weight
        budget = None if last is None else last.budget
        self._period = None if budget is None else budget.period
        self._discount, self._purchases = (0.0, 0) if budget is None else (budget.discount, budget.purchases)

    @property
    def begins(self) -> list[int]:
        """Per partition, the offset from which to recall."""
        return [memory.starts[0] for memory in self._memories]

    def recall(self, lesson: Lesson) -> None:
        """Go past a record again that has been learned from, in the order of its partition, to know the users."""
        self._take(lesson, self._scratch)

    def learn(self, lesson: Lesson) -> Why | None:
        """Go past the next record; return why it teaches nothing, None if it does or is no outcome."""
        self.positions[lesson.partition] = lesson.offset + 1
        self._stragglers += lesson.order_ms < self._resolved_ms
        self._resolved_ms = max(self._resolved_ms, lesson.order_ms)
        self._end_period()
        why = self._take(lesson, self.knowledge)
        if why is not None:
            self._left[why] += 1
        if lesson.outcome is not None:
            self._spend(lesson.outcome)
        return why

    def version(self) -> Learned:
        """Return what is known by now, as the version that follows the last one.

        Raises:
            BrokenInvariant: workers would refuse it.
        """
        content = self.knowledge.encode()
        self._version += 1
        period = self._period
        record = Learned(
            name=self._policy.name,
            number=self._policy.number,
            version=self._version,
            feature_version=self._rule.features.version,
            payload=payload_of(content),
            digest=digest_of(content, self._weight),
            outcomes=self.knowledge.outcomes,
            left=dict(sorted(self._left.items())),
            discount_weight=self._weight,
            budget=None
            if period is None
            else BudgetPeriod(period=period, discount=self._discount, purchases=self._purchases),
            positions=tuple(self.positions),
            begins=tuple(self.begins),
            resolved_ms=self._resolved_ms,
            stragglers=self._stragglers,
        )
        try:
            require_fit(record, self._rule)
        except BadReference as error:
            raise BrokenInvariant(f"{error}. That is the learner's own: report it") from error
        return record

    # -- one record ------------------------------------------------------------------------------------------------

    def _take(self, lesson: Lesson, knowledge: Posterior | Values | None) -> Why | None:
        """Remember a record, and have `knowledge` learn what it teaches."""
        memory, outcome, rule = self._memories[lesson.partition], lesson.outcome, self._rule
        if memory.enter(lesson.order_ms // rule.guard.user_window_ms, lesson.offset) and isinstance(knowledge, Values):
            assert isinstance(rule, LinearQ | Sarsa)
            memory.chains.settle(rule, knowledge, memory.window - 1, self._weight)
        if outcome is None:
            return None
        readable = self._reads(outcome)
        why = self._refusal(outcome, readable, memory)
        if why is None:
            memory.learned[outcome.user] = memory.learned.get(outcome.user, 0) + 1
        if isinstance(knowledge, Values):
            assert isinstance(rule, LinearQ | Sarsa)
            memory.chains.take(rule, knowledge, outcome, readable, why is None, memory.window, self._weight)
        elif knowledge is not None and why is None:
            shift = SHIFTS_PER_LIST * (1.0 - outcome.price / outcome.list_price)
            knowledge.learn(np.array(outcome.features), shift, outcome.bought is not None)
        return why

    def _reads(self, outcome: Outcome) -> bool:
        """Return whether the outcome's features are this policy's."""
        mine, features = self._rule.features, outcome.features
        if features is None or len(features) != mine.width or outcome.feature_version != mine.version:
            return False
        if self._policy.model not in (None, outcome.model):
            return False
        return outcome.policy == self._policy.version or self._features_of(outcome.policy) == mine

    def _refusal(self, outcome: Outcome, readable: bool, memory: _Memory) -> Why | None:
        guard = self._rule.guard
        if not outcome.learnable:
            return "unlearnable"
        if not outcome.exposed:
            return "not_exposed"
        if not readable:
            return "other_features"
        if outcome.drawn_ms < guard.since_ms:
            return "too_old"
        return "influence" if memory.learned.get(outcome.user, 0) >= guard.user_outcomes_max else None

    # -- the discount budget -----------------------------------------------------------------------------------------

    def _end_period(self) -> None:
        """Begin the budget's period that the time lies in; if another one ends, lambda follows what was realised in it."""
        budget = self._rule.money.discount_budget
        if budget is None:
            return
        period = self._resolved_ms // budget.period_ms
        if period == self._period:
            return
        if self._purchases:
            over = self._discount / self._purchases - budget.permille / 1000.0
            self._weight = min(max(self._weight + budget.step * over, 0.0), DISCOUNT_WEIGHT_MAX)
        self._period, self._discount, self._purchases = period, 0.0, 0

    def _spend(self, outcome: Outcome) -> None:
        """Note a purchase of the policy's own draw, whatever it teaches; who is held out was not priced by it."""
        if outcome.bought is not None and outcome.policy == self._policy.version and not outcome.held_out:
            self._discount += max(1.0 - outcome.price / outcome.list_price, 0.0)
            self._purchases += 1
