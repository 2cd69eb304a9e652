"""A queue of log records with bounded memory: the first ones lie in it, the others in a file until their turn comes.

Partitions share the files of a log, so a partition that lacks one record makes the feed read past those of others. How many,
the log decides. Does not know what a record means.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import BinaryIO

import msgspec

from contracts.log import LogRecord

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[LogRecord]).decode
_LENGTH = 8


class Backlog:
    """Records of one topic and partition, first in, first out."""

    __slots__ = ("_file", "_head", "_on_disk", "_path", "_read_at", "_records_max", "_tail")

    def __init__(self, path: Path, records_max: int) -> None:
        """Begin empty.

        Args:
            path: of the file, if one is needed.
            records_max: most records that wait in memory, twice.
        """
        self._path, self._records_max = path, records_max
        self._head: deque[LogRecord] = deque()
        self._tail: list[LogRecord] = []
        """Behind those on disk."""
        self._file: BinaryIO | None = None
        self._read_at = self._on_disk = 0

    def __len__(self) -> int:
        return len(self._head) + self._on_disk + len(self._tail)

    def append(self, record: LogRecord) -> None:
        """Append a record."""
        if not self._on_disk and not self._tail and len(self._head) < self._records_max:
            self._head.append(record)
            return
        self._tail.append(record)
        if len(self._tail) >= self._records_max:
            self._spill()

    def take(self, limit: int) -> list[LogRecord]:
        """Remove and return the first records, at most `limit`, and at least one if there are any."""
        if not self._head:
            self._refill()
        head = self._head
        if len(head) <= limit:
            taken = list(head)
            head.clear()
            return taken
        return [head.popleft() for _ in range(limit)]

    def _spill(self) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w+b")
        data = _encode(self._tail)
        self._file.seek(0, 2)
        self._file.write(len(data).to_bytes(_LENGTH, "big") + data)
        self._on_disk += len(self._tail)
        self._tail.clear()

    def _refill(self) -> None:
        if not self._on_disk:
            self._head.extend(self._tail)
            self._tail.clear()
            return
        assert self._file is not None
        self._file.seek(self._read_at)
        records = _decode(self._file.read(int.from_bytes(self._file.read(_LENGTH), "big")))
        self._read_at = self._file.tell()
        self._head.extend(records)
        self._on_disk -= len(records)
        if not self._on_disk:
            self._file.truncate(0)
            self._read_at = 0

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
