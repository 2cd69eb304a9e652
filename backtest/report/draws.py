"""The logged draws of a report: what was drawn, with which probability, what came of it; and how often a price sells.

A draw is one row of evaluation (contracts.outcomes). Rows are in the order of decisions: (time, partition, version). One number
of each column is in memory per draw, what belongs to every feasible price lies in mapped files (lattices). Not here: what a
target policy would have drawn (targets), what follows from that (values).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from backtest.logged_draws import DrawsHead
from backtest.report.divisions import Divisions, Groups
from backtest.report.facts import (
    CHUNK_ROWS,
    Bools,
    Codes,
    Floats,
    Ints,
    Names,
    batches_of,
    bools_of,
    floats_of,
    ints_of,
    texts_of,
)
from backtest.report.figures import Figures
from backtest.report.lattices import Lattices, LatticeWriter
from contracts.log_files import require_pyarrow

DRAWS_MIN = 20
"""Draws at a price below which a demand curve says nothing of it."""
PRICES, LOGGED = "feasible price", "logged policy"
"""Columns of the lattices; no policy can be named so: names have no spaces."""
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
    churn: Floats
    """The logged chance that the user stays away; not a number where none was logged."""
    churn_days: Ints
    """Its horizon; -1: none."""
    row: Ints
    """In the file of logged draws."""
    lattices: Lattices
    """The feasible prices: PRICES, LOGGED (the logged policy's probability), and one column per target policy."""

    def __len__(self) -> int:
        return len(self.user)

    def where(self, chosen: Bools | Ints) -> Draws:
        """Return some of the rows."""
        columns = {each.name: getattr(self, each.name)[chosen] for each in fields(self) if each.name != "lattices"}
        return replace(self, lattices=self.lattices.where(chosen), **columns)

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

    def segments(self, divisions: Divisions) -> dict[str, Groups]:
        """Return per segment the groups of the draws."""
        return divisions.segments(self.item, self.market, self.list_price, self.sequence, self.intent)


_COLUMNS = {
    "price": "price", "list_price": "list_price", "cost": "cost", "intent": "intent", "sequence": "sequence",
    "time_ms": "drawn_ms", "quantity": "quantity", "churn_days": "churn_days", "partition": "partition", "version": "version",
}  # fmt: skip
"""Whole numbers: our name -> the table's."""
_LISTS = {PRICES: "prices", LOGGED: "probabilities"}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a target policy would have drawn, (n,) each; its choices are a column of the lattices."""

    probability: Floats
    """Of the logged price."""
    unsupported: Floats
    """Of prices that the logged policy could not draw."""


def read_draws(
    file: Path, head: DrawsHead, users: Codes, items: Codes, scratch: Path
) -> tuple[Draws, dict[str, Wishes]]:
    """Return the draws in a file of logged draws, in order, and what each target would have drawn there.

    Args:
        file: as `pricetide backtest --draws` writes it.
        head: of it.
        users: codes of users, as the decisions have them.
        items: as above.
        scratch: a directory for what belongs to every price; must outlive what is returned.
    """
    lists = {**_LISTS, **{name: f"targets.{name}" for name in head.targets}}
    kinds = {name: np.dtype(np.int64 if name == PRICES else np.float64) for name in lists}
    writer = LatticeWriter(scratch, kinds)
    parts: dict[str, list[Any]] = {}
    flat = [f"{kind}.{name}" for kind in ("target", "outside") for name in head.targets]
    wanted = [
        *_COLUMNS.values(),
        "user",
        "item",
        "market",
        "propensity",
        "churn",
        "forced",
        "exposed",
        "learnable",
        *flat,
    ]
    for batch in batches_of(file, [*wanted, *lists.values()]):
        writer.append({name: batch[column] for name, column in lists.items()})
        found: dict[str, Any] = {
            name: ints_of(batch[column], 0 if name == "quantity" else -1) for name, column in _COLUMNS.items()
        }
        found |= {"user": users.array(batch["user"]), "item": items.array(batch["item"])}
        found |= {
            "market": texts_of(batch["market"], "none"),
            "propensity": floats_of(batch["propensity"]),
            "churn": floats_of(batch["churn"]),
        }
        found |= {name: bools_of(batch[name]) for name in ("forced", "exposed", "learnable")}
        found |= {name: floats_of(batch[name]) for name in flat}
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
    order = np.lexsort((columns.pop("version"), columns.pop("partition"), columns["time_ms"]))
    for name in columns:
        columns[name] = columns[name][order]
    lattices = writer.finish().where(order)
    wishes = {
        name: Wishes(columns.pop(f"target.{name}"), _unsupported(lattices, name, columns.pop(f"outside.{name}")))
        for name in head.targets
    }
    return Draws(**columns, row=order, lattices=lattices), wishes


def knowledge_at(file: Path, head: DrawsHead, rows: Ints) -> Any:  # noqa: ANN401 - a pyarrow.Table
    """Return what backtest.learning asks of some draws, as numbers of few texts: which policy drew, and what who knew.

    Args:
        file: of logged draws.
        head: of it.
        rows: places in the file, (n,).
    """
    pa = require_pyarrow()
    texts = ["policy", "learned"]
    columns = [*texts, *(f"learned.{name}" for name in head.targets)]
    return pa.parquet.read_table(file, columns=columns, read_dictionary=texts).take(rows)


def _unsupported(lattices: Lattices, name: str, outside: Floats) -> Floats:
    """Return a target's probability, (n,), of what the logged policy never draws; see LoggedDraws.unsupported."""
    mass = outside.copy()
    for part in lattices.parts():
        mass[part.rows] += part.sums(np.where(part[LOGGED] > 0.0, 0.0, part[name]))
    return np.clip(mass, 0.0, 1.0)


def describe_demand(figures: Figures, draws: Draws, divisions: Divisions) -> None:
    """Add the share of exposed draws that sold, by price over list: the demand curve as the log shows it.

    Not causal where the logged policy priced by what it knew of people: it gave discounts to those who hesitated. Intervals
    are Wilson's (1927).
    """
    rows = np.flatnonzero(draws.exposed)
    band = np.round(1_000 * draws.multiplier[rows] / BAND_PERMILLE).astype(np.int64) * BAND_PERMILLE
    bought = draws.quantity[rows] > 0
    parts: dict[str, dict[str, Bools]] = {"": {"": np.ones(len(rows), np.bool_)}}
    parts["intent"] = dict(draws.segments(divisions)["intent"].where(rows).present())
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
    named = {f"target: {policy}": probability for policy, probability in targets.items()} | dict(more)
    writer = None
    for start in range(0, len(draws), CHUNK_ROWS):
        rows = slice(start, start + CHUNK_ROWS)
        table = pa.table(
            _written(draws.where(np.arange(len(draws))[rows]), divisions)
            | {name: one[rows] for name, one in named.items()}
        )
        writer = writer or pa.parquet.ParquetWriter(file, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _written(draws: Draws, divisions: Divisions) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: getattr(draws, name)
        for name in (
            "user", "item", "time_ms", "price", "list_price", "cost", "quantity", "propensity", "forced", "exposed", "learnable",
            "sequence",
        )
    }  # fmt: skip
    columns |= {"revenue": draws.revenue, "margin": draws.margin, "period_ms": divisions.periods(draws.time_ms)}
    return columns | {f"segment: {name}": groups.texts() for name, groups in draws.segments(divisions).items()}
