"""From a Kafka record to something that has a place in the order: an event, or the reason why it is none.

Pure, and the only place where records are refused, so a worker and a backtest dead-letter the same ones. Does not write
dead letters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import msgspec
from msgspec import Struct

from contracts.errors import UNREADABLE, BadEvent
from contracts.events import Consent, Event, decode_event
from contracts.ids import partition_of
from contracts.semantics import Semantics, Topology

_KNOWN_KEYS_MAX = 16_384
"""Of a partition; then all are forgotten, and checked again when they come, at 2.5 µs."""
ARRIVAL_HEADER = "arrival_ms"
ARRIVAL_DIGITS_MAX = 15

REMEDIES = {
    "null_value": "Send an event; deletions have no meaning on an input topic",
    "too_large": "Send events below event_bytes_max",
    "not_json": "Send one JSON object in UTF-8",
    "bad_field": "Correct the field; contracts/schemas has the JSON Schema of every event",
    "wrong_topic": "Send this kind of event to the topic that the settings name for it",
    "unknown_currency": "Convert to the deployment's currency, or run a deployment for this one",
    "key_mismatch": "Use the user id, in UTF-8, as the record key",
    "wrong_partition": "Partition by murmur2 of the key, as Java and aiokafka do (librdkafka: partitioner=murmur2_random)",
    "future": "Check the producer's clock: event_time_ms lies after the arrival by more than skew_max_ms",
    "crashed": "Report this event: the engine raised three times on it; the traceback stands in a header",
}


class Inbound(Struct, gc=False):
    """One source record, decoded. `order_ms` is its place in time: the event's own, or -1 for what is no event."""

    order_ms: int
    source: int
    offset: int
    event: Event | None
    error: BadEvent | None
    key: bytes | None
    value: bytes | None
    arrival_ms: int
    received: float = 0.0
    """Monotonic seconds at which a worker buffered the record; decides nothing but how long it waits for other topics."""


def arrival_of(timestamp_ms: int, headers: Iterable[tuple[str, bytes | None]]) -> int:
    """Return when a record arrived: its header `arrival_ms` (ASCII digits) if it has a proper one, else its timestamp."""
    for name, value in headers:
        if name == ARRIVAL_HEADER and value is not None and value.isdigit() and len(value) <= ARRIVAL_DIGITS_MAX:
            timestamp_ms = int(value)
    return timestamp_ms


def refuse(code: str, message: str) -> BadEvent:
    """Return the BadEvent of `code`, with the remedy that belongs to it."""
    return BadEvent(code, message, REMEDIES[code])


class Intake:
    """Decodes and checks the records of one partition."""

    __slots__ = ("_known", "_partition", "_semantics", "_topology", "_types")

    def __init__(self, semantics: Semantics, topology: Topology, partition: int) -> None:
        self._semantics = semantics
        self._topology = topology
        self._partition = partition
        kinds = [topology.kinds_of(source) for source in range(len(topology.sources))]
        self._types = [{one for one in get_args(Event) if one.__struct_config__.tag in carried} for carried in kinds]
        self._known: dict[bytes, str] = {}
        """Keys that belong here, with the users that they name."""

    def read(self, source: int, offset: int, key: bytes | None, value: bytes | None, arrival_ms: int) -> Inbound:
        """Return the record with its event, or with the BadEvent that says why it has none. Never raises for bad input.

        Args:
            source: index into `Topology.sources`.
            offset: position in the source partition.
            key: record key bytes, or None.
            value: record value bytes, or None.
            arrival_ms: header `arrival_ms` if there is one, else the record's timestamp.
        """
        try:
            event = self._event(source, key, value, arrival_ms)
        except BadEvent as error:
            # no frames: they hold whole batches, in circles that nobody collects, an Inbound being outside of the collector
            error.__traceback__ = error.__context__ = None
            return Inbound(-1, source, offset, None, error, key, value, arrival_ms)
        return Inbound(event.event_time_ms, source, offset, event, None, key, value, arrival_ms)

    def _event(self, source: int, key: bytes | None, value: bytes | None, arrival_ms: int) -> Event:
        if value is None:
            raise refuse("null_value", "The record has no value")
        if len(value) > self._semantics.event_bytes_max:
            raise refuse("too_large", f"The record has {len(value)} bytes, more than {self._semantics.event_bytes_max}")
        try:
            event: Event = decode_event(value)
        except msgspec.ValidationError as error:
            raise refuse("bad_field", str(error)) from None
        except UNREADABLE as error:
            raise refuse("not_json", str(error)) from None
        if key is None or self._known.get(key) != event.user:
            self._check_place(event, key)
        self._check_content(event, source, arrival_ms)
        return event

    def _check_place(self, event: Event, key: bytes | None) -> None:
        if key is None or key != event.user.encode("utf-8", "surrogatepass"):
            raise refuse("key_mismatch", f"The record key is {key!r:.80}, the event's user is {event.user!r:.80}")
        partition = partition_of(key, self._topology.partitions)
        if partition != self._partition:
            raise refuse("wrong_partition", f"The key belongs on partition {partition}, it came on {self._partition}")
        if len(self._known) >= _KNOWN_KEYS_MAX:
            self._known.clear()
        self._known[key] = event.user

    def _check_content(self, event: Event, source: int, arrival_ms: int) -> None:
        if type(event) not in self._types[source]:
            kind = event.__struct_config__.tag
            raise refuse("wrong_topic", f"A {kind} came on topic {self._topology.sources[source]!r}")
        if not isinstance(event, Consent) and event.currency != self._semantics.currency:
            raise refuse(
                "unknown_currency",
                f"The price is in {event.currency!r}, prices here are in {self._semantics.currency}",
            )
        if event.event_time_ms > arrival_ms + self._semantics.skew_max_ms:
            raise refuse(
                "future",
                f"event_time_ms {event.event_time_ms} is {event.event_time_ms - arrival_ms} ms after its arrival",
            )
