"""What a backtest writes: Parquet files of price updates, of decisions and of outcomes, and dead letters as JSON lines.

Each row has the fields of the message as columns, and beside them the exact bytes that a worker publishes (`key`,
`record`), so that a comparison needs no knowledge of the columns. Rows of a partition stand in the order of publication.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from contracts.decisions import Applied, DecisionRecord, decode_decision
from contracts.errors import BadEvent
from contracts.intake import Inbound
from contracts.log_files import require_pyarrow
from contracts.outcomes import OutcomeRecord, decode_outcome
from contracts.prices import decode_price

ROW_GROUP_ROWS = 16_384

Record = tuple[int, bytes, bytes]
"""Partition, key, value."""

_PRICE_COLUMNS = {
    "decision_id": "string", "user": "string", "item": "string", "market": "string", "currency": "string",
    "price": "int64", "list_price": "int64", "valid_from_ms": "int64", "valid_until_ms": "int64", "version": "int64",
    "reasons": "list", "status": "string", "draw_id": "string",
}  # fmt: skip
_DECISION_COLUMNS = {
    "decision_id": "string", "event_id": "string", "user": "string", "item": "string", "market": "string",
    "currency": "string", "price": "int64", "list_price": "int64", "multiplier": "int64", "valid_from_ms": "int64",
    "valid_until_ms": "int64", "version": "int64", "reasons": "list", "status": "string", "draw_id": "string",
    "lattice": "prices", "trail": "trail", "binding_rule": "string", "forced": "bool", "propensity": "double",
    "intent": "int64", "policy": "string", "policies_seen": "int64", "catalogue_version": "int64",
    "catalogue_seen": "int64", "model": "string", "sequence": "int64", "event_time_ms": "int64", "shown": "string",
    "preference": "double", "experiment": "string", "variant": "string", "held_out": "bool", "outcome": "string",
}  # fmt: skip

_OUTCOME_COLUMNS = {
    "draw_id": "string", "user": "string", "item": "string", "market": "string", "currency": "string", "price": "int64",
    "list_price": "int64", "cost": "int64", "policy": "string", "model": "string", "preference": "double",
    "catalogue_version": "int64", "intent": "int64", "prices": "prices", "probabilities": "numbers",
    "features": "numbers", "feature_version": "int64", "learned": "string",
    "cost_source": "string", "propensity": "double", "forced": "bool", "drawn_ms": "int64",
    "version": "int64", "resolved_ms": "int64", "exposure": "string", "exposed": "bool", "learnable": "bool",
    "unlearnable": "list", "experiment": "string", "variant": "string", "held_out": "bool",
    "decision_id": "string", "purchase_id": "string", "event_time_ms": "int64", "quantity": "int64", "drawn_price": "int64",
}  # fmt: skip
_NESTED_COLUMNS = {
    "bought": {"quantity": "int64", "price": "int64", "event_id": "string", "event_time_ms": "int64"},
    "next": {"draw_id": "string", "item": "string", "price": "int64", "drawn_ms": "int64"},
}


def _arrow_type(pa: Any, name: str) -> Any:  # noqa: ANN401 - pyarrow ships no types
    step = [("rail", pa.string()), ("low", pa.int64()), ("high", pa.int64()), ("removed", pa.int64())]
    nested = {
        "list": pa.list_(pa.string()),
        "prices": pa.list_(pa.int64()),
        "numbers": pa.list_(pa.float64()),
        "trail": pa.list_(pa.struct(step)),
    }
    return nested.get(name) or pa.type_for_alias(name)


class _Table(ABC):
    """A Parquet file of published records; what waits for its row group is held in memory."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        self._pa = pa = require_pyarrow()
        self._waiting: list[Record] = []
        fields = [(name, _arrow_type(pa, alias)) for name, alias in columns.items()]
        fields += [("partition", pa.int32()), ("key", pa.binary()), ("record", pa.binary())]
        self._schema = pa.schema(fields)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pa.parquet.ParquetWriter(path, self._schema, compression="zstd")

    def append(self, partition: int, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Append published (key, value) records of a partition."""
        self._waiting += [(partition, key, value) for key, value in records]
        if len(self._waiting) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = self.columns([value for _, _, value in self._waiting])
        columns += [list(column) for column in zip(*self._waiting, strict=True)]
        arrays = [self._pa.array(column, type=field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(self._pa.record_batch(arrays, schema=self._schema))
        self._waiting.clear()

    @abstractmethod
    def columns(self, values: list[bytes]) -> list[list[Any]]:
        """Return the columns of the messages, in the order of the schema."""

    def close(self) -> None:
        """Finish the file."""
        if self._waiting:
            self._flush()
        self._writer.close()


class PriceTable(_Table):
    """Price updates, one row each."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _PRICE_COLUMNS)

    def columns(self, values: list[bytes]) -> list[list[Any]]:
        """Return the fields of the price updates as columns."""
        rows: list[Struct] = [decode_price(value) for value in values]
        return [list(map(attrgetter(name), rows)) for name in _PRICE_COLUMNS]


class DecisionTable(_Table):
    """Decisions, and what was applied without one (`kind` says which), one row each."""

    def __init__(self, path: Path) -> None:
        names = {"topic": "string", "source_partition": "int64", "offset": "int64"}
        super().__init__(path, {"kind": "string"} | _DECISION_COLUMNS | names)

    def columns(self, values: list[bytes]) -> list[list[Any]]:
        """Return the fields of both kinds of record as columns; those that a record lacks are null."""
        rows: list[DecisionRecord] = [decode_decision(value) for value in values]
        columns: list[list[Any]] = [["applied" if isinstance(row, Applied) else "decision" for row in rows]]
        for name in _DECISION_COLUMNS:
            column = [getattr(row, name, None) for row in rows]
            if name == "trail":
                column = [list(map(msgspec.structs.astuple, trail)) if trail else None for trail in column]
            columns.append(column)
        return [*columns, *[[getattr(row.source, name) for row in rows] for name in ("topic", "partition", "offset")]]


class OutcomeTable(_Table):
    """Outcomes of draws, and purchases that reward none (`kind` says which), one row each. What is nested has a column for
    each of its fields: `bought.quantity`.
    """

    def __init__(self, path: Path) -> None:
        nested = {f"{name}.{part}": kind for name, parts in _NESTED_COLUMNS.items() for part, kind in parts.items()}
        super().__init__(path, {"kind": "string"} | _OUTCOME_COLUMNS | nested)

    def columns(self, values: list[bytes]) -> list[list[Any]]:
        """Return the fields of all kinds of record as columns; those that a record lacks are null."""
        rows: list[OutcomeRecord] = [decode_outcome(value) for value in values]
        columns: list[list[Any]] = [[row.__struct_config__.tag for row in rows]]
        columns += [[getattr(row, name, None) for row in rows] for name in _OUTCOME_COLUMNS]
        for name, parts in _NESTED_COLUMNS.items():
            inner = [getattr(row, name, None) for row in rows]
            columns += [[getattr(one, part, None) for one in inner] for part in parts]
        return columns


class DeadLetterFile:
    """Dead letters as JSON lines: position, error, remedy, and key and value in base64."""

    def __init__(self, path: Path, topics: tuple[str, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._topics = topics
        self._encode = msgspec.json.Encoder().encode_lines

    def append(self, partition: int, dead: Sequence[tuple[Inbound, BadEvent]]) -> None:
        """Append the dead letters of a step."""
        self._file.write(
            self._encode(
                [
                    {
                        "topic": self._topics[inbound.source],
                        "partition": partition,
                        "offset": inbound.offset,
                        "code": error.code,
                        "message": error.message,
                        "remedy": error.remedy,
                        "key": inbound.key,
                        "value": inbound.value,
                    }
                    for inbound, error in dead
                ]
            )
        )

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
