"""What the policies would have earned in parts of a log: each segment and each period as the whole log is judged, and both at once.

Parts are judged with fewer resamples, and not at all with few draws; many parts are many looks. Not here: the whole log
(values), how a log is divided (divisions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backtest.evaluation import evaluate, lift_over
from backtest.report.clusters import clustered_mean
from backtest.report.divisions import Divisions, period_name
from backtest.report.facts import Bools, Floats
from backtest.report.figures import Figures, Place, Unit
from backtest.report.support import UNSUPPORTED, failed_gates
from backtest.report.targets import Target
from backtest.report.values import ESTIMATORS, Judged, diagnosed, ends, fewer, goals_of

PART_DRAWS_MIN = 100
"""Draws below which a part of the log is not judged on its own."""


def describe_parts(
    figures: Figures, judged: Judged, target: Target, against: Sequence[Target], divisions: Divisions
) -> None:
    """Add what one policy earns by segment, by period, and by both; section parts.

    Args:
        figures: to add to.
        judged: the draws.
        target: the policy.
        against: what its lift is shown over, beside the logged policy.
        divisions: of the log.
    """
    draws = judged.draws
    part = _Parts(figures, judged, target, against)
    periods = divisions.periods(draws.time_ms)
    for start in np.unique(periods).tolist():
        place: Place = {"policy": target.name, "period": period_name(start, divisions.step_ms)}
        part.describe(periods == start, place, float(start))
    for segment, groups in draws.segments(divisions).items():
        for group, rows in groups.present():
            part.describe(rows, {"policy": target.name, "segment": segment, "group": group}, None)
            for start in np.unique(periods).tolist():
                period = period_name(start, divisions.step_ms)
                part.cross(
                    rows & (periods == start),
                    {"policy": target.name, "segment": segment, "group": group, "period": period},
                )


class _Parts:
    """Judges parts of the draws under one policy."""

    def __init__(self, figures: Figures, judged: Judged, target: Target, against: Sequence[Target]) -> None:
        self._figures, self._judged, self._against = figures, judged, against
        self._feedback = judged.feedback(target)
        self._goals = goals_of(judged)
        self._settings = fewer(judged.settings)

    def describe(self, rows: Bools, place: Place, x: float | None) -> None:
        """Add everything about a part."""

        def add(
            measure: str,
            value: float | None,
            unit: Unit,
            low: float | None = None,
            high: float | None = None,
            text: str = "",
        ) -> None:
            self._figures.add("parts", measure, value, low, high, **place, x=x, unit=unit, text=text)

        quantity = self._judged.draws.quantity[rows]
        add("draws", len(quantity), "count")
        add("purchases", int((quantity > 0).sum()), "count")
        if len(quantity) < PART_DRAWS_MIN:
            self._says("too few draws", place, x)
            return
        feedback = self._feedback.where(rows)
        found = evaluate(feedback, self._settings)
        failed = ", ".join(gate.name for gate in found.gates if not gate.passed)
        self._says(f"{found.verdict}: {failed}" if found.verdict == "REFUSE" else found.verdict, place, x)
        if found.diagnostics is not None:
            for measure, value, unit, text in diagnosed(found.diagnostics):
                self._figures.add("parts", measure, value, **place, x=x, unit=unit, text=text)
        if found.verdict == "REFUSE" or found.logged is None or found.lift is None:
            return
        add("logged value", found.logged.value, "money")
        add("value", found.logged.value + found.lift.value, "money")
        add("lift", found.lift.value, "change of money", *ends(found.lift.bootstrap))
        add("lift, at every look", found.lift.anytime.middle, "change of money", *ends(found.lift.anytime))
        add("relative lift", found.lift.relative, "change")
        for other in self._against:
            over = None
            if not failed_gates(self._judged.feedback(other).where(rows)):
                over = lift_over(feedback, other.probability[rows], self._settings)
            if over is None:
                add(f"lift over {other.name}", None, "change of money", text=UNSUPPORTED)
            else:
                add(f"lift over {other.name}", over.value, "change of money", *ends(over.bootstrap))
        for one in found.estimates:
            add(f"value by {ESTIMATORS[one.name]}", one.value, "money", *ends(one.interval))
        for name, (reward, _, change) in self._goals.items():
            if reward is not None:
                known = rows & np.isfinite(reward)
                lift, low, high = self._lift(known, reward)
                add(f"lift of {name}", lift, change, low, high)

    def cross(self, rows: Bools, place: Place) -> None:
        """Add draws, purchases and, where the gates let it, the lift of one group in one period."""
        count = int((rows & ~self._feedback.forced).sum())
        bought = int((self._judged.draws.quantity[rows] > 0).sum())
        self._figures.add("parts", "draws", count, **place, unit="count")
        self._figures.add("parts", "purchases", bought, **place, unit="count")
        if count < PART_DRAWS_MIN:
            self._figures.add("parts", "lift", None, **place, unit="change of money", text="too few draws")
            return
        failed = ", ".join(failed_gates(self._feedback.where(rows)))
        if failed:
            self._figures.add("parts", "lift", None, **place, unit="change of money", text="REFUSE")
            self._figures.add("parts", "gates that failed", None, **place, unit="text", text=failed)
            return
        lift = self._lift(rows, self._feedback.reward)
        self._figures.add("parts", "lift", *lift, **place, unit="change of money")

    def _lift(self, rows: Bools, reward: Floats) -> tuple[float, float, float]:
        """Return the IPS lift of a reward, and its interval clustered by user."""
        inside = rows & ~self._feedback.forced
        earned = (self._feedback.weight[inside] - 1.0) * reward[inside]
        mean, half = clustered_mean(earned, self._feedback.users[inside])
        return mean, mean - half, mean + half

    def _says(self, text: str, place: Place, x: float | None) -> None:
        self._figures.add("parts", "verdict", None, **place, x=x, unit="text", text=text)


def describe_growth(figures: Figures, judged: Judged, target: Target, divisions: Divisions) -> None:
    """Add the lift over the logged policy from the beginning of the log to the end of each period: section growth."""
    feedback, starts = judged.feedback(target), divisions.periods(judged.draws.time_ms)
    earned = (feedback.weight - 1.0) * feedback.reward
    for start in np.unique(starts).tolist():
        inside = (starts <= start) & ~feedback.forced
        if inside.sum() < PART_DRAWS_MIN:
            continue
        mean, half = clustered_mean(earned[inside], feedback.users[inside])
        figures.add(
            "growth", "lift", mean, mean - half, mean + half, policy=target.name, x=float(start + divisions.step_ms),
            period=period_name(start, divisions.step_ms), unit="change of money",
        )  # fmt: skip
