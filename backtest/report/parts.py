"""What the policies would have earned in parts of a log: each segment and each period as the whole log is judged, and both at once.

Parts are judged with fewer resamples, as if each were looked at once, and not at all with few draws; many parts are many
looks. Not here: the whole log (values), how a log is divided (divisions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from backtest.estimates import Estimate, Judge, Lift
from backtest.evaluation import evaluate, lift_over
from backtest.report.divisions import Divisions, period_name
from backtest.report.facts import Bools
from backtest.report.figures import Figures, Place, Unit
from backtest.report.support import UNSUPPORTED, failed_gates
from backtest.report.targets import Target
from backtest.report.values import ESTIMATORS, Judged, add_judged, diagnosed, ends, fewer, goals_of, snips_of

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
        self._figures, self._judged = figures, judged
        self._against = [(other, judged.feedback(other)) for other in against]
        self._feedback = judged.feedback(target)
        goals = ((name, change, reward) for name, (reward, _, change) in goals_of(judged).items() if reward is not None)
        self._goals = [
            (name, change, known, judged.feedback(target, np.where(known, reward, 0.0)))
            for name, change, reward, known in ((*one, np.isfinite(one[2])) for one in goals)
        ]
        self._settings = replace(fewer(judged.settings), planned=None)
        self._judge: Judge = "anytime" if judged.adaptive else "bootstrap"

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
        add("relative lift", found.lift.relative, "change")
        for one in found.estimates:
            add(f"value by {ESTIMATORS[one.name]}", one.value, "money", *ends(one.interval))
        self._add("value", snips_of(found), "money", place, x)
        self._add("lift", found.lift, "change of money", place, x)
        for other, theirs in self._against:
            over = None
            if not failed_gates(theirs.where(rows), self._judge):
                over = lift_over(feedback, other.probability[rows], self._settings)
            self._add(f"lift over {other.name}", over, "change of money", place, x)
            if over is None:
                add(f"lift over {other.name}", None, "change of money", text=UNSUPPORTED)
        for name, change, known, of_goal in self._goals:
            part = of_goal.where(rows & known)
            lift = lift_over(part, part.propensity, self._settings)
            if lift is not None:
                add(f"lift of {name}", lift.value, change, *ends(lift.by(self._judge)))

    def _add(self, measure: str, one: Estimate | Lift | None, unit: Unit, place: Place, x: float | None) -> None:
        if one is not None:
            add_judged(self._figures, "parts", measure, one, self._judge, unit, place, x)

    def cross(self, rows: Bools, place: Place) -> None:
        """Add draws, purchases and, where the gates let it, the lift of one group in one period."""
        count = int((rows & ~self._feedback.forced).sum())
        bought = int((self._judged.draws.quantity[rows] > 0).sum())
        self._figures.add("parts", "draws", count, **place, unit="count")
        self._figures.add("parts", "purchases", bought, **place, unit="count")
        if count < PART_DRAWS_MIN:
            self._figures.add("parts", "lift", None, **place, unit="change of money", text="too few draws")
            return
        failed = ", ".join(failed_gates(self._feedback.where(rows), self._judge))
        if failed:
            self._figures.add("parts", "lift", None, **place, unit="change of money", text="REFUSE")
            self._figures.add("parts", "gates that failed", None, **place, unit="text", text=failed)
            return
        free = self._feedback.where(rows & ~self._feedback.forced)
        lift = lift_over(free, free.propensity, self._settings)
        if lift is not None:
            low, high = ends(lift.by(self._judge))
            self._figures.add("parts", "lift", lift.value, low, high, **place, unit="change of money")

    def _says(self, text: str, place: Place, x: float | None) -> None:
        self._figures.add("parts", "verdict", None, **place, x=x, unit="text", text=text)


def describe_growth(figures: Figures, judged: Judged, target: Target, divisions: Divisions) -> None:
    """Add the lift over the logged policy from the beginning of the log to the end of each period: section growth.

    Its interval is the anytime-valid one, planned for the draws of the whole log if nobody planned for more: a curve is many
    looks at one log as it grows, and the interval holds at all of them together.
    """
    feedback, starts = judged.feedback(target), divisions.periods(judged.draws.time_ms)
    planned = judged.settings.planned or int((~feedback.forced).sum())
    settings = replace(judged.settings, planned=planned, resamples=2)
    for start in np.unique(starts).tolist():
        inside = (starts <= start) & ~feedback.forced
        if inside.sum() < PART_DRAWS_MIN:
            continue
        part = feedback.where(inside)
        lift = lift_over(part, part.propensity, settings)
        if lift is not None:
            figures.add(
                "growth", "lift", lift.value, *ends(lift.anytime), policy=target.name, x=float(start + divisions.step_ms),
                period=period_name(start, divisions.step_ms), unit="change of money",
            )  # fmt: skip
