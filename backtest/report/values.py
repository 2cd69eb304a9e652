"""What the policies would have earned at the logged draws: verdicts, lifts, estimators, diagnostics, goals.

Judged are draws that the user saw, and of which something may be learned; what is left out is counted. The reward is margin
if the catalogue knows every cost, else revenue. Money is in whole units of the currency, per draw. Not here: segments and
periods (parts), estimators and gates (backtest.estimates), what the policies would have drawn (targets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec.structs import replace

from backtest.estimates import Diagnostics, Estimate, Evaluation, Interval, Judge, Lift, Settings
from backtest.evaluation import evaluate, lift_over
from backtest.feedback import Feedback
from backtest.gates import SHARES, tail_aside
from backtest.report.draws import LOGGED, Draws
from backtest.report.facts import Floats
from backtest.report.figures import STAYS_AWAY, Figures, Place, Unit
from backtest.report.reward_model import Expected
from backtest.report.spill import Spill
from backtest.report.support import UNSUPPORTED, failed_gates
from backtest.report.targets import Target

FEWER_RESAMPLES = 200
"""Where many numbers are asked for at once."""
ESTIMATORS = {
    "ips": "IPS", "snips": "SNIPS", "clipped_ips": "clipped IPS", "dm": "DM", "dr": "DR", "sndr": "SNDR", "switch_dr": "Switch-DR",
    "dros": "DRos",
}  # fmt: skip
_WEIGHT_EDGES = (0.0, 1e-9, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, float("inf"))

RESAMPLED, ANYTIME = "users resampled", "anytime-valid"
"""Behind a measure and a comma: the same with that interval. The measure itself has the one that judges."""

Goal = Literal["margin", "revenue"]


@dataclass(frozen=True, slots=True)
class Judged:
    """The draws that are judged, and what all policies are judged by."""

    draws: Draws
    goal: Goal
    reward: Floats
    """Whole units of the currency, (n,)."""
    minor: int
    """Minor units in a whole one."""
    expected: Expected | None
    gone: Floats | None
    """1 where the user had no event from the end of the draw's window to the horizon; not a number where the log ends before."""
    adaptive: bool
    settings: Settings

    def feedback(self, target: Target, reward: Floats | None = None) -> Feedback:
        """Return the feedback on `target`; with another reward than the goal's it has no expected rewards."""
        draws, expected = self.draws, self.expected if reward is None else None
        return Feedback(
            reward=self.reward if reward is None else reward,
            propensity=draws.propensity,
            target=target.probability,
            users=draws.user,
            forced=draws.forced,
            times_ms=draws.time_ms,
            unsupported=target.unsupported,
            expected_logged=None if expected is None else expected.of_drawn,
            expected_target=None if expected is None else expected.under[target.name],
            adaptive=self.adaptive,
        )


def describe_value(figures: Figures, judged: Judged, target: Target, against: Sequence[Target]) -> Evaluation:
    """Add everything about one policy: sections verdict, value, estimators, diagnostics, weights; return its evaluation."""
    feedback = judged.feedback(target)
    found = evaluate(feedback, judged.settings)
    _verdict(figures, target.name, found)
    _value(figures, target.name, found)
    for other in against:
        if other.name != target.name and found.lift is not None:
            _lift_over(figures, judged, target, other, found.judged_by)
    _estimators(figures, target.name, found)
    describe_diagnostics(figures, target.name, found)
    weight = feedback.weight[~feedback.forced]
    counts, _ = np.histogram(weight, _WEIGHT_EDGES)
    for low, high, count in zip(_WEIGHT_EDGES, _WEIGHT_EDGES[1:], counts.tolist(), strict=False):
        name = "0" if high <= 1e-9 else f"up to {high:g}" if np.isfinite(high) else "above"
        share = count / max(len(weight), 1)
        figures.add("weights", "share of draws", share, policy=target.name, group=name, x=low, unit="share")
    return found


def _lift_over(figures: Figures, judged: Judged, target: Target, other: Target, judge: Judge) -> None:
    """Add the lift over another policy, or that there is none: where `other` fails its gates nobody knows what it earns."""
    name, lift = f"lift over {other.name}", None
    if not failed_gates(judged.feedback(other), judge):
        lift = lift_over(judged.feedback(target), other.probability, judged.settings)
    if lift is None:
        figures.add("value", name, None, policy=target.name, unit="change of money", text=UNSUPPORTED)
        figures.add("value", f"relative {name}", None, policy=target.name, unit="change", text=UNSUPPORTED)
        return
    add_judged(figures, "value", name, lift, judge, "change of money", {"policy": target.name})
    figures.add("value", f"relative {name}", lift.relative, policy=target.name, unit="change")


def add_judged(
    figures: Figures,
    section: str,
    measure: str,
    one: Estimate | Lift,
    judge: Judge,
    unit: Unit,
    place: Place,
    x: float | None = None,
) -> None:
    """Add a value with the interval that judges it, and beside it each of both intervals, whichever judges."""
    figures.add(section, measure, one.value, *ends(one.by(judge)), **place, x=x, unit=unit)
    figures.add(section, f"{measure}, {RESAMPLED}", one.value, *ends(one.by("bootstrap")), **place, x=x, unit=unit)
    anytime = one.by("anytime")
    if anytime is not None:
        figures.add(section, f"{measure}, {ANYTIME}", anytime.middle, *ends(anytime), **place, x=x, unit=unit)


def ends(interval: Interval | None) -> tuple[float | None, float | None]:
    """Return the ends of an interval, if there is one."""
    return (None, None) if interval is None else (interval.low, interval.high)


def _verdict(figures: Figures, policy: str, found: Evaluation) -> None:
    figures.add("verdict", "verdict", policy=policy, unit="text", text=found.verdict)
    figures.add("verdict", "judged by", policy=policy, unit="text", text=found.judged_by)
    figures.add("verdict", "estimand", policy=policy, unit="text", text=found.estimand)
    for sentence in found.why:
        figures.add("verdict", "why", policy=policy, unit="text", text=sentence)
    for gate in found.gates:
        unit: Unit = "share" if gate.name in SHARES else "number"
        figures.add("gates", gate.name, gate.value, policy=policy, unit=unit, text=gate.says)
        figures.add("gates", "limit", gate.limit, policy=policy, group=gate.name, unit=unit)
        figures.add("gates", "passed", float(gate.passed), policy=policy, group=gate.name, unit="count")


def _value(figures: Figures, policy: str, found: Evaluation) -> None:
    judge, place = found.judged_by, Place(policy=policy)
    snips = snips_of(found)
    if snips is not None:
        add_judged(figures, "value", "value", snips, judge, "money", place)
    if found.logged is not None:
        add_judged(figures, "value", "logged value", found.logged, judge, "money", place)
    if found.lift is not None:
        name = f"lift over {LOGGED}"
        add_judged(figures, "value", name, found.lift, judge, "change of money", place)
        figures.add("value", f"relative {name}", found.lift.relative, policy=policy, unit="change")


def snips_of(found: Evaluation) -> Estimate | None:
    """Return the estimate that the lift is made of: a value by another one would contradict it."""
    return next((one for one in found.estimates if one.name == "snips"), None)


def _estimators(figures: Figures, policy: str, found: Evaluation) -> None:
    for one in found.estimates:
        name = ESTIMATORS[one.name]
        low, high = ends(one.interval)
        figures.add("estimators", "value", one.value, low, high, policy=policy, group=name, unit="money")
        figures.add("estimators", "standard error", one.error, policy=policy, group=name, unit="money")
        figures.add("estimators", "parameter", one.parameter, policy=policy, group=name)


def describe_diagnostics(figures: Figures, policy: str, found: Evaluation) -> None:
    """Add what weights look like, and what hangs on large ones: sections diagnostics, clips."""
    seen = found.diagnostics
    if seen is None:
        return
    for measure, value, unit, text in diagnosed(seen):
        figures.add("diagnostics", measure, value, policy=policy, unit=unit, text=text)
    for clip in seen.clips:
        half = 1.959963984540054 * clip.error
        figures.add(
            "clips", "clipped IPS", clip.value, clip.value - half, clip.value + half, policy=policy, group=f"{clip.clip:g}",
            x=clip.clip, unit="money",
        )  # fmt: skip


def diagnosed(seen: Diagnostics) -> list[tuple[str, float | None, Unit, str]]:
    """Return what weights look like: name, value, unit, and a remark on it."""
    return [
        ("draws judged", seen.draws, "count", ""),
        ("users", seen.users, "count", ""),
        ("forced draws", seen.forced_share, "share", ""),
        ("effective sample size (ESS)", seen.ess, "count", ""),
        ("ESS over draws", seen.ess_share, "share", ""),
        ("mean weight", seen.weight_mean, "number", ""),
        ("standard errors from 1", seen.weight_z, "number", ""),
        ("largest weight", seen.weight_max, "number", ""),
        ("its share of all weight", seen.weight_share, "share", ""),
        ("largest share of weighted reward", seen.reward_share, "share", ""),
        ("Pareto k of the weights", seen.pareto_k, "number", tail_aside(seen)),
        ("unsupported mass", seen.unsupported, "share", ""),
        ("DM minus IPS, in standard errors", seen.model_gap, "number", ""),
    ]


def goals_of(judged: Judged) -> dict[str, tuple[Floats | None, Unit, Unit]]:
    """Return what a policy may change, by name: of every draw, None if not known, and the units of a value and of a change."""
    draws = judged.draws
    margin = draws.margin / judged.minor if np.isfinite(draws.margin).all() else None
    return {
        "revenue": (draws.revenue / judged.minor, "money", "change of money"),
        "margin": (margin, "money", "change of money"),
        "pieces": (draws.quantity.astype(np.float64), "number", "change of number"),
        "share of draws that sell": ((draws.quantity > 0).astype(np.float64), "share", "change of share"),
        STAYS_AWAY: (judged.gone, "share", "change of share"),
    }


def describe_goals(figures: Figures, judged: Judged, target: Target) -> None:
    """Add what the policy changes of revenue, margin, pieces, purchases and users who come back, each apart."""
    settings = fewer(judged.settings)
    for name, (reward, unit, change) in goals_of(judged).items():
        if reward is None:
            figures.add("goals", "value", None, policy=target.name, group=name, text="not available")
            continue
        known = np.isfinite(reward)
        values = np.where(known, reward, 0.0)
        found = evaluate(judged.feedback(target, values).where(known), settings)
        snips = snips_of(found)
        if snips is None or found.lift is None or found.logged is None or found.verdict == "REFUSE":
            figures.add("goals", "value", None, policy=target.name, group=name, text=UNSUPPORTED)
            continue
        figures.add("goals", "logged value", found.logged.value, policy=target.name, group=name, unit=unit)
        figures.add("goals", "value", snips.value, policy=target.name, group=name, unit=unit)
        add_judged(
            figures, "goals", "lift", found.lift, found.judged_by, change, {"policy": target.name, "group": name}
        )
        figures.add("goals", "relative lift", found.lift.relative, policy=target.name, group=name, unit="change")


def fewer(settings: Settings) -> Settings:
    """Return the settings with at most FEWER_RESAMPLES."""
    return replace(settings, resamples=min(settings.resamples, FEWER_RESAMPLES))


def stays_away(draws: Draws, events: Spill, window_ms: int, horizon_ms: int, end_ms: int) -> Floats:
    """Return 1 where a draw's user has no event from the end of its window up to the horizon, 0 where one, (n,).

    Args:
        draws: to be labelled.
        events: all of the log: (user, time), by user; codes as in `draws`.
        window_ms: after a draw, in which its own session goes on.
        horizon_ms: after a draw, > window_ms.
        end_ms: last time of the log; draws within the horizon before it are not a number.
    """
    gone = np.ones(len(draws))
    for number, (users, times_ms) in enumerate(rows.T for rows in events):
        mine = np.flatnonzero(draws.user % events.parts == number)
        span = end_ms + horizon_ms + 1
        keys = np.sort(users * span + times_ms)
        at = draws.user[mine] * span + draws.time_ms[mine]
        begins = np.searchsorted(keys, at + window_ms, side="left")
        ends = np.searchsorted(keys, at + horizon_ms, side="right")
        gone[mine] = ends == begins
    return np.where(draws.time_ms + horizon_ms <= end_ms, gone, np.nan)
