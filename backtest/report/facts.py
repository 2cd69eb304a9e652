"""The facts of a report: the columns it needs of a run's decisions and of the logged draws, as arrays.

Users and items are codes: the files beside a page name no person. Memory: some hundred bytes per decision and run, about a
kilobyte per draw. Not here: what is computed from them (prices, values).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.log_files import require_pyarrow

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Names = NDArray[np.str_]


class Codes:
    """Users or items as integers, in the order in which they are met."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def array(self, names: Sequence[str]) -> Ints:
        """Return the code of every name."""
        of = self.of
        return np.array([of.setdefault(name, len(of)) for name in names], np.int64)

    def code(self, name: str) -> int:
        """Return the code of a name."""
        return self.of.setdefault(name, len(self.of))


@dataclass(frozen=True, slots=True)
class Decisions:
    """The price decisions of one run, (n,) each, in the order of the file; purchases and withdrawals among them."""

    user: Ints
    item: Ints
    time_ms: Ints
    status: Names
    topic: Names
    price: Ints
    list_price: Ints
    sequence: Ints
    """The user's count of events, this one included."""
    intent: Ints
    """-1: not known."""
    market: Names
    rails: Ints
    """Rails that removed points of the lattice: bit i stands for the rail `rail_names[i]`."""
    rail_names: tuple[str, ...]
    binding: Names
    """The rail that decided; empty: none."""
    forced: Bools

    @property
    def multiplier(self) -> Floats:
        """Price over list price."""
        return self.price / self.list_price


def read_decisions(file: Path, users: Codes, items: Codes) -> Decisions:
    """Return the decisions in a Parquet file that `pricetide backtest --decisions` wrote."""
    names = [
        "kind", "user", "item", "event_time_ms", "status", "topic", "price", "list_price", "sequence", "intent",
        "market", "trail", "binding_rule", "forced",
    ]  # fmt: skip
    columns = read_columns(file, names, "decision")
    rails, rail_names = _rails_of(columns["trail"])
    return Decisions(
        user=users.array(columns["user"].to_pylist()),
        item=items.array(columns["item"].to_pylist()),
        time_ms=ints_of(columns["event_time_ms"]),
        status=texts_of(columns["status"]),
        topic=texts_of(columns["topic"]),
        price=ints_of(columns["price"]),
        list_price=ints_of(columns["list_price"]),
        sequence=ints_of(columns["sequence"]),
        intent=ints_of(columns["intent"]),
        market=texts_of(columns["market"], "none"),
        rails=rails,
        rail_names=rail_names,
        binding=texts_of(columns["binding_rule"]),
        forced=bools_of(columns["forced"]),
    )


def _rails_of(trails: Any) -> tuple[Ints, tuple[str, ...]]:  # noqa: ANN401 - pyarrow ships no types
    """Return the names of the rails in an arrow column of trails, and which of them each row has, as bits."""
    column = trails.combine_chunks()
    steps = column.flatten().field("rail").dictionary_encode()
    lengths = column.value_lengths().fill_null(0).to_numpy()
    bits = np.zeros(len(column), np.int64)
    rows = np.repeat(np.arange(len(column)), lengths)
    np.bitwise_or.at(bits, rows, np.left_shift(1, steps.indices.to_numpy().astype(np.int64)))
    return bits, tuple(steps.dictionary.to_pylist())


def read_columns(file: Path, names: Sequence[str], kind: str) -> Mapping[str, Any]:
    """Return columns of the rows of one kind in a Parquet file of a backtest, as arrow arrays."""
    pa = require_pyarrow()
    table = pa.parquet.read_table(file, columns=list(names))
    table = table.filter(pa.compute.equal(table["kind"], kind))
    return {name: table[name] for name in names}


def ints_of(column: Any, missing: int = -1) -> Ints:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of whole numbers."""
    return np.asarray(column.fill_null(missing).to_numpy(), np.int64)


def floats_of(column: Any) -> Floats:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of numbers; not a number where it has none."""
    return np.asarray(column.cast("float64").to_numpy(), np.float64)


def texts_of(column: Any, missing: str = "") -> Names:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of texts."""
    return np.array(column.fill_null(missing).to_pylist(), np.str_)


def bools_of(column: Any) -> Bools:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of truths."""
    return np.asarray(column.to_numpy(), np.bool_)


def rows_of(column: Any, kind: type[np.generic]) -> NDArray[np.object_]:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of lists as an array of arrays."""
    rows = np.empty(len(column), np.object_)
    rows[:] = [np.asarray(one, kind) for one in column.to_pylist()]
    return rows


def write_decisions(file: Path, runs: Mapping[str, Decisions]) -> None:
    """Write the price decisions of all runs as Parquet: `policy`, and the columns that figures are computed from; no names."""
    pa = require_pyarrow()
    tables = []
    for policy, run in runs.items():
        columns: dict[str, Any] = {
            name: getattr(run, name)
            for name in (
                "user", "item", "time_ms", "status", "price", "list_price", "sequence", "intent", "market", "binding", "forced",
            )
        }  # fmt: skip
        kinds, place = np.unique(run.rails, return_inverse=True)
        lists = [[name for bit, name in enumerate(run.rail_names) if kind >> bit & 1] for kind in kinds.tolist()]
        columns["rails"] = pa.array(lists, pa.list_(pa.string())).take(pa.array(place))
        columns["policy"] = pa.array([policy] * len(run.user)).dictionary_encode()
        tables.append(pa.table(columns))
    pa.parquet.write_table(pa.concat_tables(tables), file, compression="zstd")
