"""A dead letter keeps the original, says where it stood, and is bounded."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.intake import Inbound, refuse
from streams.dead_letters import KEY_BYTES_MAX, TRACEBACK, dead_letter, read_dead_letter


def inbound(value: bytes | None, key: bytes | None = b"user") -> Inbound:
    return Inbound(-1, 2, 17, None, None, key, value, 1_700_000_000_000)


def written_and_read(record: Inbound, bytes_max: int = 1_000):
    key, value, headers = dead_letter(record, refuse("bad_field", "price is -1"), "clicks", 3, bytes_max)
    return read_dead_letter(key, value, headers, "3/40")


def test_a_dead_letter_gives_back_the_original_and_its_place():
    letter = written_and_read(inbound(b'{"type": "click"}'))
    assert (letter.key, letter.value, letter.truncated) == (b"user", b'{"type": "click"}', False)
    assert (letter.source, letter.arrival_ms, letter.place) == ("clicks/3/17", 1_700_000_000_000, "3/40")
    assert (letter.code, letter.message) == ("bad_field", "price is -1")
    assert "contracts/schemas" in letter.remedy


@pytest.mark.parametrize(
    ("key", "value", "user"),
    [
        (b"ann", b"{", "ann"),
        (b"ann", b'{"user": "bob"}', "ann"),
        (None, b'{"user": "bob"}', "bob"),
        (None, b'{"user": 7}', ""),
        (None, None, ""),
        (b"\xff", b"{}", ""),
        (b"k" * 600, b"{}", ""),
        (None, b'{"user": "%b"}' % (b"u" * 600), ""),
        (None, b'{"user": "bob", "more": ' + b"[" * 10_000, ""),
    ],
    ids=[
        "its key",
        "its key before its value",
        "its value",
        "no name",
        "nothing",
        "no text",
        "a long key",
        "a long name",
        "nothing that can be read to its end",
    ],
)
def test_a_dead_letter_is_keyed_by_whom_it_is_about_as_far_as_it_says(key, value, user):
    letter_key, _, _ = dead_letter(inbound(value, key), refuse("not_json", "x"), "clicks", 3, 10_000)
    assert json.loads(letter_key) == [user, "clicks/3/17"]


@pytest.mark.parametrize("key", [b"user", None, b'["user","d1"]'])
def test_a_dead_letter_of_an_earlier_release_has_the_original_key_as_its_own(key):
    _, value, headers = dead_letter(inbound(b"{}"), refuse("bad_field", "x"), "clicks", 3, 1_000)
    old = [(name, content) for name, content in headers if name != "dlq-key"]
    assert read_dead_letter(key, value, old, "3/40").key == key


def test_a_null_value_comes_back_as_null_and_an_empty_one_as_empty():
    assert written_and_read(inbound(None)).value is None
    assert written_and_read(inbound(b"")).value == b""


def test_a_null_value_is_no_tombstone_on_the_topic():
    _, value, _ = dead_letter(inbound(None), refuse("null_value", "x"), "views", 0, 100)
    assert value == b""


def test_a_record_that_is_too_large_is_cut_and_its_digest_is_of_the_whole():
    whole = bytes(range(256)) * 8
    letter = written_and_read(inbound(whole), bytes_max=1_000)
    assert letter.truncated
    assert letter.value == whole[: 1_000 - len(b"user") - len(b'["user","clicks/3/17"]')]
    assert letter.length == len(whole)
    assert letter.digest == hashlib.sha256(whole).hexdigest()


def test_an_absurd_key_is_cut_and_the_dead_letter_cannot_be_replayed():
    letter = written_and_read(inbound(b"{}", key=b"k" * 1_000_000), bytes_max=100_000)
    assert letter.truncated
    assert letter.key == b"k" * KEY_BYTES_MAX
    assert letter.value == b"{}"


def test_a_traceback_travels_in_a_header():
    _, _, headers = dead_letter(inbound(b"{}"), refuse("crashed", "boom"), "views", 0, 100, traceback="line 1\nboom")
    assert dict(headers)[TRACEBACK] == b"line 1\nboom"


@given(
    value=st.none() | st.binary(max_size=3_000),
    key=st.none() | st.binary(max_size=6_000),
    message=st.text(max_size=2_000),
    bytes_max=st.integers(min_value=1_024, max_value=20_000),
)
def test_whatever_came_fits_its_bound_and_can_be_read_back(value, key, message, bytes_max):
    record = inbound(value, key)
    new_key, new_value, headers = dead_letter(record, refuse("not_json", message), "views", 1, bytes_max)
    assert len(new_value) + len(new_key or b"") <= max(bytes_max, KEY_BYTES_MAX)
    assert sum(len(name) + len(content) for name, content in headers) < 20_000
    letter = read_dead_letter(new_key, new_value, headers, "1/0")
    assert letter.truncated or (letter.key, letter.value) == (key, value)


@pytest.mark.parametrize(
    "headers",
    [[], [("dlq-topic", b"views")], [("dlq-topic", None)], [("dlq-partition", b"x")]],
    ids=["none", "some", "null", "text for a number"],
)
def test_a_record_of_somebody_else_is_no_dead_letter(headers):
    assert read_dead_letter(b"k", b"v", headers, "0/0") is None
