"""Target policies as tables, a probability per action and position, and the feedback of a log on one of them.

Expected rewards for DM and DR are a table, too: the share of reward of an action at a position, drawn towards the position's
as if by 100 draws, and cross-fitted over three folds. Not here: policies that look at a user (backtest.logged_draws).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from backtest.bandit_files import NAMES, BanditLog, Columns, name_of, read_bandit_log, read_table
from backtest.feedback import Feedback, Floats, Ints
from contracts.errors import BadInput

UNIFORM = "uniform"
COLUMN = "column:"
"""Before the name of a column of the log: the target's probability of the logged action."""
FOLDS = 3
STRENGTH = 100.0
"""Draws at a position's mean reward that every action's are joined with."""
_PROBABILITY = ("probability", "prob", "p", "pi", "target", *NAMES["propensity"])
_SUM_TOLERANCE = 1e-3

Table = dict[str | None, dict[str, float]]
"""Position (None: any) -> action -> probability."""


def feedback_from(
    path: Path, columns: Columns, target: str, adaptive: bool | None = None
) -> tuple[BanditLog, Feedback]:
    """Return the log in a file and its feedback on a target.

    Args:
        path: of the log.
        columns: as for read_bandit_log.
        target: UNIFORM, COLUMN with a name, or a file as for read_target.
        adaptive: whether the logged policy learned from these rewards; None: if propensities move.

    Raises:
        BadInput: log or target cannot be used; the sentence says why.
    """
    if target.startswith(COLUMN):
        log = read_bandit_log(path, columns, target.removeprefix(COLUMN))
        return log, feedback_on_column(log, adaptive)
    if target.endswith(".toml"):
        raise BadInput(
            f"{target} is a policy, and what a policy does hangs on the state of users: give the directory of a log of ours; "
            "for a table of draws write the target as a table, or as a column of it"
        )
    table = UNIFORM if target == UNIFORM else read_target(Path(target))
    log = read_bandit_log(path, columns)
    return log, feedback_on_table(log, table, adaptive)


def read_target(path: Path) -> Table:
    """Return the target in a CSV, Parquet or JSON file.

    Raises:
        BadInput: it cannot be read, or a position's probabilities are not such.
    """
    table = _from_json(path) if path.suffix == ".json" else _from_rows(path, _rows(path))
    for position, row in table.items():
        at = "" if position is None else f" at position {position}"
        wrong = [action for action, chance in row.items() if not 0.0 <= chance <= 1.0 + 1e-9]
        if wrong:
            raise BadInput(
                f"{path}: the probability of action {wrong[0]}{at} is {row[wrong[0]]:g}, outside of [0, 1]: correct it"
            )
        if abs(sum(row.values()) - 1.0) > _SUM_TOLERANCE:
            raise BadInput(f"{path}: probabilities{at} sum to {sum(row.values()):.4f}, not to 1: correct the table")
    return table


def feedback_on_table(log: BanditLog, target: Table | str, adaptive: bool | None = None) -> Feedback:
    """Return the feedback of a log on a target.

    Args:
        log: the draws.
        target: a table, or UNIFORM: every action of the log alike.
        adaptive: whether the logged policy learned from these rewards; None: if propensities move.

    Raises:
        BadInput: the table lacks a position of the log.
    """
    chances = _matrix(log, target)
    seen = np.zeros(chances.shape, np.bool_)
    seen[log.position, log.action] = True
    unsupported = np.where(seen, 0.0, chances).sum(axis=1)
    logged, expected = _expected(log, chances)
    return Feedback(
        reward=log.reward,
        propensity=log.propensity,
        target=chances[log.position, log.action],
        users=log.users,
        forced=log.forced,
        times_ms=log.times_ms,
        unsupported=unsupported[log.position],
        expected_logged=logged,
        expected_target=expected,
        adaptive=log.adaptive if adaptive is None else adaptive,
        unknown=log.unknown,
        duplicated=log.duplicated,
    )


def feedback_on_column(log: BanditLog, adaptive: bool | None = None) -> Feedback:
    """Return the feedback of a log that has the target's probabilities in `extra`; it has no expected rewards.

    Raises:
        BadInput: one of them is none.
    """
    assert log.extra is not None
    wrong = ~((log.extra >= 0.0) & (log.extra <= 1.0 + 1e-9))
    if wrong.any():
        value = log.extra[wrong][0]
        raise BadInput(
            f"A target's probability of a logged action is {value:g}, outside of [0, 1]: correct that column"
        )
    return Feedback(
        reward=log.reward,
        propensity=log.propensity,
        target=np.minimum(log.extra, 1.0),
        users=log.users,
        forced=log.forced,
        times_ms=log.times_ms,
        unsupported=np.zeros(len(log.reward)),
        adaptive=log.adaptive if adaptive is None else adaptive,
        unknown=log.unknown,
        duplicated=log.duplicated,
    )


def _matrix(log: BanditLog, target: Table | str) -> Floats:
    """Return the target's probabilities, (positions, actions): those of the log, then what only the target knows."""
    count = len(log.actions)
    if isinstance(target, str):
        return np.full((len(log.positions), count), 1.0 / max(count, 1))
    codes = {action: code for code, action in enumerate(log.actions)}
    for row in target.values():
        for action in row:
            codes.setdefault(action, len(codes))
    chances = np.zeros((len(log.positions), len(codes)))
    for number, position in enumerate(log.positions):
        found = target.get(position, target.get(None))
        if found is None:
            raise BadInput(f"The target has no probabilities for position {position!r}, which the log has: add them")
        for action, chance in found.items():
            chances[number, codes[action]] = chance
    return chances


def _expected(log: BanditLog, chances: Floats) -> tuple[Floats, Floats]:
    """Return the expected reward of the logged action and of the target, each (n,), from the other folds.

    q(action, position) = (sum of rewards + STRENGTH * mean reward of the position) / (draws + STRENGTH); fold = row mod FOLDS.
    """
    n, shape = len(log.reward), chances.shape
    logged, expected = np.zeros(n), np.zeros(n)
    fold = np.arange(n) % FOLDS
    for number in range(FOLDS):
        q = _table_of_means(log, (fold != number) & ~log.forced, shape)
        mine = fold == number
        logged[mine] = q[log.position[mine], log.action[mine]]
        expected[mine] = (chances * q).sum(axis=1)[log.position[mine]]
    return logged, expected


def _table_of_means(log: BanditLog, rows: Any, shape: tuple[int, ...]) -> Floats:  # noqa: ANN401 - an index of any kind
    cell = log.position[rows] * shape[1] + log.action[rows]
    draws = _sums(cell, shape)
    rewards = _sums(cell, shape, log.reward[rows])
    overall = float(rewards.sum() / max(draws.sum(), 1.0))
    per_position = draws.sum(axis=1)
    mean = np.where(per_position > 0.0, rewards.sum(axis=1) / np.maximum(per_position, 1.0), overall)
    means: Floats = (rewards + STRENGTH * mean[:, None]) / (draws + STRENGTH)
    return means


def _sums(cell: Ints, shape: tuple[int, ...], values: Floats | None = None) -> Floats:
    sums: Floats = np.bincount(cell, values, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
    return sums


def _rows(path: Path) -> list[tuple[str | None, str, float]]:
    """Return (position, action, probability) of every row of a CSV or Parquet file."""
    table = read_table(path)
    names = table.column_names
    action = next((name for name in NAMES["action"] if name in names), None)
    chance = next((name for name in _PROBABILITY if name in names), None)
    if action is None or chance is None:
        raise BadInput(
            f"{path} is no target: it needs the columns action and probability, and position if there are several; its "
            f"columns are {', '.join(names)}"
        )
    position = next((name for name in NAMES["position"] if name in names), None)
    positions = table.column(position).to_pylist() if position else [None] * table.num_rows
    rows = zip(positions, table.column(action).to_pylist(), table.column(chance).to_pylist(), strict=True)
    return [(None if p is None else name_of(p), name_of(a), _chance(path, c)) for p, a, c in rows]


def _chance(path: Path, value: object) -> float:
    if isinstance(value, int | float):
        return float(value)
    raise BadInput(f"{path}: the probability {value!r} is no number: correct it")


def _from_rows(path: Path, rows: list[tuple[str | None, str, float]]) -> Table:
    table: Table = {}
    for position, action, chance in rows:
        row = table.setdefault(position, {})
        if action in row:
            at = "" if position is None else f" at position {position}"
            raise BadInput(f"{path} names action {action}{at} twice: keep one of the rows")
        row[action] = chance
    if not table:
        raise BadInput(f"{path} has no rows: write one per action")
    return table


class _Row(msgspec.Struct):
    action: str | int
    probability: float
    position: str | int | None = None


def _from_json(path: Path) -> Table:
    """Return a target from {action: probability}, {position: {action: probability}}, or a list of rows."""
    if not path.is_file():
        raise BadInput(f"{path} is missing: name a target")
    text = path.read_bytes()
    for kind in (dict[str, float], dict[str, dict[str, float]], list[_Row]):
        try:
            found: Any = msgspec.json.decode(text, type=kind)
        except msgspec.ValidationError:
            continue
        except msgspec.DecodeError as error:
            raise BadInput(f"{path} is no JSON ({error}): correct it") from None
        if isinstance(found, list):
            rows = [
                (None if one.position is None else str(one.position), str(one.action), one.probability) for one in found
            ]
            return _from_rows(path, rows)
        if found:
            return found if isinstance(next(iter(found.values())), dict) else {None: found}
    raise BadInput(f"{path} is no target: write {{action: probability}}, or {{position: {{action: probability}}}}")
