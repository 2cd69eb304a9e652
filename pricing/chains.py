"""Chains: the draws of users one after another, so that a value can look ahead. An outcome waits for that of the next draw.

A draw's successor is named in its outcome, lies in the same partition and resolves later, for it was drawn later and windows
are alike. A draw without a successor that can be learned from is terminal. Traces run along a chain and are cut where a
window of memory ends (pricing.lessons), so that two windows of outcomes give all that is remembered. At most one entry waits
per pending draw. Not here: the arithmetic of a step (pricing.q_linear).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.outcomes import Outcome
from contracts.rules import ValueRule
from pricing.arms import SHIFTS_PER_LIST, of_rule
from pricing.q_linear import Next, Values

Floats = NDArray[np.float64]


class _Waiting(NamedTuple):
    """An outcome whose successor has not resolved."""

    outcome: Outcome
    trace: Floats | None
    window: int


class Chains:
    """The chains of one partition."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def take(
        self,
        rule: ValueRule,
        values: Values,
        outcome: Outcome,
        readable: bool,
        teaches: bool,
        window: int,
        weight: float,
    ) -> None:
        """Take the next outcome of the partition: it may end the wait of the draw before, and is learned or waits itself.

        Args:
            rule: parameters.
            values: what learns.
            outcome: in the order of the partition.
            readable: it carries features that the policy understands, so it can follow another one.
            teaches: it is learned from itself.
            window: number of the window of memory.
            weight: lambda of the discount budget.
        """
        before, trace = self._waiting.pop(outcome.draw_id, None), None
        if before is not None:
            after = _next_of(before.outcome, outcome) if readable else None
            left = _learn(rule, values, before, after, weight)
            trace = left if after is not None and before.window == window else None
        if not teaches:
            return
        waiting, successor = _Waiting(outcome, trace, window), outcome.next
        if rule.discount > 0.0 and successor is not None and successor.drawn_ms >= outcome.drawn_ms:
            self._waiting[successor.draw_id] = waiting
        else:  # a late event may be drawn after, and before in time: it resolves first
            _learn(rule, values, waiting, None, weight)

    def settle(self, rule: ValueRule, values: Values, before: int, weight: float) -> None:
        """End the wait of what came before window `before`: its successor has gone, erased or out of the topic."""
        for draw_id in [key for key, waiting in self._waiting.items() if waiting.window < before]:
            _learn(rule, values, self._waiting.pop(draw_id), None, weight)


def _learn(rule: ValueRule, values: Values, waiting: _Waiting, after: Next | None, weight: float) -> Floats:
    outcome = waiting.outcome
    arm = of_rule(rule, (outcome.price,), outcome.list_price, outcome.cost, weight)
    reward = arm.reward(0, outcome.bought is not None)
    return values.learn(rule, np.array(outcome.features), float(arm.shifts[0, 0]), reward, after, waiting.trace)


def _next_of(before: Outcome, outcome: Outcome) -> Next:
    shifts = SHIFTS_PER_LIST * (1.0 - np.array(outcome.prices) / outcome.list_price)
    shift = float(shifts[outcome.prices.index(outcome.price)])
    return Next(outcome.drawn_ms - before.drawn_ms, np.array(outcome.features), shift, shifts)
