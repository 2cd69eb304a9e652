"""Rows on disk in parts: all rows of one key are in one part, and a part fits in memory. For sums over keys that are too many.

Does not sort: a part has its rows in the order in which they came. Not here: what is computed of a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from backtest.report.facts import Ints

PART_ROWS = 500_000
"""Rows of a part, about: keys may be unlike."""


class Spill:
    """Rows of whole numbers in files of a directory, which go with it."""

    def __init__(self, directory: Path, name: str, width: int, rows: int) -> None:
        """Begin.

        Args:
            directory: of the files, which exists.
            name: of the files; nobody else's there.
            width: columns of a row.
            rows: that will come at most; says how many parts there are.
        """
        self._paths = [directory / f"{name}-{part}.rows" for part in range(max(1, -(-rows // PART_ROWS)))]
        self._width = width
        for path in self._paths:
            path.write_bytes(b"")

    @property
    def parts(self) -> int:
        """How many there are."""
        return len(self._paths)

    def append(self, keys: Ints, rows: Ints) -> None:
        """Add rows, (n, width), of which each has a key, (n,)."""
        part = keys % self.parts
        for number in np.unique(part).tolist():
            with self._paths[number].open("ab") as file:
                file.write(np.ascontiguousarray(rows[part == number], np.int64).tobytes())

    def __iter__(self) -> Iterator[Ints]:
        """Yield the rows of each part, (n, width): part i has the keys that are i modulo `parts`."""
        for path in self._paths:
            yield np.fromfile(path, np.int64).reshape(-1, self._width)
