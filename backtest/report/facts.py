"""The facts of a report: the columns it needs of a run's decisions, chunk by chunk, and how tables become arrays.

Users and items are codes: the files beside a page name no person; that takes some hundred bytes per user and item. Not here:
what is computed from the decisions (prices, divisions), logged draws (draws).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

CHUNK_ROWS = 65_536
"""Rows of a table that are in memory at once."""


class Codes:
    """Users or items as integers, in the order in which they are met."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def array(self, names: Any) -> Ints:  # noqa: ANN401 - pyarrow ships no types
        """Return the code of every name in an arrow column."""
        of, encoded = self.of, names.dictionary_encode()
        codes = [of.setdefault(name, len(of)) for name in encoded.dictionary.to_pylist()]
        return np.array(codes, np.int64)[np.asarray(encoded.indices, np.int64)]

    def code(self, name: str) -> int:
        """Return the code of a name."""
        return self.of.setdefault(name, len(self.of))

    def __len__(self) -> int:
        return len(self.of)


@dataclass(frozen=True, slots=True)
class Decisions:
    """Price decisions of one run, (n,) each, in the order of the file; purchases and withdrawals among them."""

    user: Ints
    item: Ints
    time_ms: Ints
    status: Names
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

    @property
    def offered(self) -> Bools:
        """Which decisions price an item for somebody who looks at it, or has just withdrawn consent."""
        priced: Bools = self.binding != "purchase"
        return priced


_COLUMNS = [
    "kind", "user", "item", "event_time_ms", "status", "price", "list_price", "sequence", "intent", "market", "trail",
    "binding_rule", "forced",
]  # fmt: skip


class DecisionFile:
    """The decisions of one run, in a Parquet file that `pricetide backtest --decisions` wrote. Can be read again and again."""

    def __init__(self, file: Path, users: Codes, items: Codes) -> None:
        self._file, self._users, self._items = file, users, items

    @property
    def rows(self) -> int:
        """How many decisions there are at most: the file also has what was applied without one."""
        return int(require_pyarrow().parquet.read_metadata(self._file).num_rows)

    def __iter__(self) -> Iterator[Decisions]:
        """Yield the decisions in the order of the file, from 1 to CHUNK_ROWS at once."""
        require_pyarrow()
        import pyarrow.compute

        for batch in batches_of(self._file, _COLUMNS):
            chosen = batch.filter(pyarrow.compute.equal(batch["kind"], "decision"))
            if chosen.num_rows:
                yield self._decisions(chosen)

    def _decisions(self, columns: Any) -> Decisions:  # noqa: ANN401 - a pyarrow.RecordBatch
        rails, rail_names = _rails_of(columns["trail"])
        return Decisions(
            user=self._users.array(columns["user"]),
            item=self._items.array(columns["item"]),
            time_ms=ints_of(columns["event_time_ms"]),
            status=texts_of(columns["status"]),
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


def batches_of(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    """Yield columns of a Parquet file as record batches of at most CHUNK_ROWS."""
    pa = require_pyarrow()
    with pa.parquet.ParquetFile(file) as opened:
        yield from opened.iter_batches(CHUNK_ROWS, columns=list(columns))


def _rails_of(trails: Any) -> tuple[Ints, tuple[str, ...]]:  # noqa: ANN401 - pyarrow ships no types
    """Return the names of the rails in an arrow column of trails, and which of them each row has, as bits."""
    steps = trails.flatten().field("rail").dictionary_encode()
    lengths = np.asarray(trails.value_lengths().fill_null(0))
    bits = np.zeros(len(trails), np.int64)
    rows = np.repeat(np.arange(len(trails)), lengths)
    np.bitwise_or.at(bits, rows, np.left_shift(1, np.asarray(steps.indices, np.int64)))
    return bits, tuple(steps.dictionary.to_pylist())


def ints_of(column: Any, missing: int = -1) -> Ints:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of whole numbers."""
    return np.asarray(column.fill_null(missing), np.int64)


def floats_of(column: Any) -> Floats:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of numbers; not a number where it has none."""
    return np.asarray(column.cast("float64"), np.float64)


def texts_of(column: Any, missing: str = "") -> Names:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of texts, few of them different."""
    encoded = column.fill_null(missing).dictionary_encode()
    return np.array(encoded.dictionary.to_pylist() or [missing], np.str_)[np.asarray(encoded.indices, np.int64)]


def bools_of(column: Any) -> Bools:  # noqa: ANN401 - pyarrow ships no types
    """Return an arrow column of truths."""
    return np.asarray(column, np.bool_)


class DecisionWriter:
    """Writes the price decisions of all runs as Parquet: `policy`, and the columns that figures are computed from; no names."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: Any = None

    def append(self, policy: str, run: Decisions) -> None:
        """Write some decisions under a policy."""
        pa = require_pyarrow()
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
        table = pa.table(columns)
        if self._writer is None:
            self._writer = pa.parquet.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
