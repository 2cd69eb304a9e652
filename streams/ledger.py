"""The ledger: which source positions a partition's state includes, kept inside that state; and where a fetch must continue.

A reserved record of the changelog holds the positions, so state and positions commit together. On assignment they must
agree with the group's offsets and with the log: Kafka forgets, operators reset, topics get recreated, and none of that may
pass unnoticed. Not here: fetching, committing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec
from msgspec import Struct

from contracts.errors import BadSettings

# User ids are UTF-8, which never has these bytes: no user can collide with a reserved key.
RESERVED = b"\xff\xff"
"""How every reserved key begins, those of pending draws (pricing.timers) and erasures (pricing.erasure) included."""
LEDGER_KEY = b"\xff\xffledger"
MARKER_KEY = b"\xff\xffmarker"
OFFSET_KEY = b"\xff\xffoffset"
PURGE_KEY = b"\xff\xffpurge"
"""This and the one above are the store's own, and never in the changelog."""


class Ledger(Struct, frozen=True, kw_only=True):
    """What the state of one partition includes."""

    epoch: int
    partitions: int
    sources: tuple[str, ...]
    positions: tuple[int, ...]
    """Next offset to apply, per source."""
    applied: int
    """Records applied, over all sources: the last version given."""
    watermark_ms: int
    """Highest event time applied."""
    lineage: str = ""
    """Given when the state began, and never changed: which changelog this is. Empty in those of earlier releases."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Ledger).decode


def encode_ledger(ledger: Ledger) -> bytes:
    """Return the JSON bytes of `ledger`."""
    return _encode(ledger)


def decode_ledger(value: bytes) -> Ledger:
    """Return the ledger that `value` holds."""
    return _decode(value)


def starting_point(
    ledger: Ledger | None,
    expected: Ledger,
    group: Sequence[int | None],
    beginnings: Sequence[int],
    ends: Sequence[int],
    where: str,
) -> Ledger:
    """Return the ledger from which a new owner goes on; its positions are where it reads next.

    Args:
        ledger: what the state says, None for an empty changelog.
        expected: epoch, partitions and sources of the settings, the lineage of a state that begins here; positions and counts
            are ignored.
        group: committed offset per source, None where the group has none.
        beginnings: first offset per source.
        ends: end offset per source.
        where: names the partition in messages.

    Raises:
        BadSettings: state, group, log and settings do not agree; the message says what to do.
    """
    if ledger is None:
        return _fresh(expected, group, beginnings, where)
    if ledger.partitions != expected.partitions or ledger.sources != expected.sources:
        raise BadSettings(
            f"{where}: the state was built from {ledger.sources} with {ledger.partitions} partitions, the settings say "
            f"{expected.sources} with {expected.partitions}. Set them back, or start anew: another group, changelog topic and "
            "data directory"
        )
    if (
        expected.epoch > ledger.epoch
    ):  # topics were recreated and the operator said so: the state stays, positions begin anew
        return msgspec.structs.replace(ledger, epoch=expected.epoch, positions=tuple(beginnings))
    if expected.epoch < ledger.epoch:
        raise BadSettings(
            f"{where}: the state is of epoch {ledger.epoch}, the settings say {expected.epoch}: set it back"
        )
    _check_log(ledger, beginnings, ends, where)
    _check_group(ledger, group, where)
    return ledger


def _fresh(expected: Ledger, group: Sequence[int | None], beginnings: Sequence[int], where: str) -> Ledger:
    if any(offset is not None for offset in group):
        raise BadSettings(
            f"{where}: the group has committed offsets {list(group)} but the changelog has no state. Restore the changelog "
            "topic, or start anew with another --group"
        )
    return msgspec.structs.replace(expected, positions=tuple(beginnings), applied=0, watermark_ms=0)


def _check_log(ledger: Ledger, beginnings: Sequence[int], ends: Sequence[int], where: str) -> None:
    for source, position, beginning, end in zip(ledger.sources, ledger.positions, beginnings, ends, strict=True):
        if position > end:
            raise BadSettings(
                f"{where}: the state includes {source} up to offset {position}, the topic ends at {end}: it was recreated. Raise "
                "semantics.epoch by one, so that its events are read from the start under new decision ids"
            )
        if position < beginning:
            raise BadSettings(
                f"{where}: the next event of {source} is at offset {position}, the topic begins at {beginning}: retention removed "
                "events that were never applied. Raise the topic's retention, and `pricetide offsets skip` to go on without them"
            )


def _check_group(ledger: Ledger, group: Sequence[int | None], where: str) -> None:
    forgotten = [source for source, offset in zip(ledger.sources, group, strict=True) if offset is None]
    if forgotten and len(forgotten) < len(group):
        raise BadSettings(
            f"{where}: the group has no offset of {', '.join(forgotten)} any more, but of the others: Kafka forgets those of a "
            "deleted topic, and kafka-consumer-groups can delete them. If the topic was recreated, raise semantics.epoch by one, "
            "so that its events are read from the start under new decision ids; if only its offsets were deleted, `pricetide "
            "offsets repair`: a raised epoch would apply its events twice"
        )
    if tuple(group) != ledger.positions:
        raise BadSettings(
            f"{where}: the state includes the positions {list(ledger.positions)} of {list(ledger.sources)}, the group has "
            f"committed {list(group)}: offsets were reset or have expired. Run `pricetide offsets repair`"
        )


class _HasOffset(Protocol):
    @property
    def offset(self) -> int: ...


Record = TypeVar("Record", bound=_HasOffset)


class PositionLedger:
    """Where this assignment wants to read next, per source: a fetch is taken only from there on.

    A fetch may begin later (control records, compaction), never earlier: what lies below was applied already.
    """

    __slots__ = ("dropped", "positions")

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = list(positions)
        self.dropped = 0
        """Records below the position, refused."""

    def accept(self, source: int, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records of `source` at or above its position, and move the position behind them."""
        position = self.positions[source]
        if records and records[0].offset < position:
            kept = [record for record in records if record.offset >= position]
            self.dropped += len(records) - len(kept)
            records = kept
        if records:
            self.positions[source] = records[-1].offset + 1
        return records
