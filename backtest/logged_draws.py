"""The logged draws of a log, one row each, with what other policies would have drawn there: what off-policy evaluation reads.

A row is a draw whose outcome the log knows, at the state and the feasible prices that its policy had. Beside the logged
probabilities stand those of every *target* policy: what it would draw from at the same event, for the same user, state and
last price, inside its own rails. A target that does not share the log's rails may want prices that the log could not
have offered: that mass is in `outside`, and no reward is ever made up for it.

Everything is recomputed by a replay of the log and held against what it recorded: a draw that is recorded and not
recomputed, or the other way round, or with another price, propensity or probability, refuses the whole log. Not here:
estimates and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backtest.draw_rows import DrawState
from backtest.outputs import write_table
from contracts.errors import BadInput
from contracts.log import Log
from contracts.log_files import require_pyarrow
from contracts.policies import Policy

Reward = Literal["margin", "revenue", "units", "purchase"]
"""Of a draw: (price - cost) * pieces and price * pieces in minor units, pieces, or 1 where anything was bought at its price."""

DRAW_COLUMNS = {
    "draw_id": "string", "user": "string", "item": "string", "market": "string", "partition": "int64", "version": "int64",
    "drawn_ms": "int64", "resolved_ms": "int64", "policy": "string", "learned": "string", "experiment": "string",
    "variant": "string", "held_out": "bool", "list_price": "int64", "cost": "int64", "price": "int64", "propensity": "double",
    "forced": "bool", "exposed": "bool", "learnable": "bool", "unlearnable": "list", "quantity": "int64",
    "intent": "int64", "sequence": "int64", "preference": "double", "churn": "double", "churn_days": "int64",
    "prices": "prices", "probabilities": "numbers",
}  # fmt: skip
"""Columns of every table of draws. Money in minor units, times in ms of event time; fields as in contracts.outcomes, but:
`partition` of the log; `sequence`: the user's count of events at the draw; `quantity`: pieces bought at the draw's price, 0
for none; `learned`: digest of what a policy that learns knew, null for others; `probabilities`: of each of `prices`, and
`propensity` is the one of `price`, also in an experiment with a holdout (marginal over the lot). Null `cost`: the catalogue
has none."""
TARGET_COLUMNS = ("target", "targets", "outside", "learned")
"""Behind them, per target policy NAME: `target.NAME`, its probability of the logged price; `targets.NAME`, of each of
`prices`; `outside.NAME`, of prices that are not among them: targets.NAME and outside.NAME sum to 1.
`learned.NAME` is the version of what a target that learns knew there, null for nothing."""

_META = b"pricetide.draws"
Floats = NDArray[np.float64]


class Replayed(Struct, frozen=True):
    """Recorded outcomes of a log, held against those of its replay. Where one contradicts it the log is refused."""

    met: int
    """Outcomes that were compared."""
    equal: int
    """Of them, those that are the same bytes; others differ in what a model foretold, in its last digits, on another machine."""

    @property
    def says(self) -> str:
        """What is proved, as a predicate of the recorded outcomes."""
        if self.equal == self.met:
            return "equal the replay, to the last bit"
        return (
            "have the prices, probabilities, propensities and purchases of the replay, to the last bit; "
            f"{self.met - self.equal:,} differ in what a model foretold"
        )


@dataclass(frozen=True)
class LoggedDraws:
    """The draws of a log in the order of decisions: by (drawn_ms, partition, version). n rows."""

    table: Any
    """pyarrow.Table of DRAW_COLUMNS and TARGET_COLUMNS."""
    targets: tuple[str, ...]
    """Names of the target policies."""
    refusal: str | None
    """Why nothing may be estimated from this log: a sentence. The rows are what could be recomputed, if any."""
    pending: int
    """Draws without a row, because the log ends before their window does."""
    replayed: Replayed
    """How the log's recorded outcomes were proved."""

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> NDArray[Any]:
        """Return a flat column as a numpy array; ids and names as objects."""
        found: NDArray[Any] = self.table.column(name).combine_chunks().to_numpy(zero_copy_only=False)
        return found

    def rewards(self, kind: Reward = "margin") -> Floats:
        """Return the reward of every draw, (n,).

        Raises:
            BadInput: a margin of items whose cost the catalogue does not have.
        """
        pieces = self.column("quantity").astype(np.float64)
        if kind == "units":
            return pieces
        if kind == "purchase":
            bought: Floats = (pieces > 0).astype(np.float64)
            return bought
        each = self.column("price").astype(np.float64)
        if kind == "margin":
            missing = self.table.column("cost").null_count
            if missing:
                raise BadInput(
                    f"{missing:,} of {len(self):,} draws are of items without a cost, so there is no margin: give the "
                    "catalogue costs, or evaluate revenue"
                )
            each = each - self.column("cost")
        return each * pieces

    def propensities(self) -> Floats:
        """Return the logged probability of the logged price, (n,)."""
        return self.column("propensity")

    def target(self, name: str) -> Floats:
        """Return the probability of the logged price under target policy `name`, (n,)."""
        return self.column(f"target.{name}")

    def unsupported(self, name: str) -> Floats:
        """Return the probability under target `name` of all that the logging policy never draws there, (n,).

        That is prices outside of the logged feasible ones, and those of them that have logged probability zero.
        """
        ours = self.table.column("probabilities").combine_chunks()
        theirs = self.table.column(f"targets.{name}").combine_chunks()
        lost = np.where(ours.flatten().to_numpy() > 0.0, 0.0, theirs.flatten().to_numpy())
        rows = np.repeat(np.arange(len(self)), ours.value_lengths().to_numpy())
        mass: Floats = np.bincount(rows, lost, minlength=len(self)) + self.column(f"outside.{name}")
        return mass

    def clusters(self) -> NDArray[np.int64]:
        """Return a code of the user of every draw, (n,)."""
        codes: NDArray[np.int64] = self.table.column("user").combine_chunks().dictionary_encode().indices.to_numpy()
        return codes.astype(np.int64)


class DrawsHead(Struct, frozen=True, kw_only=True):
    """What a table of logged draws says of itself."""

    targets: tuple[str, ...]
    refusal: str | None
    pending: int
    replayed: Replayed
    """These four as in LoggedDraws."""
    rows: int


def read_head(file: Path) -> DrawsHead:
    """Return what the file that `pricetide backtest LOG --draws FILE` wrote says of itself, without its rows.

    Raises:
        BadInput: it cannot be read, or is no such file.
    """
    pa = require_pyarrow()
    try:
        found = pa.parquet.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    meta = _meta_of(file, found.metadata)
    return DrawsHead(
        targets=meta.targets, refusal=meta.refusal, pending=meta.pending, replayed=meta.replayed, rows=found.num_rows
    )


def _unreadable(file: Path, error: Exception) -> BadInput:
    return BadInput(f"{file} cannot be read ({error}): write it anew with `pricetide backtest --draws`")


def _meta_of(file: Path, metadata: Mapping[bytes, bytes] | None) -> _Meta:
    text = (metadata or {}).get(_META)
    if text is None:
        raise BadInput(f"{file} is no table of logged draws: write it with `pricetide backtest --draws`")
    return msgspec.json.decode(text, type=_Meta)


def read_draws(file: Path) -> LoggedDraws:
    """Return the draws that `pricetide backtest LOG --draws FILE` wrote.

    Raises:
        BadInput: it cannot be read, or is no such file.
    """
    pa = require_pyarrow()
    try:
        table = pa.parquet.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    meta = _meta_of(file, table.schema.metadata)
    order = [("drawn_ms", "ascending"), ("partition", "ascending"), ("version", "ascending")]
    return LoggedDraws(table.sort_by(order), meta.targets, meta.refusal, meta.pending, meta.replayed)


def logged_draws(directory: Path, targets: Sequence[Policy], models: Sequence[Path] = ()) -> LoggedDraws:
    """Replay the log in `directory` and return its draws, with what each of `targets` would have drawn.

    Args:
        directory: of the log.
        targets: by distinct names, as contracts.policy_files.read_policy gives them.
        models: directories of the artifacts in force.

    Raises:
        BadInput, BadSettings: as of backtest.run.run_backtest; or two targets have one name.
    """
    from backtest.run import run_backtest

    with TemporaryDirectory(prefix="pricetide-") as work:
        file = Path(work) / "draws.parquet"
        run_backtest(directory, draws=file, targets=targets, models=models)
        return read_draws(file)


class _Meta(Struct, frozen=True):
    targets: tuple[str, ...]
    refusal: str | None
    pending: int
    replayed: Replayed


def draw_columns(targets: Sequence[str]) -> dict[str, str]:
    """Return the columns of a table of draws with these targets, name -> type."""
    columns = dict(DRAW_COLUMNS)
    for name in targets:
        columns |= {f"target.{name}": "double", f"targets.{name}": "numbers", f"outside.{name}": "double"}
        columns[f"learned.{name}"] = "int64"
    return columns


def write_draws(
    work: Path, log: Log, targets: Sequence[str], states: Sequence[DrawState], pending: int, path: Path
) -> None:
    """Write the pieces of all partitions as one file, with what `read_draws` wants to know."""
    replayed = Replayed(sum(state.met for state in states), sum(state.equal for state in states))
    meta = _Meta(tuple(targets), _refusal(log, states), pending + sum(state.unrecorded for state in states), replayed)
    write_table(
        work, "draws", log.manifest.topology.partitions, draw_columns(targets), path, {_META: msgspec.json.encode(meta)}
    )


def _refusal(log: Log, states: Sequence[DrawState]) -> str | None:
    """Return why nothing may be estimated from the draws of a log, None if nothing speaks against it."""
    faults = sum(state.faults for state in states)
    if log.manifest.offers != "shown":
        return (
            f"The manifest of {log.directory} says offers: {log.manifest.offers}. Its people saw other prices than these, so "
            "nothing they did tells what a price brings. If they saw these, record it with --offers shown"
        )
    if "outcomes" not in log.manifest.tables:
        return (
            f"{log.directory} has no table of outcomes, so no propensity was recorded: capture it with `pricetide record`, "
            "which takes them along"
        )
    if faults:
        first = next(state.first_fault for state in states if state.faults)
        return f"{faults:,} recorded outcomes of {log.directory} are not what the replay gives; the first: {first}"
    if not sum(state.rows for state in states):
        return f"{log.directory} has no draw whose window is over: record for longer"
    return None
