"""The rows of a log (contracts.log), one struct per table, and the record values they stand for. Nothing here is validated:
a row that is no event gives a record that is none, for worker and backtest to refuse alike.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from contracts.catalogue import item_key
from contracts.errors import UNREADABLE
from contracts.policies import decode_policy, policy_key


class EventRow(Struct, omit_defaults=True, gc=False):
    """One record of an input topic. Columns as in contracts.events, none of them checked; times in ms, money in minor units."""

    type: str
    """The kind of event, which names the topic; of a captured record without an event, any kind of its topic."""
    event_id: str | None = None
    user: str | None = None
    item: str | None = None
    event_time_ms: int | None = None
    price: int | None = None
    currency: str | None = None
    market: str | None = None
    session: str | None = None
    dwell_ms: int | None = None
    query: str | None = None
    decision_id: str | None = None
    action: str | None = None
    quantity: int | None = None
    granted: bool | None = None
    """Consents only, and so is `erase`."""
    erase: bool = False
    arrival_ms: int = 0
    """When the shop sent it; `produce` sends it as a header, the check for events from the future looks at it."""
    partition: int | None = None
    """None: murmur2 of the key."""
    offset: int | None = None
    """None: the count of earlier rows of the topic and partition."""
    key: bytes | None = None
    """None: the user, or no key at all for a row without a user."""
    raw: bytes | None = None
    """The exact value of a captured record that the columns cannot represent. A row of neither has a null value."""


class CatalogueRow(Struct, omit_defaults=True, gc=False):
    """One record of the catalogue topic: the columns of contracts.catalogue.CatalogueItem, unchecked; or `raw`, or neither."""

    item: str | None = None
    valid_from_ms: int | None = None
    title: str | None = None
    category: str | None = None
    brand: str | None = None
    currency: str | None = None
    list_price: int | None = None
    cost: int | None = None
    floor: int | None = None
    ceiling: int | None = None
    map_price: int | None = None
    offset: int | None = None
    key: bytes | None = None
    """None: [item, valid_from_ms]. A row with a key alone removes that version."""
    raw: bytes | None = None
    arrival_ms: int | None = None
    """When it came on the topic; None where nobody noted it."""


class PolicyRow(Struct, omit_defaults=True, gc=False):
    """One record of the policies topic: its JSON text, or `raw` for what is not text; neither: a removal of `key`."""

    record: str | None = None
    offset: int | None = None
    key: bytes | None = None
    """None: the key that belongs to the record."""
    raw: bytes | None = None
    arrival_ms: int | None = None
    """As in CatalogueRow."""


class AppliedRow(Struct, omit_defaults=True, gc=False):
    """One source record as a live worker applied it, the offsets after the last policy and catalogue record it had seen, and its
    model.
    """

    partition: int
    version: int
    source: int
    """Index into `Topology.sources`."""
    offset: int
    policies_seen: int
    catalogue_seen: int
    outcome: str | None = None
    """None: it led to a decision. Else as in contracts.decisions.Applied; `dead_letter:crashed` is an isolated record."""
    model: str | None = None
    """Digest of the artifact in force; None without one."""


class PublishedRow(Struct, omit_defaults=True, gc=False):
    """One record of an output topic, as a worker published it: exact bytes, in the order of its partition."""

    partition: int
    key: bytes
    record: bytes


class _EventValue(Struct, omit_defaults=True, gc=False):
    """The JSON object of an event, unchecked, fields in the order of contracts.events."""

    type: str
    event_id: str | None
    user: str | None
    item: str | None
    event_time_ms: int | None
    price: int | None
    currency: str | None
    market: str | None = None
    session: str | None = None
    dwell_ms: int | None = None
    query: str | None = None
    decision_id: str | None = None
    action: str | None = None
    quantity: int | None = None


class _ConsentValue(Struct, omit_defaults=True, gc=False):
    type: str
    user: str | None
    granted: bool | None
    event_time_ms: int | None
    erase: bool = False


_encode = msgspec.json.Encoder().encode
_ITEM_COLUMNS = CatalogueRow.__struct_fields__[:11]


def event_value(row: EventRow) -> bytes | None:
    """Return the record value: `raw`, or the JSON of the columns, or None for a row of neither."""
    if row.raw is not None:
        return row.raw
    if row.type == "consent":
        if row.user is None and row.granted is None and row.event_time_ms is None:
            return None
        return _encode(_ConsentValue(row.type, row.user, row.granted, row.event_time_ms, row.erase))
    if row.user is None and row.event_id is None and row.item is None and row.event_time_ms is None:
        return None
    return _encode(
        _EventValue(
            row.type, row.event_id, row.user, row.item, row.event_time_ms, row.price, row.currency, row.market,
            row.session, row.dwell_ms, row.query, row.decision_id, row.action, row.quantity,
        )
    )  # fmt: skip


def item_value(row: CatalogueRow) -> bytes | None:
    """Return the record value of a row without `raw`: the JSON of its columns, or None for one without an item."""
    if row.item is None:
        return None
    columns = {name: getattr(row, name) for name in _ITEM_COLUMNS}
    return _encode({name: value for name, value in columns.items() if value is not None})


def item_record_key(row: CatalogueRow) -> bytes | None:
    """Return the key that belongs to the item, or None if the columns do not say."""
    return item_key(row.item, row.valid_from_ms) if row.item is not None and row.valid_from_ms is not None else None


def policy_value(row: PolicyRow) -> bytes | None:
    """Return the record value of a row without `raw`."""
    return row.record.encode() if row.record is not None else None


def policy_record_key(row: PolicyRow) -> bytes | None:
    """Return the key that belongs to the record, or None if it is no policy record."""
    try:
        return policy_key(decode_policy(row.record)) if row.record is not None else None
    except UNREADABLE:
        return None
