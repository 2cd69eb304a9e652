"""The feasible prices of draws: rows of different lengths, with several numbers for every price, on disk.

The numbers lie in mapped files, in the order in which they were written, and come into memory part by part. What stays in
memory is where each draw's begin, and how many they are. Not here: what the numbers mean (draws).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.report.facts import CHUNK_ROWS, Bools, Floats, Ints

Numbers = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Lattices:
    """Columns of numbers, one for every feasible price of n draws."""

    begin: Ints
    """Where each draw's begin, (n,)."""
    length: Ints
    """How many they are, at least 1, (n,)."""
    columns: Mapping[str, Numbers]

    def where(self, rows: Bools | Ints) -> Lattices:
        """Return some of the draws."""
        return Lattices(self.begin[rows], self.length[rows], self.columns)

    def beside(self, name: str, values: Numbers) -> Lattices:
        """Return the same draws with one more column, which has its numbers where the others have theirs."""
        return Lattices(self.begin, self.length, {**self.columns, name: values})

    def parts(self, rows: int = CHUNK_ROWS) -> Iterator[Part]:
        """Yield the draws in order, so many at once."""
        for start in range(0, len(self.begin), rows):
            yield Part(self, slice(start, min(start + rows, len(self.begin))))


class Part:
    """Some draws that follow each other; m prices of them are in memory."""

    def __init__(self, lattices: Lattices, rows: slice) -> None:
        length = lattices.length[rows]
        self.rows = rows
        self.starts: Ints = np.cumsum(length) - length
        """Where each draw begins among the m."""
        self.row: Ints = np.repeat(np.arange(len(length)), length)
        """Which of these draws each price is of, (m,)."""
        self.at: Ints = np.repeat(lattices.begin[rows] - self.starts, length) + np.arange(len(self.row))
        """Where each price stands in the columns, (m,)."""
        self._columns = lattices.columns

    def __getitem__(self, name: str) -> Numbers:
        """Return a column, (m,)."""
        return np.asarray(self._columns[name][self.at])

    def sums(self, values: Floats) -> Floats:
        """Return the sum of values, (m,), of each draw."""
        found: Floats = np.add.reduceat(values, self.starts)
        return found

    def highest(self, values: Floats) -> Floats:
        """Return the highest of values, (m,), of each draw."""
        found: Floats = np.maximum.reduceat(values, self.starts)
        return found

    def at_or_below(self, values: Ints, limits: Ints) -> Ints:
        """Return, for each draw, which of its ascending values, (m,), is the last one <= its limit; 0 if all lie above."""
        place = np.arange(len(self.row)) - self.starts[self.row]
        found: Ints = np.maximum.reduceat(np.where(values <= limits[self.row], place, 0), self.starts)
        return found


class LatticeWriter:
    """Writes columns of lists to files that are mapped in the end."""

    def __init__(self, directory: Path, kinds: Mapping[str, np.dtype[Any]]) -> None:
        """Begin; `kinds` has the columns."""
        self._kinds = kinds
        self._paths = {name: directory / f"lattice-{number}.column" for number, name in enumerate(kinds)}
        self._lengths: list[Ints] = []
        for path in self._paths.values():
            path.write_bytes(b"")

    def append(self, columns: Mapping[str, Any]) -> None:
        """Add draws: arrow columns of lists, which are as long as each other and not empty."""
        for name, path in self._paths.items():
            with path.open("ab") as file:
                file.write(np.asarray(columns[name].flatten(), self._kinds[name]).tobytes())
        self._lengths.append(np.asarray(next(iter(columns.values())).value_lengths(), np.int64))

    def finish(self) -> Lattices:
        """Return what was written."""
        length = np.concatenate(self._lengths) if self._lengths else np.zeros(0, np.int64)
        columns = {
            name: np.memmap(path, self._kinds[name], "r") if len(length) else np.zeros(0, self._kinds[name])
            for name, path in self._paths.items()
        }
        return Lattices(np.cumsum(length) - length, length, columns)
