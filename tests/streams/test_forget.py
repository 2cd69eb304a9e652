"""Where a person still appears: records that name them, told apart from those of others, and by what removes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from contracts.errors import BadInput
from pricing.erasure import Erasure
from pricing.timers import key_of
from streams.forget import Appearance, Report, Search, request_erasure
from streams.forget_commands import verdict
from streams.settings import load_settings

ERASED = Erasure(10, 0, done=True)
STATE, DRAW = b"\x01state", b'\x95\x01["ann","d1"] {"draw_id":"d1","user":"ann"}'


def record(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes], partition: int = 0) -> Any:
    return SimpleNamespace(partition=partition, key=key, value=value, headers=headers)


def found(*records: Any, erasure: Erasure | None = ERASED, changelog: bool = False, compacted: bool = True):
    search = Search("ann", erasure, changelog, home=0)
    search.see(records)
    shown = search.appearance("topic", compacted)
    return shown.left, shown.taken_back, shown.since


@pytest.mark.parametrize(
    ("one", "named"),
    [
        (record(b"ann", b"{"), True),
        (record(b'["ann","d1"]', b"{}"), True),
        (record(None, b'{"type":"view", "user" : "ann"}'), True),
        (record(None, b"broken", ("dlq-message", b"The key is b'ann', the user is 'bob'")), True),
        (record(b"anna", b'{"user":"anna","item":"ann"}'), False),
        (record(b'["bob","ann"]', b'{"user":"bob","query":"ann"}'), False),
    ],
    ids=["its key", "the first of its key", "its user", "a header", "a longer id", "an item or a query"],
)
def test_a_record_names_a_user_by(one, named):
    assert found(one, erasure=None) == ((1, 0, 0) if named else (0, 0, 0))


def test_published_records_are_left_until_a_tombstone_and_those_of_after_the_request_are_since():
    before, after = record(b'["ann","d1"]', b'{"version":3}'), record(b'["ann","d2"]', b'{"version":11}')
    assert found(before, after) == (1, 0, 1)
    assert found(before, after, record(b'["ann","d1"]', None)) == (0, 1, 1)
    assert found(before, record(b'["ann","d1"]', b'{"version":12}')) == (0, 1, 1), "a later record replaces it"


def test_on_the_changelog_a_state_is_of_after_the_erasure_and_draws_have_their_version():
    state, gone = record(b"ann", STATE), record(b"ann", None)
    assert found(state, gone, changelog=True) == (0, 1, 0)
    assert found(state, gone, state, changelog=True) == (0, 1, 1)
    old, new = record(key_of((5, 4)), DRAW), record(key_of((5, 11)), DRAW)
    assert found(old, new, changelog=True) == (1, 0, 1)
    assert found(old, record(key_of((5, 4)), b"\x95\x01\xc4\x00"), changelog=True) == (0, 1, 0), "overwritten"
    assert found(state, old, erasure=None, changelog=True) == (2, 0, 0)


def test_what_is_not_compacted_is_left_whatever_came_later():
    view = record(b"ann", b'{"user":"ann"}')
    assert found(view, view, compacted=False) == (2, 0, 0)


def test_what_came_on_another_partition_is_told_apart_for_its_owner_cannot_take_it_back():
    search = Search("ann", ERASED, changelog=False, home=0)
    astray = record(b'["ann","views/1/7"]', b"{", partition=1)
    search.see([record(b'["ann","d1"]', b'{"version":3}'), record(b'["ann","d1"]', None)])
    search.see(
        [astray, record(b'["ann","views/1/8"]', b"{", partition=1), record(b'["ann","views/1/8"]', None, partition=1)]
    )
    shown = search.appearance("dead-letters", compacted=True)
    assert (shown.left, shown.taken_back, shown.since, shown.elsewhere) == (0, 2, 0, 1)
    assert Report(user="ann", requested=True, carried_out=True, topics=[shown]).clean


@pytest.mark.parametrize(("user", "time_ms"), [("", 1_572_566_400_000), ("u" * 129, 1_572_566_400_000), ("ann", 7)])
def test_a_request_that_no_worker_would_take_is_refused_before_it_is_sent(user, time_ms):
    with pytest.raises(BadInput, match="No worker would take the request"):
        request_erasure(load_settings(), user, time_ms)


@pytest.mark.parametrize(
    ("carried_out", "left", "compacted", "clean", "says"),
    [
        (True, 0, True, True, "is carried out; what stands above"),
        (True, 1, False, True, "is carried out; what stands above"),
        (True, 1, True, False, "records of before it are left"),
        (False, 1, True, False, "is under way"),
    ],
)
def test_the_report_is_clean_when_only_inputs_hold_something(carried_out, left, compacted, clean, says):
    topic = Appearance(topic="t", compacted=compacted, left=left, taken_back=3, since=1)
    report = Report(user="ann", requested=True, carried_out=carried_out, topics=[topic])
    assert report.clean == clean
    assert says in verdict(report)
    assert "No erasure of 'ann'" in verdict(Report(user="ann", requested=False, carried_out=False, topics=[]))
