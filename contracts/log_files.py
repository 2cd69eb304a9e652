"""Tables of rows on disk: Parquet or JSON lines, streamed in lists of bounded length. Rows are flat msgspec structs.

Knows nothing of what a row means. pyarrow is imported when a Parquet file is read or written, never before: JSON lines
need no extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, Literal, Protocol, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct

from contracts.errors import UNREADABLE, BadInput

Format = Literal["parquet", "jsonl"]
ROWS_READ_MAX = 4_096
"""Rows per list that a reader yields."""
ROW_GROUP_ROWS = 65_536

Where = tuple[str, frozenset[str] | frozenset[int]]
"""A field, and the values that it may have."""

_Row = TypeVar("_Row", bound=Struct)
_ARROW_TYPES = {str: "string", int: "int64", bool: "bool", bytes: "binary", float: "double"}


def require_pyarrow() -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return the module pyarrow, or raise BadInput that says how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput("Logs in Parquet and every backtest need pyarrow: pip install 'pricetide[log]'") from None
    return pyarrow


def read_rows(path: Path, row_type: type[_Row], where: Where | None = None) -> Iterator[list[_Row]]:
    """Stream the rows of a file in lists of at most ROWS_READ_MAX.

    Args:
        path: a Parquet file, or one of JSON lines.
        row_type: the struct of a row; a column that the file lacks has its field's default, others are ignored.
        where: only rows whose field has one of these values.

    Raises:
        BadInput: the file cannot be read as rows of this type.
    """
    return (_read_parquet if is_parquet(path) else _read_jsonl)(path, row_type, where)


def is_parquet(path: Path) -> bool:
    """Return whether the file begins as Parquet does, whatever its name; an empty or damaged `.parquet` is one, too."""
    if path.suffix == ".parquet":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _read_jsonl(path: Path, row_type: type[_Row], where: Where | None) -> Iterator[list[_Row]]:
    decode = msgspec.json.Decoder(row_type).decode
    name, values = where or ("", frozenset())
    wanted = msgspec.json.Decoder(msgspec.defstruct("Wanted", [(name or "nothing", Any, None)])).decode
    rows: list[_Row] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                if name and getattr(wanted(line), name) not in values:
                    continue
                rows.append(decode(line))
            except UNREADABLE as error:
                raise BadInput(f"{path}, line {number}: {error}. Correct the line, or write the log anew") from None
            if len(rows) == ROWS_READ_MAX:
                yield rows
                rows = []
    if rows:
        yield rows


def _read_parquet(path: Path, row_type: type[_Row], where: Where | None) -> Iterator[list[_Row]]:
    pa = require_pyarrow()
    from pyarrow import compute

    fields = msgspec.structs.fields(row_type)
    try:
        with pa.parquet.ParquetFile(path) as file:
            present = [field.name for field in fields if field.name in file.schema_arrow.names]
            for field in fields:
                if field.default is NODEFAULT and field.name not in present:
                    raise BadInput(f"{path} has no column {field.name}: it is not a table of a log")
            for batch in file.iter_batches(batch_size=ROWS_READ_MAX, columns=present):
                chosen = batch
                if where is not None:
                    chosen = batch.filter(compute.is_in(batch.column(where[0]), pa.array(sorted(where[1]))))
                if chosen.num_rows:
                    yield _rows_of(chosen, row_type)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path} is damaged or no Parquet file ({error}): copy the log again, or write it anew"
        ) from None


def _rows_of(batch: Any, row_type: type[_Row]) -> list[_Row]:  # noqa: ANN401 - a pyarrow.RecordBatch
    """Return the rows of a record batch; columns that are null throughout cost nothing."""
    columns: list[Any] = []
    for field in msgspec.structs.fields(row_type):
        column = batch.column(field.name) if field.name in batch.schema.names else None
        if column is not None and column.null_count < len(column):
            columns.append(column.to_pylist())
        else:
            columns.append(repeat(None if field.default is NODEFAULT else field.default, batch.num_rows))
    return list(map(row_type, *columns))


class RowWriter(Protocol):
    """Appends rows to one file."""

    rows: int

    def append(self, rows: Sequence[Struct]) -> None:
        """Append `rows`, in order."""

    def close(self) -> None:
        """Finish the file."""


def write_rows(path: Path, row_type: type[Struct], without: frozenset[str] = frozenset()) -> RowWriter:
    """Return a writer of rows to `path`; its suffix is the format. `without` names fields that no row sets."""
    return ParquetRows(path, row_type, without) if path.suffix == ".parquet" else JsonRows(path)


class JsonRows:
    """Rows as JSON lines; fields at their default are left out, bytes are base64."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._file = path.open("wb")
        self._encode = msgspec.json.Encoder().encode_lines

    def append(self, rows: Sequence[Struct]) -> None:
        """Append `rows`, in order."""
        self._file.write(self._encode(rows))
        self.rows += len(rows)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class ParquetRows:
    """Rows as Parquet, zstd, in row groups of ROW_GROUP_ROWS; what waits for its row group is held in memory."""

    def __init__(self, path: Path, row_type: type[Struct], without: frozenset[str] = frozenset()) -> None:
        self.rows = 0
        self._pa = require_pyarrow()
        names = [name for name in row_type.__struct_fields__ if name not in without]
        hints = get_type_hints(row_type)
        self._columns = [attrgetter(name) for name in names]
        self._schema = self._pa.schema([(name, self._pa.type_for_alias(_arrow_type(hints[name]))) for name in names])
        self._writer = self._pa.parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[Struct] = []

    def append(self, rows: Sequence[Struct]) -> None:
        """Append `rows`, in order."""
        self._waiting.extend(rows)
        self.rows += len(rows)
        while len(self._waiting) >= ROW_GROUP_ROWS:
            self._write(self._waiting[:ROW_GROUP_ROWS])
            del self._waiting[:ROW_GROUP_ROWS]

    def _write(self, rows: list[Struct]) -> None:
        arrays = [
            self._pa.array(list(map(column, rows)), type=field.type)
            for column, field in zip(self._columns, self._schema, strict=True)
        ]
        self._writer.write_batch(self._pa.record_batch(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish the file."""
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []
        self._writer.close()


def _arrow_type(hint: Any) -> str:  # noqa: ANN401 - a type expression
    """Return the Arrow name of a flat field's type, `X` or `X | None`."""
    inner = [part for part in get_args(hint) if part is not NoneType]
    return _ARROW_TYPES[inner[0] if inner else hint]
