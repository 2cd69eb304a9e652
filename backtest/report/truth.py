"""The truth beside a simulated log: what policies really earn at the logged draws, against list price, best fixed, and the oracle.

A simulated shop knows the chance of a purchase at every feasible price of every draw, and writes it beside its log
(`truth.parquet` or `truth.jsonl`). Real shops have no such file, and their reports no such section. The oracle asks the
price with the highest expected reward, draw by draw. Not here: simulated shops (`pricetide simulate`), estimates (values).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backtest.report.divisions import Divisions, period_name
from backtest.report.draws import Draws
from backtest.report.facts import Floats
from backtest.report.figures import Figures
from backtest.report.targets import LIST_PRICE, Target
from backtest.report.values import LOGGED, Goal, Judged
from contracts.errors import BadInput
from contracts.log import Log
from contracts.log_files import read_rows

ORACLE = "oracle"
_NAMES = ("truth.parquet", "truth.jsonl")


class _TruthRow(Struct, gc=False):
    """One feasible price of one draw; what a report needs of the rows that a simulated shop writes."""

    draw_id: str
    price: int
    cost: int
    chance: float


def truth_of(log: Log, draws: Draws, goal: Goal, minor: int) -> NDArray[np.object_] | None:
    """Return the expected reward of each feasible price of every draw, (k,) each; None if no truth stands beside the log.

    Args:
        log: its directory is looked into.
        draws: whose rewards are asked for.
        goal: what a reward is.
        minor: minor units in a whole one of the currency.

    Raises:
        BadInput: the truth does not know a draw, or a price of one.
    """
    file = next((log.directory / name for name in _NAMES if (log.directory / name).is_file()), None)
    if file is None:
        return None
    place = {name: row for row, name in enumerate(draws.ids.tolist())}
    worth = np.empty(len(draws), np.object_)
    worth[:] = [np.full(len(prices), np.nan) for prices in draws.prices]
    for chunk in read_rows(file, _TruthRow):
        for one in chunk:
            row = place.get(one.draw_id)
            if row is not None:
                earned = one.price - one.cost if goal == "margin" else one.price
                worth[row][draws.prices[row] == one.price] = one.chance * earned / minor
    _require_whole(worth, file)
    return worth


def _require_whole(worth: NDArray[np.object_], file: Path) -> None:
    missing = sum(bool(np.isnan(one).any()) for one in worth)
    if missing:
        raise BadInput(
            f"{file} does not know {missing:,} of the {len(worth):,} draws: it belongs to another log; remove it"
        )


def describe_truth(
    figures: Figures, judged: Judged, targets: Sequence[Target], worth: NDArray[np.object_], divisions: Divisions
) -> None:
    """Add what policies really earn per draw, of all draws and by period; section truth.

    Args:
        figures: to add to.
        judged: the draws.
        targets: policies, the list price among them.
        worth: as truth_of has it.
        divisions: of the log.
    """
    free = ~judged.draws.forced
    earned: dict[str, Floats] = {LOGGED: _under(judged.draws.probabilities, worth)}
    earned |= {one.name: _under(one.choices, worth) for one in targets}
    earned[ORACLE] = np.array([float(one.max()) for one in worth])
    starts = divisions.periods(judged.draws.time_ms)
    logged = float(earned[LOGGED][free].mean())
    low, high = float(earned[LIST_PRICE][free].mean()), float(earned[ORACLE][free].mean())
    for policy, values in earned.items():
        mean = float(values[free].mean())
        figures.add("truth", "true value", mean, policy=policy, unit="money")
        figures.add("truth", "true lift over logged policy", mean - logged, policy=policy, unit="change of money")
        if high > low:
            figures.add("truth", "share of the oracle's gain", (mean - low) / (high - low), policy=policy, unit="share")
        _hit(figures, policy, mean - logged)
        for start in np.unique(starts).tolist():
            inside = free & (starts == start)
            if inside.any():
                figures.add(
                    "truth", "true value of the period", float(values[inside].mean()), policy=policy, unit="money",
                    period=period_name(start, divisions.step_ms), x=float(start),
                )  # fmt: skip


def _under(choices: NDArray[np.object_], worth: NDArray[np.object_]) -> Floats:
    return np.array([float(p @ q) for p, q in zip(choices, worth, strict=True)])


def _hit(figures: Figures, policy: str, lift: float) -> None:
    """Add whether the interval of the estimated lift holds the true one."""
    for _, row in figures.where("value", policy=policy, measure=f"lift over {LOGGED}"):
        if row.low is not None and row.high is not None:
            words = "inside" if row.low <= lift <= row.high else "outside"
            figures.add("truth", "in the interval of its estimate", policy=policy, unit="text", text=words)
