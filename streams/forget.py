"""Asking for an erasure, waiting until it is carried out, and looking where a user still appears. For people.

The request is a consent with `erase` (contracts.events); the partition's owner does the rest. Not here: that
(pricing.run, streams.eraser), how it looks (streams.forget_commands).
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal

import msgspec
from kafka import TopicPartition
from msgspec import Struct

from contracts.errors import BadInput
from contracts.events import Consent, decode_event, encode_event, event_key
from contracts.ids import partition_of
from pricing.erasure import Erasure, decode_erasure, erasure_key
from pricing.timers import PREFIX, timer_of
from pricing.traces import version_of
from streams.broker import POLL_MS, SCHEMA_HEADER, chunks_until, partitions_of, producing, reading, require_topics
from streams.settings import Settings

Progress = Callable[[str, int, int], None]
"""Called with a topic, offsets read and offsets to read."""
Fate = Literal["left", "since"]


class Appearance(Struct, kw_only=True):
    """Where a user appears on one topic, in records that can be read there now."""

    topic: str
    compacted: bool
    """Whether a tombstone takes a record back; else only the topic's retention removes it."""
    left: int
    """Records that nothing takes back."""
    taken_back: int
    """Records that a tombstone, or a later record of their key without the user, removes at the next compaction."""
    since: int
    """Records of what the user did after the erasure."""
    elsewhere: int = 0
    """Records on another partition than the user's, which its owner does not reach: they go by retention alone."""


class Report(Struct, kw_only=True):
    """What is on the topics of one user."""

    user: str
    requested: bool
    carried_out: bool
    topics: list[Appearance]

    @property
    def clean(self) -> bool:
        """Whether nothing of before the erasure is left but what is removed by compaction or retention."""
        return self.carried_out and not any(topic.left for topic in self.topics if topic.compacted)


def request_erasure(settings: Settings, user: str, event_time_ms: int) -> None:
    """Publish the request, acknowledged by all in-sync replicas.

    Raises:
        BadInput: workers would refuse it.
        BadSettings, BrokerUnavailable: as of streams.broker.
    """
    topic = settings.topics.consents
    consent = Consent(user=user, granted=False, event_time_ms=event_time_ms, erase=True)
    try:
        decode_event(encode_event(consent))
    except msgspec.ValidationError as error:
        raise BadInput(f"No worker would take the request for {user!r}: {error}. Correct the id or the time") from None
    require_topics(settings, [topic])
    key = event_key(consent)
    with producing(settings) as producer:
        sent = producer.send(
            topic,
            encode_event(consent),
            key,
            headers=[SCHEMA_HEADER],
            partition=partition_of(key, settings.topics.partitions),
        )
        sent.get(timeout=settings.kafka.request_timeout_ms / 1000)


class ErasureWatch:
    """Follows one user's erasure on the changelog."""

    def __init__(self, settings: Settings, user: str) -> None:
        self._settings = settings
        self._key = erasure_key(user.encode())
        self._place = TopicPartition(settings.topics.changelog, partition_of(user.encode(), settings.topics.partitions))
        self.erasure: Erasure | None = None

    def read(self) -> None:
        """Read the partition's changelog to its end."""
        with reading(self._settings) as consumer:
            self._begin(consumer)

    def wait(self, after: int, limit_s: float) -> bool:
        """Return whether an erasure with a version above `after` has been carried out within `limit_s` seconds."""
        ends_at = time.monotonic() + limit_s
        with reading(self._settings) as consumer:
            self._begin(consumer)
            consumer.resume(self._place)
            while not self._done(after) and time.monotonic() < ends_at:
                self._see(record for records in consumer.poll(timeout_ms=POLL_MS).values() for record in records)
        return self._done(after)

    def _begin(self, consumer: Any) -> None:  # noqa: ANN401 - kafka-python ships no types
        require_topics(self._settings, [self._place.topic])
        consumer.assign([self._place])
        consumer.seek_to_beginning(self._place)
        for chunk in chunks_until(consumer, consumer.end_offsets([self._place])):
            self._see(chunk.get(self._place, ()))

    def _see(self, records: Iterable[Any]) -> None:
        for record in records:
            if record.key == self._key and record.value is not None:
                self.erasure = decode_erasure(record.value)

    def _done(self, after: int) -> bool:
        return self.erasure is not None and self.erasure.done and self.erasure.version > after


def look_for(settings: Settings, user: str, progress: Progress = lambda _topic, _read, _total: None) -> Report:
    """Read inputs, outputs and changelog whole, on every partition, and return where `user` appears.

    Raises:
        BadSettings, BrokerUnavailable: as of streams.broker.
    """
    topics = settings.topics
    names = [*topics.topology.sources, *topics.outputs, topics.changelog]
    counts = require_topics(settings, names)
    watch = ErasureWatch(settings, user)
    watch.read()
    found = []
    for name in names:
        search = Search(user, watch.erasure, name == topics.changelog, partition_of(user.encode(), topics.partitions))
        with reading(settings) as consumer:
            places = partitions_of({name: counts[name]})
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            begun = {place: consumer.position(place) for place in places}
            for chunk in chunks_until(consumer, ends):
                for records in chunk.values():
                    search.see(records)
                read = sum(consumer.position(place) - begun[place] for place in places)
                progress(name, read, sum(ends[place] - begun[place] for place in places))
        compacted = name not in topics.topology.sources
        found.append(search.appearance(name, compacted))
    erasure = watch.erasure
    return Report(
        user=user, requested=erasure is not None, carried_out=erasure is not None and erasure.done, topics=found
    )


class _Key(Struct):
    """The records of one key that name the user."""

    replaced: int = 0
    last: Fate | None = None
    """Of the last record of the key; None if that does not name the user."""


class Search:
    """The records of one topic that name a user, and what becomes of them."""

    def __init__(self, user: str, erasure: Erasure | None, changelog: bool, home: int) -> None:
        """Begin; `home` is the partition of the user."""
        quoted = re.escape(msgspec.json.encode(user))
        self._named = re.compile(rb'"user"\s*:\s*%b|\[\s*%b\s*,' % (quoted, quoted)).search
        self._in_text = re.compile(rb"'%b'|%b" % (re.escape(user.encode()), quoted)).search
        self._user = user.encode()
        self._until = None if erasure is None else erasure.version
        self._changelog = changelog
        self._home = home
        self._keys: defaultdict[tuple[int, bytes | None], _Key] = defaultdict(_Key)

    def see(self, records: Iterable[Any]) -> None:
        """Look at the next records of a partition."""
        for record in records:
            place = record.partition, record.key
            named = record.value is not None and self._names(record)
            if named or place in self._keys:
                known = self._keys[place]
                known.replaced += known.last is not None
                known.last = self._fate(record) if named else None

    def _names(self, record: Any) -> bool:  # noqa: ANN401 - kafka-python ships no types
        if record.key == self._user or self._named(record.value) or self._named(record.key or b""):
            return True
        return any(self._in_text(text) for _, text in record.headers if text is not None)

    def _fate(self, record: Any) -> Fate:  # noqa: ANN401 - as above
        if self._until is None:
            return "left"
        if not self._changelog:
            return "since" if version_of(record.value) > self._until else "left"
        if not record.key.startswith(PREFIX):
            return "since"  # a state; the erasure has deleted the one before
        return "since" if timer_of(record.key)[1] > self._until else "left"

    def appearance(self, topic: str, compacted: bool) -> Appearance:
        """Return what was found."""
        lasts = Counter(known.last for (partition, _), known in self._keys.items() if partition == self._home)
        elsewhere = sum(
            known.last is not None for (partition, _), known in self._keys.items() if partition != self._home
        )
        replaced = sum(known.replaced for known in self._keys.values())
        if not compacted:
            left = replaced + lasts["left"] + lasts["since"] + elsewhere
            return Appearance(topic=topic, compacted=False, left=left, taken_back=0, since=0)
        return Appearance(
            topic=topic,
            compacted=True,
            left=lasts["left"],
            taken_back=replaced,
            since=lasts["since"],
            elsewhere=elsewhere,
        )
