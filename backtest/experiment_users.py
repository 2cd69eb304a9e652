"""Users of an experiment, from the decisions and outcomes that a backtest wrote: one row each, everything summed per user.

A user is in the arm that the draws are stamped with; who was never drawn for is in none, and consent or purchases before
the first draw cannot depend on the arm. From then on all that the outcomes know of the user counts, whatever the arm
did with it: purchases at the drawn price, at another one, and late ones. What was bought before is the covariate of
CUPED. Memory: a row per user and a price per item; the files stream. Not here: statistics (backtest.experiment_report).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from contracts.decisions import Source
from contracts.errors import BadInput
from contracts.log_files import require_pyarrow

HOLDOUT = "holdout"
_WITHDRAWN = ("consent_withdrawn", "no_consent")


class ExperimentUser(Struct, gc=False):
    """What a user did from the first draw in the experiment on. Money in minor units, times in ms of event time."""

    arm: str
    """Name of the variant, or HOLDOUT."""
    first_ms: int
    """Event time of the first draw."""
    draws: int = 0
    exposed: int = 0
    """Draws that the user saw."""
    resolved: int = 0
    """Draws whose outcome is known."""
    purchases: int = 0
    bought: int = 0
    """Of them, at the price that was drawn."""
    mismatched: int = 0
    """Of them, in the window of a draw at another price."""
    revenue: int = 0
    margin: int = 0
    before: int = 0
    """Revenue before the first draw."""
    consent: bool = True
    """Not withdrawn since."""
    arms: int = 1
    """In how many arms the user was seen; more than one is a fault."""
    partition: int = 0
    """Of the draws."""


class ExperimentData(Struct):
    """The users of one experiment."""

    users: dict[str, ExperimentUser]
    last_ms: int
    """Latest event time of the decisions."""
    costs_known: bool
    """Every item that was bought has a cost, so margins are available."""
    withheld: int
    """Users left out because their horizon is not over."""


class _Decision(Struct, gc=False):
    """What is read of a decision."""

    decision_id: str
    user: str
    reasons: tuple[str, ...]
    status: str
    event_time_ms: int
    source: Source
    experiment: str | None = None
    variant: str | None = None
    held_out: bool = False


class _Bought(Struct, gc=False):
    quantity: int
    price: int
    event_time_ms: int


class _Outcome(Struct, gc=False):
    """What is read of an outcome, and of a purchase that rewards no draw."""

    record: str
    user: str
    item: str
    draw_id: str
    price: int
    cost: int | None = None
    drawn_ms: int = 0
    exposed: bool = False
    bought: _Bought | None = None
    event_time_ms: int = 0
    quantity: int = 0


_read_decision = msgspec.json.Decoder(_Decision).decode
_read_outcome = msgspec.json.Decoder(_Outcome).decode


def read_users(
    name: str, decisions: Path, outcomes: Path, horizon_ms: int | None = None, window_ms: int = 0
) -> ExperimentData:
    """Return the users of all versions of experiment `name`.

    Args:
        name: of the experiment.
        decisions: Parquet file of a backtest.
        outcomes: Parquet file of the same backtest.
        horizon_ms: as in contracts.experiments.
        window_ms: of the log's outcomes: a draw's purchases are known when its partition has got that much further, so a user
            counts then only; else the same user could be worth more at the next look.

    Raises:
        BadInput: a file is missing or none of ours, or nobody was in the experiment.
    """
    users: dict[str, ExperimentUser] = {}
    reached = _read_decisions(name, decisions, users, horizon_ms)
    if not users:
        raise BadInput(
            f"{decisions} holds no draw of an experiment {name}: backtest a log on which it runs, or look at the name"
        )
    withheld = 0
    if horizon_ms is not None:
        over_ms = horizon_ms + window_ms
        early = [user for user, one in users.items() if one.first_ms + over_ms > reached[one.partition]]
        for user in early:
            del users[user]
        withheld = len(early)
    costs_known = _read_outcomes(outcomes, users, horizon_ms)
    return ExperimentData(users, max(reached.values()), costs_known, withheld)


def _read_decisions(
    name: str, decisions: Path, users: dict[str, ExperimentUser], horizon_ms: int | None
) -> dict[int, int]:
    """Add who is in the experiment to `users`; return the latest event time of each partition."""
    reached: dict[int, int] = {}
    for value in _records(decisions, "decision"):
        row = _read_decision(value)
        partition = row.source.partition
        reached[partition] = max(reached.get(partition, 0), row.event_time_ms)
        one = users.get(row.user)
        if row.status == "drawn" and row.experiment is not None and row.experiment.rpartition("@")[0] == name:
            arm = HOLDOUT if row.held_out else row.variant or ""
            if one is None:
                one = users[row.user] = ExperimentUser(arm, row.event_time_ms, partition=partition)
            elif one.arm != arm:
                one.arms += 1
            one.draws += _within(row.event_time_ms, one, horizon_ms)
        elif one is not None and row.reasons[0] in _WITHDRAWN and _within(row.event_time_ms, one, horizon_ms):
            one.consent = False
    return reached


def _within(time_ms: int, user: ExperimentUser, horizon_ms: int | None) -> bool:
    return user.first_ms <= time_ms and (horizon_ms is None or time_ms < user.first_ms + horizon_ms)


def _read_outcomes(outcomes: Path, users: dict[str, ExperimentUser], horizon_ms: int | None) -> bool:
    """Add what the outcomes say to `users`; return whether every item bought has a cost."""
    costs: dict[str, int | None] = {}
    unpriced: list[tuple[ExperimentUser, str, int]] = []
    for value in _records(outcomes, None):
        row = _read_outcome(value)
        drawn = row.record == "outcome"
        if drawn:
            costs[row.item] = row.cost
        one = users.get(row.user)
        if one is None:
            continue
        if drawn and _within(row.drawn_ms, one, horizon_ms):
            one.resolved += 1
            one.exposed += row.exposed
        bought = row.bought if drawn else _Bought(row.quantity, row.price, row.event_time_ms)
        if bought is None:
            continue
        paid = bought.price * bought.quantity
        if bought.event_time_ms < one.first_ms:
            one.before += paid
        elif _within(bought.event_time_ms, one, horizon_ms):
            one.purchases += 1
            one.bought += drawn
            one.mismatched += row.record == "price_mismatch"
            one.revenue += paid
            unpriced.append((one, row.item, bought.quantity))
    known = True
    for one, item, quantity in unpriced:
        cost = costs.get(item)
        known = known and cost is not None
        one.margin -= (cost or 0) * quantity
    for one in users.values():
        one.margin += one.revenue
    return known


def _records(path: Path, kind: str | None) -> Iterator[bytes]:
    """Stream the published bytes of a Parquet file of a backtest, those of one `kind` only if given."""
    pa = require_pyarrow()
    import pyarrow.compute

    try:
        file = pa.parquet.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise BadInput(f"{path} is no Parquet file ({error}): name one that `pricetide backtest` wrote") from None
    with file:
        if "record" not in file.schema_arrow.names:
            raise BadInput(f"{path} has no column `record`: name a file that `pricetide backtest` wrote")
        for batch in file.iter_batches(columns=["record"] if kind is None else ["kind", "record"]):
            records = batch.column("record")
            wanted = records if kind is None else records.filter(pyarrow.compute.equal(batch.column("kind"), kind))
            yield from wanted.to_pylist()
