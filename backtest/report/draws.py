"""The logged draws of a report: what was drawn, with which probability, what came of it; and how often a price sells.

A draw is one row of evaluation (contracts.outcomes). Rows are in the order of decisions: (time, partition, version). Not
here: what a target policy would have drawn (targets), what follows from that (values).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.logged_draws import LoggedDraws
from backtest.report.divisions import Divisions
from backtest.report.facts import Bools, Codes, Floats, Ints, Names, bools_of, floats_of, ints_of, rows_of, texts_of
from backtest.report.figures import Figures
from contracts.log_files import require_pyarrow

DRAWS_MIN = 20
"""Draws at a price below which a demand curve says nothing of it."""
BAND_PERMILLE = 25
"""Width of a step of a demand curve, in permille of list price."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Resolved draws, (n,) each."""

    user: Ints
    item: Ints
    market: Names
    price: Ints
    list_price: Ints
    cost: Ints
    """-1: not known."""
    intent: Ints
    """-1: not known."""
    sequence: Ints
    """The user's count of events at the draw."""
    propensity: Floats
    forced: Bools
    time_ms: Ints
    exposed: Bools
    learnable: Bools
    quantity: Ints
    """Pieces bought at the drawn price; 0: not bought."""
    prices: NDArray[np.object_]
    """The feasible ones, ascending, (k,) each."""
    probabilities: NDArray[np.object_]
    """The logged policy's, of each of them, (k,) each."""
    ids: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.user)

    def where(self, chosen: Bools | Ints) -> Draws:
        """Return some of the rows."""
        return replace(self, **{each.name: getattr(self, each.name)[chosen] for each in fields(self)})

    @property
    def multiplier(self) -> Floats:
        """Drawn price over list price."""
        return self.price / self.list_price

    @property
    def revenue(self) -> Floats:
        """What the draw took in, minor units."""
        return (self.quantity * self.price).astype(np.float64)

    @property
    def margin(self) -> Floats:
        """Revenue less cost, minor units; not a number where the cost is not known and something was bought."""
        unknown = (self.cost < 0) & (self.quantity > 0)
        return np.where(unknown, np.nan, self.quantity * (self.price - np.maximum(self.cost, 0)))

    def segments(self, divisions: Divisions) -> dict[str, Names]:
        """Return per segment the group of every draw."""
        return divisions.segments(self.item, self.market, self.list_price, self.sequence, self.intent)


def draws_of(logged: LoggedDraws, users: Codes, items: Codes) -> Draws:
    """Return the columns of `logged` that a report needs; users and items by the codes of its decisions."""
    table = logged.table
    return Draws(
        user=users.array(table["user"].to_pylist()),
        item=items.array(table["item"].to_pylist()),
        market=texts_of(table["market"], "none"),
        price=ints_of(table["price"]),
        list_price=ints_of(table["list_price"]),
        cost=ints_of(table["cost"]),
        intent=ints_of(table["intent"]),
        sequence=ints_of(table["sequence"]),
        propensity=floats_of(table["propensity"]),
        forced=bools_of(table["forced"]),
        time_ms=ints_of(table["drawn_ms"]),
        exposed=bools_of(table["exposed"]),
        learnable=bools_of(table["learnable"]),
        quantity=ints_of(table["quantity"], 0),
        prices=rows_of(table["prices"], np.int64),
        probabilities=rows_of(table["probabilities"], np.float64),
        ids=logged.column("draw_id"),
    )


def describe_demand(figures: Figures, draws: Draws, divisions: Divisions) -> None:
    """Add the share of exposed draws that sold, by price over list: the demand curve as the log shows it.

    Not causal where the logged policy priced by what it knew of people: it gave discounts to those who hesitated. Intervals
    are Wilson's (1927).
    """
    rows = np.flatnonzero(draws.exposed)
    band = np.round(1_000 * draws.multiplier[rows] / BAND_PERMILLE).astype(np.int64) * BAND_PERMILLE
    bought = draws.quantity[rows] > 0
    parts: dict[str, dict[str, Bools]] = {"": {"": np.ones(len(rows), np.bool_)}}
    intent = draws.segments(divisions)["intent"][rows]
    parts["intent"] = {name: intent == name for name in sorted(set(intent.tolist()))}
    for segment, groups in parts.items():
        for group, inside in groups.items():
            for place in np.unique(band[inside]).tolist():
                here = inside & (band == place)
                count, sold = int(here.sum()), int((bought & here).sum())
                if count < DRAWS_MIN:
                    continue
                low, high = wilson(sold, count)
                figures.add(
                    "demand", "share bought", sold / count, low, high, segment=segment, group=group, x=float(place),
                    unit="share",
                )  # fmt: skip
                figures.add("demand", "draws", count, segment=segment, group=group, x=float(place), unit="count")


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def write_draws(
    file: Path, draws: Draws, divisions: Divisions, targets: Mapping[str, Floats], more: Mapping[str, Floats]
) -> None:
    """Write the draws as Parquet: no names, the segments, per policy the probability of the price that was drawn, and `more`."""
    pa = require_pyarrow()
    columns: dict[str, Any] = {
        name: getattr(draws, name)
        for name in (
            "user", "item", "time_ms", "price", "list_price", "cost", "quantity", "propensity", "forced", "exposed", "learnable",
            "sequence",
        )
    }  # fmt: skip
    columns |= {"revenue": draws.revenue, "margin": draws.margin, "period_ms": divisions.periods(draws.time_ms)}
    columns |= {f"segment: {name}": groups for name, groups in draws.segments(divisions).items()}
    columns |= {f"target: {policy}": probability for policy, probability in targets.items()}
    columns |= more
    pa.parquet.write_table(pa.table(columns), file, compression="zstd")
