"""The tables that a backtest can write of what was published, as columns: price updates, decisions, outcomes of draws.

Each row has the fields of the message as columns, and beside them the exact bytes that a worker publishes (`key`,
`record`), so that a comparison needs no knowledge of the columns. Not here: files (backtest.outputs).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Struct

from contracts.decisions import Applied, DecisionRecord, decode_decision
from contracts.outcomes import OutcomeRecord, decode_outcome
from contracts.prices import decode_price

Columns = Callable[[list[bytes]], list[list[Any]]]
"""Messages -> the columns of a table, in their order."""

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
    "preference": "double", "experiment": "string", "variant": "string", "held_out": "bool",
    "feasible": "prices", "probabilities": "numbers", "u": "double", "explored": "bool", "outcome": "string",
}  # fmt: skip

_OUTCOME_COLUMNS = {
    "draw_id": "string", "user": "string", "item": "string", "market": "string", "currency": "string", "price": "int64",
    "list_price": "int64", "cost": "int64", "policy": "string", "model": "string", "preference": "double",
    "catalogue_version": "int64", "intent": "int64", "prices": "prices", "probabilities": "numbers",
    "features": "numbers", "feature_version": "int64", "learned": "string",
    "cost_source": "string", "propensity": "double", "forced": "bool", "drawn_ms": "int64",
    "version": "int64", "resolved_ms": "int64", "exposure": "string", "exposed": "bool", "learnable": "bool",
    "unlearnable": "list", "experiment": "string", "variant": "string", "held_out": "bool", "churn": "double",
    "churn_days": "int64",
    "decision_id": "string", "purchase_id": "string", "event_time_ms": "int64", "quantity": "int64", "drawn_price": "int64",
}  # fmt: skip
_NESTED_COLUMNS = {
    "bought": {"quantity": "int64", "price": "int64", "event_id": "string", "event_time_ms": "int64"},
    "next": {"draw_id": "string", "item": "string", "price": "int64", "drawn_ms": "int64"},
}


def arrow_type(pa: Any, name: str) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return the Arrow type of a kind of column: an alias of Arrow's, or `list` of text, `prices`, `numbers`, `trail`."""
    step = [("rail", pa.string()), ("low", pa.int64()), ("high", pa.int64()), ("removed", pa.int64())]
    nested = {
        "list": pa.list_(pa.string()),
        "prices": pa.list_(pa.int64()),
        "numbers": pa.list_(pa.float64()),
        "trail": pa.list_(pa.struct(step)),
    }
    return nested.get(name) or pa.type_for_alias(name)


class Table(Struct, frozen=True):
    """A table of published records."""

    columns: Mapping[str, str]
    """Name -> type, as `arrow_type` knows it; behind them `partition`, `key`, `record`."""
    of: Columns


def schema_of(columns: Mapping[str, str], pa: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    """Return the Arrow schema of `columns`."""
    return pa.schema([(name, arrow_type(pa, kind)) for name, kind in columns.items()])


def _price_columns(values: list[bytes]) -> list[list[Any]]:
    rows: list[Struct] = [decode_price(value) for value in values]
    return [list(map(attrgetter(name), rows)) for name in _PRICE_COLUMNS]


def _decision_columns(values: list[bytes]) -> list[list[Any]]:
    """Return the fields of decisions, and of what was applied without one; those that a record lacks are null."""
    rows: list[DecisionRecord] = [decode_decision(value) for value in values]
    columns: list[list[Any]] = [["applied" if isinstance(row, Applied) else "decision" for row in rows]]
    for name in _DECISION_COLUMNS:
        column = [getattr(row, name, None) for row in rows]
        if name == "trail":
            column = [list(map(msgspec.structs.astuple, trail)) if trail else None for trail in column]
        columns.append(column)
    return [*columns, *[[getattr(row.source, name) for row in rows] for name in ("topic", "partition", "offset")]]


def _outcome_columns(values: list[bytes]) -> list[list[Any]]:
    """Return the fields of all kinds of outcome; those that a record lacks are null."""
    rows: list[OutcomeRecord] = [decode_outcome(value) for value in values]
    columns: list[list[Any]] = [[row.__struct_config__.tag for row in rows]]
    columns += [[getattr(row, name, None) for row in rows] for name in _OUTCOME_COLUMNS]
    for name, parts in _NESTED_COLUMNS.items():
        inner = [getattr(row, name, None) for row in rows]
        columns += [[getattr(one, part, None) for one in inner] for part in parts]
    return columns


_KIND = {"kind": "string"}
_SOURCE = {"topic": "string", "source_partition": "int64", "offset": "int64"}
_NESTED = {f"{name}.{part}": kind for name, parts in _NESTED_COLUMNS.items() for part, kind in parts.items()}
PUBLISHED = {"partition": "int32", "key": "binary", "record": "binary"}
"""What every row ends with, and all that a bare row has."""
PRICES = Table(_PRICE_COLUMNS, _price_columns)
"""Price updates, one row each."""
DECISIONS = Table(_KIND | _DECISION_COLUMNS | _SOURCE, _decision_columns)
"""Decisions, and what was applied without one (`kind` says which), one row each."""
OUTCOMES = Table(_KIND | _OUTCOME_COLUMNS | _NESTED, _outcome_columns)
"""Outcomes of draws, and purchases that reward none (`kind` says which), one row each. What is nested has a column for each of
its fields: `bought.quantity`."""
BARE = Table({}, lambda _values: [])
"""Key and bytes alone."""
