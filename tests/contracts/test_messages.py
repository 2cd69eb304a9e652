"""The messages: equal ones give equal bytes, bytes give them back, unknown fields do no harm, and money is an integer."""

from __future__ import annotations

import json
import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.decisions import Applied, Source, decision_key, decode_decision, encode_decision
from contracts.events import Click, Consent, Purchase, View, decode_event, encode_event, event_key
from contracts.json_schemas import MESSAGES
from contracts.prices import decode_price, price_key

ids = st.text(min_size=1, max_size=128)
times = st.integers(946_684_800_000, 4_102_444_800_000)
prices = st.integers(1, 10_000_000_000)
shop = {"event_id": ids, "user": ids, "item": ids, "event_time_ms": times, "price": prices, "currency": st.just("USD")}
events = st.one_of(
    st.builds(View, **shop, dwell_ms=st.none() | st.integers(0, 86_400_000), query=st.none() | st.text(max_size=512)),
    st.builds(Click, **shop, action=st.text(min_size=1, max_size=32)),
    st.builds(Purchase, **shop, quantity=st.integers(1, 10_000)),
    st.builds(Consent, user=ids, granted=st.booleans(), event_time_ms=times),
)


@given(events)
def test_an_event_survives_its_bytes(event):
    assert decode_event(encode_event(event)) == event
    assert event_key(event) == event.user.encode()


@given(events)
def test_fields_of_a_later_version_are_ignored(event):
    later = json.loads(encode_event(event)) | {"some_new_field": {"deep": [1]}}
    assert decode_event(json.dumps(later).encode()) == event


def test_what_was_applied_without_a_decision_is_told_apart():
    applied = Applied(
        decision_id="d", user="u", version=3, outcome="consent", policies_seen=1, catalogue_seen=2,
        source=Source("views", 0, 9),
    )  # fmt: skip
    assert decode_decision(encode_decision(applied)) == applied
    assert decision_key(None, "d") == b'["","d"]'


def test_keys_are_json_arrays_so_that_no_separator_can_collide():
    assert price_key("a,b", "c") == b'["a,b","c"]'
    assert price_key("a", "b,c") != price_key("a,b", "c")


MONEY = {"price", "list_price", "cost", "floor", "ceiling", "map_price"}


@pytest.mark.parametrize("name", MESSAGES)
def test_money_is_never_a_float(name):
    hints = typing.get_type_hints(MESSAGES[name])
    for field in MONEY & hints.keys():
        assert float not in {hints[field], *typing.get_args(hints[field])}


def test_a_price_update_with_a_float_price_is_refused():
    with pytest.raises(msgspec.ValidationError, match=r"got `float` - at `\$.price`"):
        decode_price(b'{"decision_id":"d","user":"u","item":"i","market":null,"currency":"USD","price":9.5}')
