"""Bad input through a real worker: each record to the dead letters with its reason, and the stream goes on.

One worker takes the whole table in one go; every row is a test of its own.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from deployment import Deployment

from contracts.decisions import decode_decision
from contracts.ids import partition_of
from contracts.intake import REMEDIES
from contracts.prices import decode_price
from streams.broker import producing
from streams.dead_letters import DeadLetter, read_dead_letter

PARTITIONS = 2
NOW_MS = int(time.time() * 1000)
VIEW = {
    "type": "view", "event_id": "e", "user": "ann", "item": "kettle", "event_time_ms": NOW_MS, "price": 3_999,
    "currency": "USD",
}  # fmt: skip
PURCHASE = VIEW | {"type": "purchase", "quantity": 1}


class Bad(NamedTuple):
    """A record and the code it must be refused with."""

    code: str
    value: bytes | None
    topic: str = "views"
    key: bytes | None = b"ann"
    partition: int = partition_of(b"ann", PARTITIONS)


def event(base: dict[str, Any] = VIEW, /, without: str = "", **changes: Any) -> bytes:
    return msgspec.json.encode({name: value for name, value in (base | changes).items() if name != without})


TABLE = {
    "broken JSON": Bad("not_json", b'{"type": "view", "user": '),
    "no text at all": Bad("not_json", b"\x00\xff\xfe\x80"),
    "an empty value": Bad("not_json", b""),
    "JSON nested ten thousand deep": Bad("not_json", b'{"type": "view", "more": ' + b"[" * 10_000),
    "JSON nested ten thousand deep, without a key": Bad("not_json", event()[:-1] + b', "more": ' + b"[" * 10_000, key=None),
    "a byte order mark": Bad("not_json", b"\xef\xbb\xbf" + event()),
    "half a surrogate pair": Bad("not_json", event().replace(b"kettle", b"\\ud800")),
    "no number": Bad("not_json", event().replace(b"3999", b"NaN")),
    "a price beyond any number": Bad("bad_field", event().replace(b"3999", b"1e400")),
    "a price of minus nothing": Bad("bad_field", event().replace(b"3999", b"-0")),
    "a time with a fraction": Bad("bad_field", event(event_time_ms=NOW_MS + 0.5)),
    "a currency in small letters": Bad("unknown_currency", event(currency="usd")),
    "the year 2262": Bad("bad_field", event(event_time_ms=9_223_372_036_854)),
    "invalid UTF-8 inside a string": Bad("not_json", event().replace(b"kettle", b"k\xffttle")),
    "a list instead of an object": Bad("bad_field", b"[]"),
    "a null value": Bad("null_value", None),
    "an unknown type of event": Bad("bad_field", event(type="refund")),
    "no type": Bad("bad_field", event(without="type")),
    "a price in words": Bad("bad_field", event(price="cheap")),
    "a price with a fraction": Bad("bad_field", event(price=39.99)),
    "a negative price": Bad("bad_field", event(price=-1)),
    "a price of zero": Bad("bad_field", event(price=0)),
    "an absurd price": Bad("bad_field", event(price=10**15)),
    "a price beyond 64 bits": Bad("bad_field", event(price=10**30)),
    "no price": Bad("bad_field", event(without="price")),
    "no event id": Bad("bad_field", event(without="event_id")),
    "no user": Bad("bad_field", event(without="user")),
    "no item": Bad("bad_field", event(without="item")),
    "an empty item": Bad("bad_field", event(item="")),
    "a user id that is a number": Bad("bad_field", event(user=7)),
    "an item id of 1,000 characters": Bad("bad_field", event(item="k" * 1_000)),
    "a time in seconds": Bad("bad_field", event(event_time_ms=NOW_MS // 1_000)),
    "a quantity of zero": Bad("bad_field", event(PURCHASE, quantity=0), "purchases"),
    "consent in words": Bad("bad_field", event({"type": "consent", "user": "ann", "event_time_ms": NOW_MS},
                                               granted="yes"), "consents"),
    "an unknown currency": Bad("unknown_currency", event(currency="XTS")),
    "the far future": Bad("future", event(event_time_ms=NOW_MS + 365 * 86_400_000)),
    "hours in the future": Bad("future", event(event_time_ms=NOW_MS + 6 * 3_600_000)),  # also an hour after the import
    "a string of 1 MB": Bad("too_large", event(query="q" * 1_000_000)),
    "a purchase on the topic of views": Bad("wrong_topic", event(PURCHASE)),
    "a view on the topic of consents": Bad("wrong_topic", event(), "consents"),
    "another user's key": Bad("key_mismatch", event(), key=b"bob"),
    "no key": Bad("key_mismatch", event(), key=None),
    "a key on the wrong partition": Bad("wrong_partition", event(), partition=1 - partition_of(b"ann", PARTITIONS)),
}  # fmt: skip


class Worked(NamedTuple):
    """What the worker made of the table."""

    places: dict[str, tuple[str, int, int]]
    """Case -> topic, partition, offset."""
    dead: dict[tuple[str, int, int], DeadLetter]
    outcomes: dict[tuple[str, int, int], str]
    """Of the decisions topic: what was applied without a price."""
    priced: set[str]
    """Users with a price."""


@pytest.fixture(scope="module")
def worked(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worked]:
    directory = tmp_path_factory.mktemp("bad-input")
    with Deployment(kafka, f"t{uuid.uuid4().hex[:10]}-", directory, PARTITIONS) as deployment:
        deployment.create()
        topics = deployment.settings.topics
        worker = deployment.worker()
        worker.wait_until_said("restored")
        with producing(deployment.settings) as producer:
            item = {"item": "kettle", "valid_from_ms": 0, "title": "Kettle", "category": "kitchen", "brand": "Elm",
                    "currency": "USD", "list_price": 3_999}  # fmt: skip
            producer.send(topics.catalogue, msgspec.json.encode(item), b'["kettle",0]').get(10)
            sent = {
                case: producer.send(getattr(topics, bad.topic), bad.value, bad.key, partition=bad.partition)
                for case, bad in TABLE.items()
            }
            places = {case: (meta.topic, meta.partition, meta.offset)
                      for case, future in sent.items() for meta in [future.get(30)]}  # fmt: skip
            for user in ("ann", "bob", "cid", "dee"):
                good, key = event(user=user, event_id="good"), user.encode()
                producer.send(topics.views, good, key, partition=partition_of(key, PARTITIONS)).get(30)
        deployment.wait_until_applied()
        assert worker.process.poll() is None, worker.said()
        yield _read(deployment, places)


def _read(deployment: Deployment, places: dict[str, tuple[str, int, int]]) -> Worked:
    topics = deployment.settings.topics
    read = [
        read_dead_letter(one.key, one.value, one.headers, f"{one.partition}/{one.offset}")
        for records in deployment.committed(topics.dead_letters)
        for one in records
    ]
    records = [decode_decision(one.value) for some in deployment.committed(topics.decisions) for one in some]
    prices = [decode_price(one.value) for some in deployment.committed(topics.price_updates) for one in some]
    return Worked(
        places,
        {(letter.topic, letter.partition, letter.offset): letter for letter in read if letter is not None},
        {(r.source.topic, r.source.partition, r.source.offset): getattr(r, "outcome", "") for r in records},
        {price.user for price in prices},
    )


@pytest.mark.parametrize("case", TABLE)
def test_a_bad_record_becomes_a_dead_letter_with_its_reason_and_its_bytes(worked, case):
    bad, letter = TABLE[case], worked.dead[worked.places[case]]
    assert letter.code == bad.code
    assert letter.remedy == REMEDIES[bad.code]
    assert letter.message
    assert letter.key == bad.key
    value = bad.value or b""
    assert letter.digest == hashlib.sha256(value).hexdigest()
    assert letter.length == len(value)
    if letter.truncated:
        assert len(value) > 800_000
        assert value.startswith(letter.value)
    else:
        assert letter.value == bad.value


@pytest.mark.parametrize("case", TABLE)
def test_a_bad_record_has_its_place_in_the_applied_order(worked, case):
    assert worked.outcomes[worked.places[case]] == f"dead_letter:{TABLE[case].code}"


def test_the_stream_goes_on_behind_them_on_every_partition(worked):
    assert worked.priced == {"ann", "bob", "cid", "dee"}


def test_nothing_else_is_refused(worked):
    assert worked.dead.keys() == set(worked.places.values())
