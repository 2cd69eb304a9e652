"""Logged bandit feedback as a table: a CSV or Parquet file with a row per draw, such as those of the Open Bandit data set.

Columns are found by the names that such files use, or named by the caller. Rows come back in the order of their times, those of
one time in the order of the file. A row without a propensity and a row that repeats a decision are counted and left out; what
cannot be true is refused with its row. Not here: targets and what they expect (backtest.target_tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.feedback import Bools, Floats, Ints
from contracts.errors import BadInput
from contracts.log_files import require_pyarrow

NAMES = {
    "time": ("timestamp", "time", "event_time", "event_time_ms", "drawn_ms", "datetime", "ts"),
    "user": ("user", "user_id", "customer", "customer_id", "visitor", "visitor_id"),
    "action": ("action", "item_id", "item", "arm", "price"),
    "position": ("position", "slot", "rank"),
    "reward": ("reward", "click", "clicked", "outcome", "conversion", "purchase"),
    "propensity": ("propensity", "propensity_score", "pscore", "action_prob", "probability", "prob"),
    "id": ("decision_id", "draw_id", "impression_id"),
    "forced": ("forced",),
}
"""What a column may be called, the likeliest first."""
REQUIRED = ("action", "reward")
ROWS_ARE_DECISIONS = "rows"
"""As the name of the id column: rows are never taken for repetitions."""
_COLLISIONS_MAX = 1e-3
"""Share of different rows that may have one time, user and position before times are too coarse to tell decisions apart."""
_NO_POSITION = "all"


class Columns(NamedTuple):
    """Names of columns in the file; None: look for one of NAMES."""

    time: str | None = None
    user: str | None = None
    action: str | None = None
    position: str | None = None
    reward: str | None = None
    propensity: str | None = None
    id: str | None = None
    forced: str | None = None


@dataclass(frozen=True)
class BanditLog:
    """n draws in the order of decisions."""

    actions: tuple[str, ...]
    """Names of the actions that were drawn."""
    positions: tuple[str, ...]
    """Names of the positions; one, where the file has none."""
    action: Ints
    """Code of the logged action, (n,)."""
    position: Ints
    """Code of the draw's position, (n,)."""
    reward: Floats
    propensity: Floats
    users: Ints
    times_ms: Ints
    """Where the file has no time: the number of the row."""
    forced: Bools
    extra: Floats | None
    """The column that was asked for beside these, (n,)."""
    unknown: int
    """Rows without a propensity."""
    duplicated: int
    """Rows that repeat a decision."""
    columns: dict[str, str]
    """The column of the file that was read for each role of NAMES."""

    @property
    def adaptive(self) -> bool:
        """Whether an action was ever logged with two propensities at one position: then the logged policy may have learned."""
        cells = self.position * len(self.actions) + self.action
        order = np.lexsort((self.propensity, cells))
        same = np.diff(cells[order]) == 0
        return bool((same & (np.diff(self.propensity[order]) > 1e-9)).any())


def read_bandit_log(path: Path, columns: Columns | None = None, extra: str | None = None) -> BanditLog:
    """Return the draws of a file.

    Args:
        path: .parquet, else CSV (.gz allowed).
        columns: names of columns that are not called as in NAMES.
        extra: a column of numbers to return beside them.

    Raises:
        BadInput: the file cannot be read, is empty, lacks a column, or holds what cannot be true; the sentence says where.
    """
    table = read_table(path)
    n, named = table.num_rows, _resolved(path, table.column_names, columns or Columns())
    if not n:
        raise BadInput(f"{path} has no rows: name a log with draws")
    reward, propensity = _rewards(path, table, named), _propensities(path, table, named)
    times, order = _times(path, table, named)
    fresh = _fresh(path, table, named)
    kept = order[(fresh & ~np.isnan(propensity))[order]]
    actions, action = _coded(path, table, named["action"])
    positions, position = _coded(path, table, named["position"]) if "position" in named else _one_position(n)
    users = _coded(path, table, named["user"])[1] if "user" in named else np.arange(n)
    forced = _numbers(path, table, named["forced"]) > 0.0 if "forced" in named else np.zeros(n, np.bool_)
    return BanditLog(
        actions=actions,
        positions=positions,
        action=action[kept],
        position=position[kept],
        reward=reward[kept],
        propensity=propensity[kept],
        users=users[kept],
        times_ms=times[kept],
        forced=forced[kept],
        extra=None if extra is None else _numbers(path, table, extra)[kept],
        unknown=int((fresh & np.isnan(propensity)).sum()),
        duplicated=int((~fresh).sum()),
        columns=named,
    )


def read_table(path: Path) -> Any:  # noqa: ANN401 - a pyarrow.Table
    """Return the table in a CSV or Parquet file.

    Raises:
        BadInput: it cannot be read.
    """
    pa = require_pyarrow()
    import pyarrow.csv

    if not path.is_file():
        raise BadInput(f"{path} is missing: name a CSV or Parquet file")
    try:
        return pa.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} is damaged or no table ({reason}): copy or write the file again") from None


def _resolved(path: Path, present: Sequence[str], columns: Columns) -> dict[str, str]:
    """Return the name of the column of each role that the file has."""
    found = {}
    for role, candidates in NAMES.items():
        given: str | None = getattr(columns, role)
        if given is not None and given not in present and (role, given) != ("id", ROWS_ARE_DECISIONS):
            raise BadInput(f"{path} has no column {given!r} (--{role}); its columns are {', '.join(present)}")
        name = given or next((name for name in candidates if name in present), None)
        if name is not None and present.count(name) > 1:
            count = present.count(name)
            raise BadInput(f"{path} has {count} columns {name!r}: rename all but the one of the {role}")
        if name is not None:
            found[role] = name
        elif role in REQUIRED:
            raise BadInput(
                f"{path} has no column of the {role} that is called one of {', '.join(candidates)}: name it with --{role}; "
                f"its columns are {', '.join(present)}"
            )
    return found


def _rewards(path: Path, table: Any, named: dict[str, str]) -> Floats:  # noqa: ANN401 - a pyarrow.Table
    reward = _numbers(path, table, named["reward"])
    _refuse(path, named["reward"], ~np.isfinite(reward), reward, "no finite number")
    return reward


def _propensities(path: Path, table: Any, named: dict[str, str]) -> Floats:  # noqa: ANN401 - a pyarrow.Table
    """Return the propensities, (n,), NaN where there is none: in every row, if the file has no such column."""
    if "propensity" not in named:
        return np.full(table.num_rows, np.nan)
    propensity = _numbers(path, table, named["propensity"])
    outside = (propensity <= 0.0) | (propensity > 1.0 + 1e-9)
    _refuse(path, named["propensity"], outside, propensity, "outside of (0, 1]")
    return np.minimum(propensity, 1.0)


def _numbers(path: Path, table: Any, name: str) -> Floats:  # noqa: ANN401 - a pyarrow.Table
    """Return a column as numbers, NaN where it has none."""
    pa = require_pyarrow()
    if name not in table.column_names:
        raise BadInput(f"{path} has no column {name!r}; its columns are {', '.join(table.column_names)}")
    kind = table.column(name).type
    try:
        column = table.column(name)
        column = column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column
        numbers: Floats = column.cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        raise BadInput(f"{path}: column {name!r} holds {kind}, no numbers: correct it") from None
    return numbers.astype(np.float64)


def _refuse(path: Path, name: str, wrong: Bools, values: Floats, says: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        more = f" ({int(wrong.sum()):,} rows are so)" if wrong.sum() > 1 else ""
        raise BadInput(f"{path}: {name} of row {row + 1} is {values[row]:g}, {says}{more}: correct the log")


def _coded(path: Path, table: Any, name: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:  # noqa: ANN401 - a pyarrow.Table
    """Return (names, code of each row) of a column of names or whole numbers."""
    pa = require_pyarrow()
    import pyarrow.compute

    column = table.column(name)
    try:
        column = column.cast(pa.string()) if pa.types.is_string_view(column.type) else column
        missing = pyarrow.compute.is_null(column, nan_is_null=True).to_numpy().sum()
        encoded = column.combine_chunks().dictionary_encode()
    except pa.ArrowException:
        raise BadInput(f"{path}: column {name!r} holds {column.type}, no names: write text or whole numbers") from None
    if missing:
        raise BadInput(f"{path}: {missing:,} rows have no {name!r}: correct the log")
    return tuple(map(name_of, encoded.dictionary.to_pylist())), encoded.indices.to_numpy().astype(np.int64)


def _one_position(rows: int) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    return (_NO_POSITION,), np.zeros(rows, np.int64)


def name_of(value: object) -> str:
    """Return the name of an action or a position: whole numbers have none behind the point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _times(path: Path, table: Any, named: dict[str, str]) -> tuple[Ints, Ints]:  # noqa: ANN401 - a pyarrow.Table
    """Return (times, order of the rows), each (n,): times in ms, or numbers as they are; without a column row numbers."""
    pa = require_pyarrow()
    if "time" not in named:
        return np.arange(table.num_rows), np.arange(table.num_rows)
    column, name = table.column(named["time"]), named["time"]
    if column.null_count:
        raise BadInput(f"{path}: {column.null_count:,} rows have no {name!r}: correct the log")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = _numbers(path, table, name)
        _refuse(path, name, ~(np.abs(numbers) < 2.0**62), numbers, "no time")
        order = np.argsort(numbers, kind="stable")
        return np.floor(numbers).astype(np.int64), order
    zone = getattr(column.type, "tz", None)
    try:
        stamps = column.cast(pa.timestamp("ns", tz=zone)).combine_chunks().cast(pa.int64()).to_numpy()
    except pa.ArrowException:
        raise BadInput(
            f"{path}: column {name!r} holds {column.type}, no times: write them as 2019-11-24 00:01:03, or as numbers"
        ) from None
    return stamps // 1_000_000, np.argsort(stamps, kind="stable")


def _fresh(path: Path, table: Any, named: dict[str, str]) -> Bools:  # noqa: ANN401 - a pyarrow.Table
    """Return, (n,), which rows are the first of their decision.

    A decision is told by its id; without such a column by all that the file says of it but its reward, which two rows of one
    decision may tell differently, if times, with users and positions, tell decisions apart: coarse ones give equal rows by
    chance, and then rows of one time differ in their actions, too.
    """
    n = table.num_rows
    by = named.get("id")
    if by == ROWS_ARE_DECISIONS or (by is None and "time" not in named):
        return np.ones(n, np.bool_)
    fresh = np.zeros(n, np.bool_)
    if by is not None:
        fresh[np.unique(_coded(path, table, by)[1], return_index=True)[1]] = True
        return fresh
    moment = [named[role] for role in ("time", "user", "position") if role in named]
    told = [name for name in table.column_names if name != named["reward"] and _tells(table.column(name))]
    firsts = _firsts(table, list(dict.fromkeys([*moment, *told])))
    moments = _firsts(table.select(moment).take(firsts), moment)
    if len(firsts) - len(moments) > _COLLISIONS_MAX * len(firsts):
        return np.ones(n, np.bool_)
    fresh[firsts] = True
    return fresh


def _firsts(table: Any, keys: list[str]) -> Ints:  # noqa: ANN401 - a pyarrow.Table
    """Return the number of the first row of each combination of `keys`."""
    pa = require_pyarrow()
    numbered = table.select(keys).append_column("the row", pa.array(np.arange(table.num_rows)))
    rows: Ints = numbered.group_by(keys).aggregate([("the row", "min")]).column("the row_min").to_numpy()
    return rows


def _tells(column: Any) -> bool:  # noqa: ANN401 - a pyarrow.ChunkedArray
    """Return whether a column tells a decision from another: whole numbers that only rise from row to row number the rows."""
    pa = require_pyarrow()
    if pa.types.is_nested(column.type):
        return False
    if not pa.types.is_integer(column.type) or column.null_count:
        return True
    return len(column) < 2 or bool((np.diff(column.to_numpy()) <= 0).any())
