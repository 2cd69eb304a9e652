"""What a backtest writes: pieces for each partition while it runs, and the files that somebody asked for when it is over.

A piece is an Arrow file (of dead letters, JSON lines); a new one begins whenever the partition is saved, so that a killed
backtest goes on behind the last save. The files have the pieces partition after partition, each in the order of
publication, in row groups of one size: the same bytes, whatever the batches, processes, saves and kills were.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from backtest.tables import PUBLISHED, Table, schema_of
from contracts.errors import BadEvent
from contracts.intake import Inbound
from contracts.log_files import require_pyarrow

ROW_GROUP_ROWS = 16_384
PIECE_ROWS = 4_096
"""Rows that wait in memory, per partition and table."""


def piece(work: Path, name: str, partition: int, number: int, suffix: str = "arrow") -> Path:
    """Return the path of a piece."""
    return work / f"{name}-{partition:04d}-{number:06d}.{suffix}"


def pieces(work: Path, name: str, partition: int, suffix: str = "arrow") -> list[Path]:
    """Return the paths of all pieces of a partition, in order."""
    return sorted(work.glob(f"{name}-{partition:04d}-*.{suffix}"))


class Pieces:
    """The rows of one table and partition, piece after piece; what waits for its batch is held in memory."""

    def __init__(self, work: Path, name: str, partition: int, columns: Mapping[str, str], number: int) -> None:
        """Begin with piece `number`; those from there on, of a run that was killed, are removed.

        Args:
            work: their directory.
            name: of the table.
            partition: whose rows these are.
            columns: name -> type.
            number: of the next piece.
        """
        self._pa = require_pyarrow()
        self._schema = schema_of(columns, self._pa)
        self._work, self._name, self._partition, self._number = work, name, partition, number
        self._waiting: list[Sequence[Any]] = []
        self._writer: Any = None
        work.mkdir(parents=True, exist_ok=True)
        for path in pieces(work, name, partition):
            if path >= piece(work, name, partition, number):
                path.unlink()

    def append(self, columns: Sequence[Sequence[Any]]) -> None:
        """Append rows, given as columns in the order of the schema."""
        arrays = [self._pa.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]
        if self._writer is None:
            path = piece(self._work, self._name, self._partition, self._number)
            options = self._pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = self._pa.ipc.new_file(str(path), self._schema, options=options)
        self._writer.write_batch(self._pa.record_batch(arrays, schema=self._schema))

    def roll(self) -> int:
        """Finish the piece, if there is one; return the number of the next."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._number += 1
        return self._number


class Published:
    """Pieces of a table of published records."""

    def __init__(self, work: Path, name: str, partition: int, table: Table, number: int) -> None:
        self._pieces = Pieces(work, name, partition, {**table.columns, **PUBLISHED}, number)
        self._table, self._partition = table, partition
        self._waiting: list[tuple[bytes, bytes]] = []

    def append(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Append published (key, value) records."""
        self._waiting += records
        if len(self._waiting) >= PIECE_ROWS:
            self._flush()

    def _flush(self) -> None:
        keys, values = (list(column) for column in zip(*self._waiting, strict=True))
        self._pieces.append([*self._table.of(values), [self._partition] * len(keys), keys, values])
        self._waiting.clear()

    def roll(self) -> int:
        """As of Pieces."""
        if self._waiting:
            self._flush()
        return self._pieces.roll()


class DeadLetters:
    """Dead letters as JSON lines: position, error, remedy, and key and value in base64."""

    def __init__(self, work: Path, partition: int, topics: tuple[str, ...], number: int) -> None:
        self._work, self._partition, self._topics, self._number = work, partition, topics, number
        self._waiting: list[bytes] = []
        work.mkdir(parents=True, exist_ok=True)
        for path in pieces(work, "dead", partition, "jsonl")[number:]:
            path.unlink()
        self._encode = msgspec.json.Encoder().encode_lines

    def append(self, dead: Sequence[tuple[Inbound, BadEvent]]) -> None:
        """Append the dead letters of a step."""
        lines = [
            {
                "topic": self._topics[inbound.source],
                "partition": self._partition,
                "offset": inbound.offset,
                "code": error.code,
                "message": error.message,
                "remedy": error.remedy,
                "key": inbound.key,
                "value": inbound.value,
            }
            for inbound, error in dead
        ]
        if lines:
            with piece(self._work, "dead", self._partition, self._number, "jsonl").open("ab") as file:
                file.write(self._encode(lines))

    def roll(self) -> int:
        """As of Pieces."""
        self._number += piece(self._work, "dead", self._partition, self._number, "jsonl").exists()
        return self._number


class Rolling(Protocol):
    """Something that is written piece by piece."""

    def roll(self) -> int:
        """Finish the piece, if there is one; return the number of the next."""


def batches(work: Path, name: str, partition: int, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """Yield the record batches of a table's pieces, in order; of some columns if they are given."""
    pa = require_pyarrow()
    for path in pieces(work, name, partition):
        with pa.OSFile(str(path)) as source:  # not mapped: what was read of a long piece would count as ours
            names = pa.ipc.open_file(source).schema.names
            chosen = None if columns is None else [names.index(column) for column in columns]
            reader = pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=chosen))
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)


def write_table(
    work: Path,
    name: str,
    partitions: int,
    columns: Mapping[str, str],
    path: Path,
    metadata: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write the pieces of a table as one Parquet file, which appears when it is whole."""
    pa = require_pyarrow()
    plain = schema_of(columns, pa)
    schema = plain.with_metadata(metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    growing = path.with_name(path.name + ".part")
    with pa.parquet.ParquetWriter(growing, schema, compression="zstd") as writer:

        def write(table: Any) -> None:  # noqa: ANN401 - pyarrow ships no types
            # in one chunk: pages would show where a piece ended
            writer.write_table(table.combine_chunks().cast(schema), row_group_size=ROW_GROUP_ROWS)

        waiting, rows = [], 0
        for number in range(partitions):
            for batch in batches(work, name, number):
                waiting.append(batch)
                rows += batch.num_rows
                while rows >= ROW_GROUP_ROWS:
                    table = pa.Table.from_batches(waiting, plain)
                    write(table.slice(0, ROW_GROUP_ROWS))
                    waiting, rows = table.slice(ROW_GROUP_ROWS).to_batches(), rows - ROW_GROUP_ROWS
        if rows:
            write(pa.Table.from_batches(waiting, plain))
    growing.replace(path)


def write_dead_letters(work: Path, partitions: int, path: Path) -> None:
    """Write the dead letters as one file of JSON lines, which appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    growing = path.with_name(path.name + ".part")
    with growing.open("wb") as file:
        for number in range(partitions):
            for one in pieces(work, "dead", number, "jsonl"):
                with one.open("rb") as lines:
                    shutil.copyfileobj(lines, file)
    growing.replace(path)
