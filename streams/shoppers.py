"""Simulated shoppers on a real Kafka: their events go to the input topics, the prices that workers publish come back to them.

In lock-step: what happens within the shoppers' reaction time is sent together, then every price of it is waited for, so what they
do depends on prices and not on how fast those come. Time is the events' own, and runs as fast as workers do. With a learner
beside the workers the loop is closed. Not here: who they are (contracts.people finds them), pricing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Self

from kafka import KafkaProducer, TopicPartition

from contracts.errors import BrokerUnavailable
from contracts.ids import partition_of
from contracts.intake import ARRIVAL_HEADER
from contracts.log import Addresses
from contracts.log_rows import EventRow, event_value, item_record_key, item_value
from contracts.outcomes import decode_outcome
from contracts.people import People
from contracts.prices import PriceUpdate
from streams.broker import SCHEMA_HEADER, broker_errors, partitions_of, producing, reading, require_topics
from streams.settings import Settings
from streams.subscriber import PriceSubscriber

PATIENCE_S = 60.0
KNOCK_S = 1.0
"""Between two looks at whether the workers price yet."""
LINE_EVERY_S = 5.0

Asked = tuple[str | None, str | None, int | None]
"""User, item and event time: what a price update answers."""


class ShopFront:
    """The shop's side of Kafka. Use as a context manager."""

    def __init__(self, settings: Settings, patience_s: float = PATIENCE_S) -> None:
        """Prepare.

        Args:
            settings: where Kafka is, and its topics.
            patience_s: how long to wait for prices before giving up.
        """
        self._settings = settings
        self._patience_s = patience_s
        self._addresses = Addresses(settings.topics.topology)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        """Connect; only what is published from now on is read.

        Raises:
            BrokerUnavailable: no broker answers. BadSettings: a topic is missing, or access is refused.
        """
        settings = self._settings
        with ExitStack() as opened:
            self._producer: KafkaProducer = opened.enter_context(producing(settings))
            self._prices = opened.enter_context(PriceSubscriber(settings, clock="stream", start="end"))
            self._outcomes = opened.enter_context(reading(settings))
            topic = settings.topics.outcomes
            places = partitions_of({topic: require_topics(settings, [topic])[topic]})
            self._outcomes.assign(places)
            self._outcomes.seek_to_end(*places)
            for place in places:
                self._outcomes.position(place)  # looks the offset up now
            self._exit = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def stock(self, people: People) -> None:
        """Publish the catalogue of `people`."""
        topic = self._settings.topics.catalogue
        for row in people.catalogue():
            self._producer.send(
                topic, key=item_record_key(row), value=item_value(row), partition=0, headers=[SCHEMA_HEADER]
            )
        self._producer.flush()

    def serve(self, people: People, say: Callable[[str], None]) -> None:
        """Let everybody come, act, and go; until every draw has resolved.

        Raises:
            BrokerUnavailable: a price or an outcome did not come in time.
        """
        first_ms = people.next_ms()
        if first_ms is None:
            return
        self._knock(people, first_ms)
        now_ms, spoken = first_ms, time.monotonic()
        while (now := people.next_ms()) is not None:
            now_ms = now
            self._exchange(people, people.until(now + people.react_ms))
            self._hear(people, 0)
            if time.monotonic() - spoken > LINE_EVERY_S:
                say(people.line())
                spoken = time.monotonic()
        self._close(people, now_ms + people.react_ms + self._settings.engine_semantics.outcome_window_ms)

    def _exchange(self, people: People, rows: list[EventRow]) -> None:
        """Send events and wait for the price of each."""
        open_asks = Counter((row.user, row.item, row.event_time_ms) for row in rows if row.type != "consent")
        self._send(rows)
        ends = time.monotonic() + self._patience_s
        while open_asks:
            for change in self._prices.poll(timeout_ms=100):
                if isinstance(change, PriceUpdate):
                    people.told(change)
                    _strike(open_asks, (change.user, change.item, change.valid_from_ms))
            if time.monotonic() > ends:
                user, item, at_ms = next(iter(open_asks))
                raise BrokerUnavailable(
                    f"No price came for the event of {user} with {item} at {at_ms} within {self._patience_s:.0f} s: see that "
                    "workers run, with these topics, and whether the event is among the dead letters"
                )

    def _send(self, rows: Iterable[EventRow]) -> None:
        sources = self._settings.topics.topology.sources
        for row in rows:
            source, partition, _, key = self._addresses.of(row)
            headers = [(ARRIVAL_HEADER, b"%d" % row.arrival_ms), SCHEMA_HEADER]
            self._producer.send(sources[source], key=key, value=event_value(row), partition=partition, headers=headers)
        with broker_errors(self._settings.kafka):
            self._producer.flush(self._patience_s)

    def _hear(self, people: People, timeout_ms: int) -> None:
        """Pass on the outcomes that have come."""
        with broker_errors(self._settings.kafka):
            polled: dict[TopicPartition, list[object]] = self._outcomes.poll(timeout_ms=timeout_ms)
        for records in polled.values():
            for record in records:
                people.resolved(decode_outcome(record.value))  # type: ignore[attr-defined]  # kafka-python ships no types

    def _knock(self, people: People, first_ms: int) -> None:
        """Wait until the workers of every partition know the catalogue: somebody unknown looks at an item until it is priced."""
        item = people.catalogue()[0]
        ends = time.monotonic() + self._patience_s
        closed = set(_nobodies("first", self._settings.topics.topology.partitions))
        while closed:
            self._send(
                EventRow(
                    "view", event_id=f"{user}-{time.time_ns()}", user=user, item=item.item, event_time_ms=first_ms - 1,
                    price=item.list_price, currency=people.currency, arrival_ms=first_ms - 1,
                )
                for user in sorted(closed)
            )  # fmt: skip
            until = time.monotonic() + KNOCK_S
            while closed and time.monotonic() < until:
                closed -= {change.user for change in self._prices.poll(timeout_ms=100)}
            if time.monotonic() > ends:
                raise BrokerUnavailable(
                    f"No worker priced anything within {self._patience_s:.0f} s, on {len(closed)} partitions: start workers "
                    "with these topics, and see their log"
                )

    def _close(self, people: People, at_ms: int) -> None:
        """End the windows of all draws, and wait for what became of them."""
        users = _nobodies("last", self._settings.topics.topology.partitions)
        self._send(
            EventRow("consent", user=user, granted=False, event_time_ms=at_ms, arrival_ms=at_ms) for user in users
        )
        ends = time.monotonic() + self._patience_s
        while people.waiting():
            self._hear(people, 100)
            if time.monotonic() > ends:
                raise BrokerUnavailable(
                    f"{people.waiting()} draws did not resolve: see that workers of all partitions run"
                )


def _strike(open_asks: Counter[Asked], ask: Asked) -> None:
    """Take one of `ask` off the list."""
    if open_asks[ask] > 1:
        open_asks[ask] -= 1
    else:
        open_asks.pop(ask, None)


def _nobodies(word: str, partitions: int) -> list[str]:
    """Return a user on every partition, who is no shopper."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        user = f"{word}-of-all-{number}"
        found.setdefault(partition_of(user.encode(), partitions), user)
        number += 1
    return [found[partition] for partition in range(partitions)]
