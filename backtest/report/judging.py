"""What the logged draws of a log say of value: from the table of draws to figures, and to the table beside the page.

Not here: what is estimated and how (values), what policies publish (prices).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from backtest.estimates import Settings
from backtest.report import scope
from backtest.report.churn import churn_columns
from backtest.report.divisions import Divisions, Extent
from backtest.report.draws import Draws, describe_demand, write_draws
from backtest.report.facts import Codes, Floats
from backtest.report.figures import Figures
from backtest.report.parts import describe_growth, describe_parts
from backtest.report.reward_model import describe_folds, expected_rewards
from backtest.report.spill import Spill
from backtest.report.targets import NO_UNIFORM, Target, best_uniform, folds_of, list_price
from backtest.report.truth import describe_truth, find_truth, with_truth
from backtest.report.values import Judged, describe_goals, describe_value, stays_away
from backtest.summary import Summary
from contracts.log import Log


@dataclass(frozen=True, slots=True)
class Runs:
    """What is known of a log that was replayed."""

    log: Log
    summary: Summary
    users: Codes
    items: Codes
    extent: Extent
    divisions: Divisions
    titles: dict[int, str]
    """Of the items, by code."""
    events: Spill
    """(user, time) of every decision, by user."""
    truth: Path | None = None
    """File of the truth that somebody named."""


def judge(
    figures: Figures,
    runs: Runs,
    draws: Draws,
    asked: Sequence[Target],
    table: Path,
    settings: Settings,
    adaptive: bool,
    out: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Add what the draws say of the policies, and write the draws that are judged.

    Args:
        figures: to add to.
        runs: of the log.
        draws: that are judged.
        asked: policies at these draws.
        table: of logged draws.
        settings: of the evaluation.
        adaptive: whether what a policy had learned changed between the draws.
        out: Parquet file to write.
        progress: called with how much is done, of how much.
    """
    scope.describe_judging(figures, adaptive, settings.planned)
    judged, against = _judged(figures, runs, draws, asked, settings, adaptive)
    targets = [*asked, *against]
    for place, target in enumerate(targets):
        progress(place, len(targets))
        found = describe_value(figures, judged, target, against)
        if target.says:
            figures.add("targets", "says", policy=target.name, unit="text", text=target.says)
        if place < len(asked):
            describe_goals(figures, judged, target)
            describe_parts(figures, judged, target, against, runs.divisions)
            if found.verdict != "REFUSE":
                describe_growth(figures, judged, target, runs.divisions)
        elif found.verdict == "REFUSE":
            figures.add("targets", "refused", policy=target.name, unit="text", text="; ".join(found.why))
    scope.drop_verdicts(figures, [one.name for one in against])
    truth = find_truth(runs.log, runs.truth)
    if truth is not None:
        known = with_truth(draws, table, truth, judged.goal, judged.minor)
        describe_truth(figures, known, targets, runs.divisions)
    describe_demand(figures, draws, runs.divisions)
    describe_folds(figures, draws, runs.divisions)
    scope.describe_files(figures, "draws", out)
    progress(len(targets), len(targets))
    more = _more(judged) | churn_columns(figures, draws, runs.events, runs.extent.last_ms)
    write_draws(out, draws, runs.divisions, {one.name: one.probability for one in targets}, more)


def _more(judged: Judged) -> dict[str, Floats]:
    """Return what stands beside the draws in their file."""
    more = {"reward": judged.reward, "fold": folds_of(judged.draws.user).astype(np.float64)}
    if judged.gone is not None:
        more["stays away"] = judged.gone
    if judged.expected is not None:
        more["q: drawn"] = judged.expected.of_drawn
        more |= {f"q: {name}": values for name, values in judged.expected.under.items()}
    return more


def _judged(
    figures: Figures, runs: Runs, draws: Draws, asked: Sequence[Target], settings: Settings, adaptive: bool
) -> tuple[Judged, list[Target]]:
    """Return what all policies are judged by, and the prices that they are held against."""
    goal, reward = scope.goal_of(figures, draws)
    reward = reward / runs.divisions.minor
    window_ms = runs.log.manifest.semantics.outcome_window_ms
    horizon_ms = scope.horizon_of(figures, runs.log, window_ms)
    gone: Floats | None = None
    if horizon_ms is not None:
        gone = stays_away(draws, runs.events, window_ms, horizon_ms, runs.extent.last_ms)
    uniform = best_uniform(draws, reward)
    if uniform is None:
        figures.add("targets", "missing", unit="text", text=NO_UNIFORM)
    against = [list_price(draws)] if uniform is None else [list_price(draws), uniform]
    judged = Judged(
        draws=draws,
        goal=goal,
        reward=reward,
        minor=runs.divisions.minor,
        expected=expected_rewards(draws, runs.divisions, goal, [*asked, *against]),
        gone=gone,
        adaptive=adaptive,
        settings=settings,
    )
    return judged, against
