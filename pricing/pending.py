"""A pending draw: everything that its outcome will say, and the bytes it is kept as until then. One record per draw.

What is known at the draw is written once, as the head of the outcome's JSON; what happens later is filled in beside it.
Kept in the partition's store and changelog under the draw's timer (pricing.timers), apart from its user's state: to resolve
it takes neither that state nor its user. Not here: what fills it in, and when (pricing.outcomes).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from contracts.decisions import decision_key
from contracts.errors import BadSettings, BrokenInvariant
from contracts.events import Purchase
from contracts.outcomes import UNLEARNABLE, NextDraw, Outcome, Unlearnable
from contracts.semantics import Exposure
from pricing.offers import Verdict
from pricing.run import Asked
from pricing.treatments import NO_STAMP

SCHEMA = 1

# Marks of a pending draw: bits 0 to 3 are the reasons of contracts.outcomes.UNLEARNABLE.
IMPLAUSIBLE, CONSENT, FORCED, FORGOTTEN = (1 << UNLEARNABLE.index(reason) for reason in UNLEARNABLE)
EXPOSED = 1 << len(UNLEARNABLE)


class DamagedDraw(BrokenInvariant):
    """What the store holds of a pending draw is not what was written; no record of the input is to blame."""


class Pending(Struct, array_like=True, tag=SCHEMA, gc=False):
    """A draw that waits for the end of its window. Rule: another layout is a new SCHEMA, the first element of the array."""

    key: bytes
    """Of the outcome."""
    head: bytes
    """The outcome's JSON up to `exposure`, as an object of its own."""
    marks: int
    quantity: int = 0
    """Pieces bought; the three below are 0 and empty as long as this is."""
    price: int = 0
    event_id: str = ""
    event_time_ms: int = 0
    next: bytes = b"null"
    """JSON of the user's next draw."""


ERASED = Pending(b"", b"", 0)
"""In place of a draw whose user was forgotten: its timer runs on, and it has no outcome."""


class _Bought(Struct, gc=False):
    quantity: int
    price: int
    event_id: str
    event_time_ms: int


class _Tail(Struct, gc=False):
    exposed: bool
    bought: _Bought | None
    learnable: bool
    unlearnable: tuple[Unlearnable, ...]


# The outcome in two parts, the fields of the contract in its order, so the same bytes (a test holds them equal).
_FIELDS = Outcome.__struct_fields__
_SPLIT = _FIELDS.index("exposed")
_NO_CHURN = (None, None)
_ABSENT = (*NO_STAMP, *_NO_CHURN)
"""What the last fields of a head say where it has none of them."""
_DEFAULTS = _SPLIT - len(_ABSENT)
_Head = msgspec.defstruct(
    "_Head",
    [(name, Any) for name in _FIELDS[:_DEFAULTS]]
    + [(name, Any, value) for name, value in zip(_FIELDS[_DEFAULTS:_SPLIT], _ABSENT, strict=True)],
    tag_field="record",
    tag="outcome",
    omit_defaults=True,
    gc=False,
)
_Next = msgspec.defstruct("_Next", [(name, Any) for name in NextDraw.__struct_fields__], gc=False)

_read_key = msgspec.json.Decoder(tuple[str, str]).decode
_to_json = msgspec.json.Encoder().encode
encode_pending = msgspec.msgpack.Encoder().encode
"""Pending -> bytes; equal draws give equal bytes."""
_decode = msgspec.msgpack.Decoder(Pending).decode
_NOTHING_LEARNED = (None,) * 4
_SCHEMA = bytes([SCHEMA])


def _tail_of(marks: int, bought: _Bought | None) -> bytes:
    """Return the outcome's JSON between its head and the next draw."""
    reasons = tuple(reason for bit, reason in enumerate(UNLEARNABLE) if marks >> bit & 1)
    return _to_json(_Tail(marks & EXPOSED != 0, bought, not reasons, reasons))[1:-1] + b',"next":'


_NOT_BOUGHT = [_tail_of(marks, None) for marks in range(2 * EXPOSED)]
"""Of every combination of marks: nearly every draw ends so."""


def decode_pending(value: bytes | None) -> Pending:
    """Return the pending draw that `value`, bytes of `encode_pending`, holds.

    Raises:
        BadSettings: the bytes have a schema that this release does not know.
        DamagedDraw: there is none, or the bytes are none.
    """
    if value is None:
        raise DamagedDraw("A pending draw is not in the store: wipe the data directory to restore it, and report this")
    try:
        return _decode(value)
    except msgspec.DecodeError as error:
        schema = value[1:2]  # behind the length of the array
        if schema > _SCHEMA:
            raise BadSettings(
                f"A stored pending draw has schema {schema[0]}, this release reads {SCHEMA}: it was written by a newer "
                "pricetide; run that release, or one after it, on this data directory and changelog"
            ) from None
        raise DamagedDraw(
            f"A stored pending draw of {len(value)} bytes cannot be read ({error}): wipe the data directory to restore "
            "from the changelog, and report the bytes if that does not help"
        ) from error


def pending_of(
    turn: Asked,
    verdict: Verdict,
    preference: float | None,
    policy: str,
    model: str | None,
    due_ms: int,
    exposure: Exposure,
) -> Pending:
    """Return what waits of a draw.

    Args:
        turn: the view or click that led to it.
        verdict: its price and why; status "drawn".
        preference: the model's, None without one.
        policy: the version that prices outside of experiments.
        model: digest of the artifact in force.
        due_ms: when it resolves.
        exposure: how exposure is known.
    """
    event, ask, priced, treatment = turn.inbound.event, turn.ask, turn.priced, turn.treatment
    assert event is not None
    known = verdict.learned
    user, item, chances = event.user, priced.item, verdict.chances
    assert chances is not None
    head = _Head(
        ask.decision_id,
        user,
        item.item,
        verdict.market,
        item.currency,
        verdict.price,
        priced.list_price,
        item.cost,
        policy if treatment is None else treatment.policy,
        model,
        preference,
        priced.version,
        verdict.intent,
        chances.prices_json,
        chances.probabilities_json,
        *((known.features, known.feature_version, known.learned, known.cost_source) if known else _NOTHING_LEARNED),
        verdict.propensity,
        verdict.forced,
        ask.now_ms,
        turn.version,
        due_ms,
        exposure,
        *(NO_STAMP if treatment is None else treatment.stamp),
        *((known.churn, known.churn_days) if known else _NO_CHURN),
    )
    marks = (FORCED if verdict.forced else 0) | (EXPOSED if exposure == "all" else 0)
    return Pending(decision_key(user, ask.decision_id), _to_json(head), marks)


def follow(pending: Pending, turn: Asked, price: int) -> None:
    """Note that the user's next draw is the one at `price` in `turn`."""
    pending.next = _to_json(_Next(turn.ask.decision_id, turn.priced.item.item, price, turn.ask.now_ms))


def reward(pending: Pending, purchase: Purchase) -> None:
    """Note a purchase at the draw's price."""
    if not pending.quantity:
        pending.price, pending.event_id = purchase.price, purchase.event_id
        pending.event_time_ms = purchase.event_time_ms
    pending.quantity += purchase.quantity


def draw_id_of(pending: Pending) -> str:
    """Return the draw's id, from the key."""
    _, draw_id = _read_key(pending.key)
    return draw_id


def user_key_of(pending: Pending) -> bytes:
    """Return the record key of the draw's user; empty if the draw was erased."""
    return _read_key(pending.key)[0].encode() if pending.key else b""


def outcome_of(pending: Pending) -> bytes:
    """Return the JSON bytes of the outcome, now that the draw's window is over."""
    if not pending.quantity:
        return b"%b,%b%b}" % (pending.head[:-1], _NOT_BOUGHT[pending.marks], pending.next)
    bought = _Bought(pending.quantity, pending.price, pending.event_id, pending.event_time_ms)
    return b"%b,%b%b}" % (pending.head[:-1], _tail_of(pending.marks, bought), pending.next)
