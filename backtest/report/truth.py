"""The truth beside a simulated log: what policies really earn at the logged draws, against list price, best fixed price and oracle.

A simulated shop knows the chance of a purchase at every feasible price of every draw, and writes it beside its log
(`truth.parquet` or `truth.jsonl`); shoppers before a real Kafka write theirs where they are told to (`--truth`). Real shops
have no such file, and their reports no such section. The oracle asks the price with the highest expected reward, draw by
draw; the best fixed price is the one share of list price that truly earned most, as `simulate` finds it. Not here: simulated
shops (`pricetide simulate`), estimates (values).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from msgspec import Struct

from backtest.report.divisions import Divisions, period_name
from backtest.report.draws import LOGGED, PRICES, Draws
from backtest.report.facts import Floats, batches_of
from backtest.report.figures import Figures
from backtest.report.lattices import Part
from backtest.report.targets import LIST_PRICE, Target, fixed_price, place_of_share
from backtest.report.values import Goal
from backtest.truth import MULTIPLIERS, best_of
from contracts.errors import BadInput
from contracts.log import Log
from contracts.log_files import read_rows

ORACLE = "oracle"
BEST_FIXED = "best fixed price, in hindsight"
WORTH = "true worth"
"""Column of the lattices: the expected reward of a price, whole units of the currency."""
_NAMES = ("truth.parquet", "truth.jsonl")


class _TruthRow(Struct, gc=False):
    """One feasible price of one draw; what a report needs of the rows that a simulated shop writes."""

    draw_id: str
    price: int
    cost: int
    chance: float


def find_truth(log: Log, named: Path | None) -> Path | None:
    """Return the file of the truth: the one that somebody named, or the one beside the log; None if there is none."""
    if named is not None:
        return named
    return next((log.directory / name for name in _NAMES if (log.directory / name).is_file()), None)


def with_truth(draws: Draws, table: Path, file: Path, goal: Goal, minor: int) -> Draws:
    """Return the draws with the expected reward of each feasible price, WORTH, beside the prices.

    That column and the draws' ids are in memory: some three hundred bytes per draw.

    Args:
        draws: whose rewards are asked for.
        table: of logged draws, which has their ids.
        file: of the truth.
        goal: what a reward is.
        minor: minor units in a whole one of the currency.

    Raises:
        BadInput: the truth does not know a draw, or a price of one, or cannot be read.
    """
    if not file.is_file():
        raise BadInput(f"{file} is no file: --truth takes the truth that `simulate --out` or `shoppers --out` wrote")
    lattices, place = draws.lattices, _places(draws, table)
    worth = np.full(len(lattices.columns[PRICES]), np.nan)
    for chunk in read_rows(file, _TruthRow):
        row = np.array([place.get(one.draw_id, -1) for one in chunk], np.int64)
        price = np.array([one.price for one in chunk], np.int64)
        earned = np.array([one.chance * (one.price - one.cost if goal == "margin" else one.price) for one in chunk])
        known = np.flatnonzero(row >= 0)
        for part in lattices.where(row[known]).parts():
            of = known[part.rows][part.row]
            hit = part[PRICES] == price[of]
            worth[part.at[hit]] = earned[of[hit]] / minor
    lattices = lattices.beside(WORTH, worth)
    missing = sum(int((part.sums(np.isnan(part[WORTH]) * 1.0) > 0.0).sum()) for part in lattices.parts())
    if missing:
        raise BadInput(
            f"{file} does not know {missing:,} of the {len(draws):,} draws: it belongs to another log; remove it, or name "
            "the one of this log with --truth"
        )
    return replace(draws, lattices=lattices)


def _places(draws: Draws, table: Path) -> dict[str, int]:
    """Return the place of every draw by its id."""
    place_of = np.full(int(draws.row.max(initial=-1)) + 1, -1, np.int64)
    place_of[draws.row] = np.arange(len(draws))
    places: dict[str, int] = {}
    start = 0
    for batch in batches_of(table, ["draw_id"]):
        rows = place_of[start : start + batch.num_rows].tolist()
        start += batch.num_rows
        places |= {name: place for name, place in zip(batch["draw_id"].to_pylist(), rows, strict=False) if place >= 0}
    return places


def describe_truth(figures: Figures, draws: Draws, targets: Sequence[Target], divisions: Divisions) -> None:
    """Add what policies really earn per draw, of all draws and by period; section truth.

    Args:
        figures: to add to.
        draws: as of with_truth.
        targets: policies, the list price among them.
        divisions: of the log.
    """
    free, lattices, fixed = ~draws.forced, draws.lattices, best_fixed(draws)
    ways: dict[str, Callable[[Part], Floats]] = {LOGGED: lambda part: part.sums(part[LOGGED] * part[WORTH])}
    ways |= {one.name: partial(_under, one) for one in [*targets, fixed]}
    ways[ORACLE] = lambda part: part.highest(part[WORTH])
    earned = {name: np.concatenate([way(part) for part in lattices.parts()]) for name, way in ways.items()}
    starts = divisions.periods(draws.time_ms)
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
    figures.add("truth", "note", policy=BEST_FIXED, unit="text", text=fixed.says)


def best_fixed(draws: Draws) -> Target:
    """Return the policy that asks, of everybody, the one share of list price that truly earns most at the draws with a choice."""
    sums = np.zeros(len(MULTIPLIERS))
    for part in draws.lattices.parts():
        worth, free = part[WORTH], ~draws.forced[part.rows]
        for number, share in enumerate(MULTIPLIERS):
            at = part.starts + place_of_share(draws, np.full(len(draws), share), part)
            sums[number] += worth[at][free].sum()
    best = MULTIPLIERS[best_of(sums)]
    low, high = MULTIPLIERS[0] / 10, MULTIPLIERS[-1] / 10
    says = f"{best / 10:g} % of list price truly earned most, of all shares from {low:g} % to {high:g} %"
    return fixed_price(draws, np.full(len(draws), best), BEST_FIXED, says)


def _under(target: Target, part: Part) -> Floats:
    return part.sums(target.choices(part) * part[WORTH])


def _hit(figures: Figures, policy: str, lift: float) -> None:
    """Add whether the interval of the estimated lift holds the true one."""
    for _, row in figures.where("value", policy=policy, measure=f"lift over {LOGGED}"):
        if row.low is not None and row.high is not None:
            words = "inside" if row.low <= lift <= row.high else "outside"
            figures.add("truth", "in the interval of its estimate", policy=policy, unit="text", text=words)
