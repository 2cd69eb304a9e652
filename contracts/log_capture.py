"""From captured Kafka records to rows of a log (contracts.log), such that the log gives the same records again.

A record becomes columns where columns say all that an engine can see of it; else its exact bytes are kept. Does not read
Kafka.
"""

from __future__ import annotations

import msgspec

from contracts.catalogue import decode_item, item_key
from contracts.decisions import Applied, DecisionRecord
from contracts.errors import UNREADABLE
from contracts.events import Event, decode_event
from contracts.log import LogRecord
from contracts.log_rows import AppliedRow, CatalogueRow, EventRow, PolicyRow
from contracts.policies import decode_policy, policy_key
from contracts.semantics import KINDS, Semantics, Topology

_EVENT_COLUMNS = frozenset(EventRow.__struct_fields__)


def event_row(record: LogRecord, semantics: Semantics, topology: Topology) -> EventRow:
    """Return the row of a record captured from an input topic."""
    kinds = topology.kinds_of(record.source)
    event = _representable(record, semantics, kinds)
    if event is None:
        kind = next(kind for kind in KINDS if kind in kinds)
        row = EventRow(type=kind, key=record.key, raw=record.value)
    else:
        columns = {name: getattr(event, name) for name in event.__struct_fields__ if name in _EVENT_COLUMNS}
        row = EventRow(type=str(event.__struct_config__.tag), **columns)
        if record.key != event.user.encode():
            row.key = record.key
    row.arrival_ms, row.partition, row.offset = record.arrival_ms, record.partition, record.offset
    return row


def _representable(record: LogRecord, semantics: Semantics, kinds: frozenset[str]) -> Event | None:
    """Return the event of a record that columns can represent, or None for one whose bytes must be kept."""
    if record.value is None or record.key is None or len(record.value) > semantics.event_bytes_max:
        return None
    try:
        event = decode_event(record.value)
    except UNREADABLE:
        return None
    return event if event.__struct_config__.tag in kinds else None


def catalogue_row(offset: int, key: bytes | None, value: bytes | None, arrival_ms: int | None = None) -> CatalogueRow:
    """Return the row of a record captured from the catalogue topic."""
    try:
        item = decode_item(value) if value is not None else None
    except UNREADABLE:
        item = None
    if item is None:
        return CatalogueRow(offset=offset, key=key, raw=value, arrival_ms=arrival_ms)
    row = CatalogueRow(**msgspec.structs.asdict(item), offset=offset, arrival_ms=arrival_ms)
    if key != item_key(item.item, item.valid_from_ms):
        row.key = key
    return row


def policy_row(offset: int, key: bytes | None, value: bytes | None, arrival_ms: int | None = None) -> PolicyRow:
    """Return the row of a record captured from the policies topic."""
    if value is None:
        return PolicyRow(offset=offset, key=key, arrival_ms=arrival_ms)
    try:
        text = value.decode()
        known = policy_key(decode_policy(value))
    except UNREADABLE:
        return PolicyRow(offset=offset, key=key, raw=value, arrival_ms=arrival_ms)
    return PolicyRow(record=text, offset=offset, key=None if key == known else key, arrival_ms=arrival_ms)


def applied_row(record: DecisionRecord, topology: Topology) -> AppliedRow:
    """Return the row of a record captured from the decisions topic; several decisions of one source record give equal rows."""
    return AppliedRow(
        partition=record.source.partition,
        version=record.version,
        source=topology.sources.index(record.source.topic),
        offset=record.source.offset,
        policies_seen=record.policies_seen,
        catalogue_seen=record.catalogue_seen,
        outcome=record.outcome if isinstance(record, Applied) else None,
        model=record.model,
    )
