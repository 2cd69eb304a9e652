"""contracts.log_capture: a captured record and the record that its row stands for are the same to every reader."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import CatalogueItem, decode_item, encode_item, item_key
from contracts.decisions import Applied, Source
from contracts.intake import Intake
from contracts.log import Addresses, LogRecord, Manifest, catalogue_records, open_log, policy_records, records
from contracts.log_capture import applied_row, catalogue_row, event_row, policy_row
from contracts.log_rows import AppliedRow, event_value
from contracts.log_writer import LogWriter
from contracts.policies import BUILTIN, encode_policy, policy_key
from contracts.semantics import Semantics, Topology

NOW = 1_700_000_000_000
SEMANTICS = Semantics(consent_default=False, event_bytes_max=2_000)
TOPOLOGY = Topology(partitions=2)
GOOD = {"type": "view", "event_id": "e", "user": "u", "item": "i", "event_time_ms": NOW, "price": 5, "currency": "USD"}


def again(record: LogRecord) -> LogRecord:
    row = event_row(record, SEMANTICS, TOPOLOGY)
    return LogRecord(*Addresses(TOPOLOGY).of(row), event_value(row), row.arrival_ms)


def inbound_of(record: LogRecord):
    intake = Intake(SEMANTICS, TOPOLOGY, record.partition)
    return intake.read(record.source, record.offset, record.key, record.value, record.arrival_ms)


VALUES = {
    "an event": GOOD,
    "one with unknown fields": GOOD | {"more": 1},
    "another currency": GOOD | {"currency": "EUR"},
    "the far future": GOOD | {"event_time_ms": NOW + 10**9},
    "a price of zero": GOOD | {"price": 0},
    "another topic's": GOOD | {"type": "click"},
    "too large": GOOD | {"more": "x" * 3_000},
    "broken": b'{"type": "view"',
    "broken UTF-8": b"\xff\xfe",
    "null": None,
    "empty": b"",
}


@pytest.mark.parametrize("key", [b"u", b"other", b"", None])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_every_reader_sees_the_same_in_the_captured_record_and_in_its_row(value, key):
    data = json.dumps(value).encode() if isinstance(value, dict) else value
    captured = LogRecord(1, 1, 17, key, data, NOW)
    found = again(captured)
    was, now = inbound_of(captured), inbound_of(found)
    assert (found.source, found.partition, found.offset, found.arrival_ms) == (1, 1, 17, NOW)
    assert found.key == key
    assert now.event == was.event
    assert (now.error and now.error.code) == (was.error and was.error.code)
    if was.event is None and was.error.code in ("not_json", "bad_field", "too_large", "null_value", "wrong_topic"):
        assert found.value == data, "what is dead-lettered keeps its bytes"


@given(st.binary(max_size=60) | st.none(), st.binary(max_size=8) | st.none())
def test_rubbish_keeps_its_bytes(value, key):
    found = again(LogRecord(2, 0, 3, key, value, NOW))
    assert (found.key, found.value) == (key, value)


def test_reference_records_come_back(tmp_path):
    item = CatalogueItem(
        item="i", valid_from_ms=1, title="t", category="c", brand="b", currency="USD", list_price=9, ceiling=10
    )
    items = [
        (3, item_key("i", 1), encode_item(item)),
        (5, b"odd", encode_item(item)),
        (6, b"k", b"broken"),
        (8, b"k", None),
    ]
    policies = [
        (0, policy_key(BUILTIN), encode_policy(BUILTIN)),
        (2, b"p/1", None),
        (3, b"k", b"\xff"),
        (4, None, b"{}"),
    ]
    manifest = Manifest(semantics=SEMANTICS, topology=TOPOLOGY, source="a test", offers="shown")
    with LogWriter(tmp_path, manifest, "jsonl") as writer:
        writer.catalogue([catalogue_row(*record) for record in items])
        writer.policies([policy_row(*record) for record in policies])
    log = open_log(tmp_path)
    found = list(catalogue_records(log))
    assert [(r.offset, r.key) for r in found] == [(offset, key) for offset, key, _ in items]
    assert decode_item(found[0].value) == item
    assert [r.value for r in found[2:]] == [b"broken", None]
    assert [(r.offset, r.key, r.value) for r in policy_records(log)] == policies
    assert list(records(log)) == []


def test_a_decision_record_says_what_was_applied():
    source = Source("clicks", 1, 40)
    record = Applied(
        decision_id="d",
        user=None,
        version=9,
        outcome="dead_letter:crashed",
        policies_seen=2,
        catalogue_seen=3,
        source=source,
        model="0123456789abcdef",
    )
    assert applied_row(record, TOPOLOGY) == AppliedRow(1, 9, 2, 40, 2, 3, "dead_letter:crashed", "0123456789abcdef")
