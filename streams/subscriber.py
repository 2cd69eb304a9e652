"""Current prices for a downstream service: reads the price-updates and policies topics, and answers `price(user, item)`.

    with PriceSubscriber(load_settings()) as prices:
        prices.catch_up()
        for update in prices.poll(timeout_ms=100):
            ...
        offer = prices.price("user-1", "item-9")     # None: charge the public list price

Only committed records are read, from all partitions, outside any group: every instance sees everything. Newer versions
replace older ones, an expired price is gone, a tombstone removes, and under the kill switch every price known is its
list price. `PriceBook` is the same without Kafka. Not here: deciding prices; caching public list prices.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Literal, Self

import msgspec
from kafka import TopicPartition
from msgspec import Struct

from contracts.errors import REFUSED, UNREADABLE
from contracts.policies import PolicyBook
from contracts.prices import PriceUpdate, decode_price
from pricing.reasons import KILL_SWITCH
from streams.broker import broker_errors, partitions_of, reading, records_until, require_topics
from streams.settings import Settings

Clock = Literal["wall", "stream"]
"""wall: a price expires when its `valid_until_ms` has passed by this machine's clock; stream: when an update of that time or
later has been seen, which is what a replay of an old log needs."""

SWEEP_MIN = 10_000
"""Expired prices are swept out of memory after this many changes, or after as many as there are prices."""

_decode_key = msgspec.json.Decoder(tuple[str, str]).decode


class Removal(Struct, frozen=True):
    """The price of `item` for `user` was removed (erasure): nothing personal holds any more."""

    user: str
    item: str


Change = PriceUpdate | Removal


class PriceBook:
    """The current price per user and item, folded from records in offset order.

    Args:
        clock: what `price` takes for now unless told.
        prices_max: most prices kept; the ones updated longest ago go first, and read as unknown. None: all.
    """

    __slots__ = ("_clock", "_policies", "_prices", "_prices_max", "stream_ms", "unreadable")

    def __init__(self, clock: Clock = "wall", prices_max: int | None = None) -> None:
        self._clock = clock
        self._prices_max = prices_max
        self._prices: OrderedDict[tuple[str, str], PriceUpdate] = OrderedDict()
        self._policies = PolicyBook()
        self.stream_ms = 0
        """Highest `valid_from_ms` seen."""
        self.unreadable = 0
        """Records passed over because they are none of ours."""

    @property
    def kill_switch(self) -> bool:
        """Whether everybody pays list price."""
        return self._policies.kill_switch

    def __len__(self) -> int:
        return len(self._prices)

    def apply(self, key: bytes | None, value: bytes | None) -> Change | None:
        """Apply a record of the price-updates topic; return what changed, None for an older version or a foreign record."""
        try:
            return self._removed(key) if value is None else self._updated(decode_price(value))
        except UNREADABLE:
            self.unreadable += 1
            return None

    def _removed(self, key: bytes | None) -> Removal | None:
        user, item = _decode_key(key or b"")
        return Removal(user, item) if self._prices.pop((user, item), None) is not None else None

    def _updated(self, update: PriceUpdate) -> PriceUpdate | None:
        self.stream_ms = max(self.stream_ms, update.valid_from_ms)
        place = (update.user, update.item)
        known = self._prices.get(place)
        if known is not None and known.version >= update.version and not _over(known, update.valid_from_ms):
            return None
        self._prices[place] = update
        self._prices.move_to_end(place)
        if self._prices_max is not None and len(self._prices) > self._prices_max:
            self._prices.popitem(last=False)
        return update

    def apply_policy(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Apply a record of the policies topic; only the kill switch matters here."""
        try:
            self._policies.apply(offset, key, value)
        except REFUSED:
            self.unreadable += 1

    def now_ms(self) -> int:
        """Return now by this book's clock."""
        return time.time_ns() // 1_000_000 if self._clock == "wall" else self.stream_ms

    def price(self, user: str, item: str, *, now_ms: int | None = None) -> PriceUpdate | None:
        """Return the price that holds, or None: then the public list price does.

        Args:
            user: as in the events.
            item: as in the catalogue.
            now_ms: the time to answer for; by default now by this book's clock.
        """
        update = self._prices.get((user, item))
        return None if update is None else self.in_force(update, now_ms=now_ms)

    def in_force(self, update: PriceUpdate, *, now_ms: int | None = None) -> PriceUpdate | None:
        """Return `update` as it holds: at list price under the kill switch, None if it has expired; `now_ms` as of `price`."""
        if _over(update, self.now_ms() if now_ms is None else now_ms):
            return None
        return _at_list_price(update) if self.kill_switch else update

    def sweep(self) -> int:
        """Forget the prices that have expired by this book's clock; return how many."""
        now = self.now_ms()
        gone = [place for place, update in self._prices.items() if _over(update, now)]
        for place in gone:
            del self._prices[place]
        return len(gone)


def _over(update: PriceUpdate, now_ms: int) -> bool:
    """Return whether `update` has expired at `now_ms`: another may follow, also from a deployment that counts versions anew."""
    return update.valid_until_ms is not None and update.valid_until_ms <= now_ms


def _at_list_price(update: PriceUpdate) -> PriceUpdate:
    """Return `update` as the kill switch leaves it."""
    return msgspec.structs.replace(
        update, price=update.list_price, reasons=KILL_SWITCH, status="list", draw_id=None, valid_until_ms=None
    )


class PriceSubscriber:
    """A `PriceBook` that Kafka fills. Not thread-safe: poll and ask from one thread, or lock.

    Args:
        settings: where Kafka is, and the topics `price_updates` and `policies`.
        clock: see `Clock`.
        prices_max: see `PriceBook`; bounds memory at about 1 KiB a price.
        start: beginning: every price still on the compacted topic; end: updates from now on only.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock = "wall",
        prices_max: int | None = None,
        start: Literal["beginning", "end"] = "beginning",
    ) -> None:
        self.book = PriceBook(clock, prices_max)
        self._settings = settings
        self._start = start
        self._exit = ExitStack()
        self._changes = 0

    def __enter__(self) -> Self:
        """Connect; the kill switch is known when this returns.

        Raises:
            BrokerUnavailable: no broker answers. BadSettings: a topic is missing, or access is refused.
        """
        topics = self._settings.topics
        counts = require_topics(self._settings, [topics.price_updates, topics.policies])
        self._prices = partitions_of({topics.price_updates: counts[topics.price_updates]})
        policies = TopicPartition(topics.policies, 0)
        with ExitStack() as opened:
            self._consumer = opened.enter_context(reading(self._settings))
            self._consumer.assign([policies])
            self._consumer.seek_to_beginning(policies)
            for record in records_until(self._consumer, self._consumer.end_offsets([policies])):
                self.book.apply_policy(record.offset, record.key, record.value)
            position = self._consumer.position(policies)
            self._consumer.assign([policies, *self._prices])
            self._consumer.resume(policies)
            self._consumer.seek(policies, position)
            seek = self._consumer.seek_to_beginning if self._start == "beginning" else self._consumer.seek_to_end
            seek(*self._prices)
            for place in self._prices:
                self._consumer.position(place)  # looks the offset up now: what is published from here on will be read
            self._exit = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def poll(self, timeout_ms: int = 500) -> list[Change]:
        """Read what has arrived, waiting at most `timeout_ms` for something; return what changed, in order per user.

        Raises:
            BrokerUnavailable: the connection is lost for good.
        """
        with broker_errors(self._settings.kafka):
            polled = self._consumer.poll(timeout_ms=timeout_ms)
        changes: list[Change] = []
        for place, records in polled.items():
            if place.topic == self._settings.topics.policies:
                for record in records:
                    self.book.apply_policy(record.offset, record.key, record.value)
                continue
            applied = (self.book.apply(record.key, record.value) for record in records)
            changes += [change for change in applied if change is not None]
        self._changes += len(changes)
        if self._changes > max(SWEEP_MIN, len(self.book)):
            self.book.sweep()
            self._changes = 0
        return changes

    def catch_up(self) -> int:
        """Read everything committed so far; return the number of prices known."""
        with broker_errors(self._settings.kafka):
            ends = self._consumer.end_offsets(self._prices)
            while any(self._consumer.position(place) < end for place, end in ends.items()):
                self.poll()
        self.book.sweep()
        return len(self.book)

    def __iter__(self) -> Iterator[Change]:
        """Yield changes for ever, as they are committed."""
        while True:
            yield from self.poll()

    def price(self, user: str, item: str, *, now_ms: int | None = None) -> PriceUpdate | None:
        """Return the price that holds, or None: then the public list price does. See `PriceBook.price`."""
        return self.book.price(user, item, now_ms=now_ms)
