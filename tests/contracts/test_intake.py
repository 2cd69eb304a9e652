"""contracts.intake: which records are refused, for which reason; and that nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.ids import partition_of
from contracts.intake import REMEDIES, Intake, refuse
from contracts.semantics import Semantics, Topology

SEMANTICS = Semantics(consent_default=False)
TOPOLOGY = Topology(partitions=4)
USER = "u1"
KEY = USER.encode()
PARTITION = partition_of(KEY, 4)
NOW = 1_700_000_000_000
VIEW = 1
"""Source index of the topic of views."""

GOOD = {
    "type": "view",
    "event_id": "e",
    "user": USER,
    "item": "i",
    "event_time_ms": NOW,
    "price": 100,
    "currency": "USD",
}


def read(value, *, source=VIEW, key=KEY, partition=PARTITION, arrival_ms=NOW, topology=TOPOLOGY):
    if isinstance(value, dict):
        value = json.dumps(value).encode()
    return Intake(SEMANTICS, topology, partition).read(source, 7, key, value, arrival_ms)


def changed(**fields):
    return GOOD | fields


def without(field):
    return {name: value for name, value in GOOD.items() if name != field}


REFUSED = {
    "null value": (None, {}, "null_value", "no value"),
    "broken JSON": (b'{"type": "view", ', {}, "not_json", "truncated"),
    "no JSON at all": (b"\x00\x01\x02", {}, "not_json", "malformed"),
    "broken UTF-8": (b'{"type":"view","event_id":"\xff"}', {}, "not_json", ""),
    "empty value": (b"", {}, "not_json", "truncated"),
    "a number, no object": (b"17", {}, "bad_field", "Expected `object`"),
    "deep nesting": (b'{"type":"view","more":' + b"[" * 5_000 + b"]" * 5_000 + b"}", {}, "not_json", "brackets within brackets"),
    "a string for the price": (changed(price="100"), {}, "bad_field", "$.price"),
    "a float for the price": (changed(price=99.99), {}, "bad_field", "$.price"),
    "a negative price": (changed(price=-1), {}, "bad_field", "$.price"),
    "a price of zero": (changed(price=0), {}, "bad_field", "$.price"),
    "an absurd price": (changed(price=10**15), {}, "bad_field", "$.price"),
    "a price beyond 64 bits": (changed(price=10**30), {}, "bad_field", "$.price"),
    "unknown currency": (changed(currency="XAU"), {}, "unknown_currency", "'XAU'"),
    "no currency at all": (without("currency"), {}, "bad_field", "currency"),
    "missing event id": (without("event_id"), {}, "bad_field", "event_id"),
    "missing user": (without("user"), {}, "bad_field", "user"),
    "missing item": (without("item"), {}, "bad_field", "item"),
    "an empty user": (changed(user=""), {}, "bad_field", "$.user"),
    "a null item": (changed(item=None), {}, "bad_field", "$.item"),
    "an id beyond its length": (changed(item="i" * 129), {}, "bad_field", "$.item"),
    "a string of 1 MB": (changed(query="q" * 1_000_000), {}, "too_large", "1000"),
    "unknown event type": (changed(type="stare"), {}, "bad_field", "stare"),
    "no event type": (without("type"), {}, "bad_field", "type"),
    "seconds in place of ms": (changed(event_time_ms=NOW // 1000), {}, "bad_field", "$.event_time_ms"),
    "the far future": (changed(event_time_ms=NOW + 86_400_000), {}, "future", "86400000 ms after"),
    "a quantity of zero": (changed(type="purchase", quantity=0), {"source": 3}, "bad_field", "$.quantity"),
    "a wrong topic": (GOOD, {"source": 2}, "wrong_topic", "'clicks'"),
    "a key of somebody else": (GOOD, {"key": b"u2"}, "key_mismatch", "u2"),
    "no key": (GOOD, {"key": None}, "key_mismatch", "None"),
    "a key on the wrong partition": (GOOD, {"partition": (PARTITION + 1) % 4}, "wrong_partition", f"on {(PARTITION + 1) % 4}"),
}  # fmt: skip


@pytest.mark.parametrize(("value", "where", "code", "says"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_with_a_code_a_reason_and_a_remedy(value, where, code, says):
    inbound = read(value, **where)
    assert inbound.event is None
    assert inbound.error is not None
    assert inbound.error.code == code
    assert says in inbound.error.message
    assert inbound.error.remedy == REMEDIES[code]
    assert inbound.order_ms == -1


def test_a_refused_record_keeps_its_bytes_and_position():
    inbound = read(b"rubbish")
    assert (inbound.source, inbound.offset, inbound.key, inbound.value) == (VIEW, 7, KEY, b"rubbish")


@pytest.mark.parametrize(("value", "where", "code", "says"), REFUSED.values(), ids=REFUSED)
def test_a_refused_record_keeps_no_frame_alive_and_so_no_batch(value, where, code, says):
    error = read(value, **where).error
    assert (error.__traceback__, error.__context__, error.__cause__) == (None, None, None)


def test_a_good_record_becomes_its_event_in_its_place_in_time():
    inbound = read(GOOD)
    assert inbound.error is None
    assert inbound.event.event_id == "e"
    assert inbound.order_ms == NOW


def test_unknown_fields_are_ignored():
    assert read(changed(colour="red")).error is None


def test_an_event_may_lie_after_its_arrival_by_the_allowed_skew_and_not_by_more():
    assert read(GOOD, arrival_ms=NOW - SEMANTICS.skew_max_ms).error is None
    assert read(GOOD, arrival_ms=NOW - SEMANTICS.skew_max_ms - 1).error.code == "future"


def test_a_record_of_exactly_the_greatest_size_is_read():
    padding = SEMANTICS.event_bytes_max - len(json.dumps(changed(more="")).encode())
    assert read(changed(more="x" * padding)).error is None
    assert read(changed(more="x" * (padding + 1))).error.code == "too_large"


def test_one_topic_may_carry_every_kind():
    one = Topology(partitions=4, consents="all", views="all", clicks="all", purchases="all")
    consent = {"type": "consent", "user": USER, "granted": True, "event_time_ms": NOW}
    for value in (GOOD, changed(type="click"), changed(type="purchase"), consent):
        assert read(value, source=0, topology=one).error is None


def test_every_code_has_a_remedy_and_nothing_else_can_be_refused():
    with pytest.raises(KeyError):
        refuse("whatever", "message")
    assert {code for _, _, code, _ in REFUSED.values()} | {"crashed"} == set(REMEDIES)


@given(st.binary(max_size=200) | st.none(), st.binary(max_size=8) | st.none(), st.integers(0, 3))
def test_no_bytes_ever_raise(value, key, source):
    inbound = read(value, key=key, source=source)
    assert (inbound.event is None) != (inbound.error is None)
