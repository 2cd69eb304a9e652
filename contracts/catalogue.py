"""Catalogue items: the public price of an item and the bounds of its personal offers, each version with a `valid_from_ms`.

One partition, compacted; key = item and valid_from, so that compaction never drops a version that has yet to take effect.
Not here: the rails that these bounds become (pricing.rails).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from contracts.errors import BadReference
from contracts.events import Currency, Id, PriceMinor
from contracts.nesting import shallow

VERSIONS_MAX = 64
"""Versions kept per item; the earliest go first."""

INT64_MAX = (1 << 63) - 1
"""What a column of a log can hold: an item beyond it could be priced, and not be recorded."""

Label = Annotated[str, Meta(max_length=256)]


class CatalogueItem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of an item. Prices in minor units of `currency`."""

    item: Id
    valid_from_ms: Annotated[int, Meta(ge=0, le=INT64_MAX)]
    title: Annotated[str, Meta(max_length=2048)]
    category: Label
    brand: Label
    currency: Currency
    list_price: PriceMinor
    cost: Annotated[int, Meta(ge=0, le=INT64_MAX)] | None = None
    floor: PriceMinor | None = None
    ceiling: PriceMinor | None = None
    map_price: PriceMinor | None = None
    """Minimum advertised price, agreed with the brand."""


decode_item = shallow(msgspec.json.Decoder(CatalogueItem).decode)
_encode = msgspec.json.Encoder().encode


def encode_item(item: CatalogueItem) -> bytes:
    """Return the JSON bytes of `item`."""
    return _encode(item)


def item_key(item: str, valid_from_ms: int) -> bytes:
    """Return the record key of a version: a JSON array [item, valid_from_ms]."""
    return _encode((item, valid_from_ms))


_decode_key = msgspec.json.Decoder(tuple[str, int]).decode


class Catalogue:
    """The versions of every item by event time. A record's offset is the version that decisions are stamped with."""

    __slots__ = ("_currency", "_latest", "_times", "_versions", "seen")

    def __init__(self, currency: str | None = None) -> None:
        """Begin empty; `currency` is the deployment's, and items in another one are refused. None: whatever they are in."""
        self._currency = currency
        self._latest: dict[str, tuple[int, tuple[int, CatalogueItem]]] = {}
        """Per item its last version and from when: what almost every event asks for."""
        self._times: dict[str, list[int]] = {}
        self._versions: dict[str, list[tuple[int, CatalogueItem]]] = {}
        self.seen = 0
        """Offset after the last record applied: what this catalogue has seen."""

    def apply(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Apply one record of the catalogue topic, in offset order; a null value removes the version that the key names.

        Raises:
            msgspec.DecodeError, msgspec.ValidationError: the record is no catalogue item; nothing has changed but `seen`.
            BadReference: the item is in another currency: its list price would be published as an amount of this one.
        """
        self.seen = offset + 1
        if value is None:
            if key is not None:
                self._remove(*_decode_key(key))
            return
        item = decode_item(value)
        if self._currency is not None and item.currency != self._currency:
            raise BadReference(
                f"Item {item.item} is in {item.currency}, prices here are in {self._currency}: convert its prices, or run a "
                "deployment for that currency"
            )
        self.add(offset, item)

    def add(self, offset: int, item: CatalogueItem) -> None:
        """Add a version; one with an equal `valid_from_ms` is replaced."""
        self.seen = max(self.seen, offset + 1)
        times = self._times.setdefault(item.item, [])
        versions = self._versions.setdefault(item.item, [])
        self._remove(item.item, item.valid_from_ms)
        place = bisect_right(times, item.valid_from_ms)
        times.insert(place, item.valid_from_ms)
        versions.insert(place, (offset, item))
        if len(times) > VERSIONS_MAX:
            del times[0], versions[0]
        self._latest[item.item] = (times[-1], versions[-1])

    def _remove(self, item: str, valid_from_ms: int) -> None:
        times = self._times.get(item, [])
        place = bisect_right(times, valid_from_ms) - 1
        if place >= 0 and times[place] == valid_from_ms:
            versions = self._versions[item]
            del times[place], versions[place]
            self._latest.pop(item, None)
            if times:
                self._latest[item] = (times[-1], versions[-1])

    def at(self, item: str, event_time_ms: int) -> tuple[int, CatalogueItem] | None:
        """Return (version, item) in force at `event_time_ms`, or None for an item unknown then."""
        latest = self._latest.get(item)
        if latest is None:
            return None
        if event_time_ms >= latest[0]:
            return latest[1]
        place = bisect_right(self._times[item], event_time_ms) - 1
        return self._versions[item][place] if place >= 0 else None

    def last(self, item: str) -> CatalogueItem | None:
        """Return the version that is valid last, in force already or not; None for an item without one."""
        latest = self._latest.get(item)
        return None if latest is None else latest[1][1]

    def __len__(self) -> int:
        return len(self._latest)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids of the items that have a version."""
        return iter(self._latest)
