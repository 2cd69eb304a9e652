"""contracts.digest: what it depends on, and what it refuses."""

from __future__ import annotations

import hashlib
import json

import pytest

from contracts.digest import PublishedDigest
from contracts.errors import BadInput


def digest_of(records):
    published = PublishedDigest()
    for key, value in records:
        published.add(key, value)
    return published.hexdigest()


def update(user, version, item="i", **more):
    key = json.dumps([user, item]).encode()
    return key, json.dumps({"user": user, "version": version, "item": item} | more).encode()


def test_the_digest_is_what_the_documentation_says():
    key, value = update("ü", 1)
    inner = hashlib.sha256(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value).digest()
    assert digest_of([(key, value)]) == hashlib.sha256(b"\x00\x00\x00\x02" + "ü".encode() + inner).hexdigest()


def test_partitions_may_interleave_in_any_way():
    a, b, c = update("a", 1), update("a", 2), update("b", 1)
    assert digest_of([a, b, c]) == digest_of([c, a, b]) == digest_of([a, c, b])


@pytest.mark.parametrize(
    "other",
    [
        [update("a", 1)],
        [update("a", 1), update("a", 2, price=6)],
        [update("a", 1), update("a", 3, price=5)],
        [update("a", 1), update("b", 2, price=5)],
        [update("a", 1, "j"), update("a", 2, price=5)],
    ],
    ids=["one missing", "another price", "another version", "another user", "another item"],
)
def test_any_difference_shows(other):
    assert digest_of(other) != digest_of([update("a", 1), update("a", 2, price=5)])


def test_a_users_records_out_of_order_are_an_error():
    with pytest.raises(BadInput, match="version 1 of item 'i' comes after version 2"):
        digest_of([update("a", 2), update("a", 1)])


def test_a_record_twice_is_an_error():
    with pytest.raises(BadInput, match="every record once"):
        digest_of([update("a", 2), update("a", 2)])


def test_one_version_may_hold_several_items():
    published = PublishedDigest()
    for item in ("a", "b"):
        published.add(*update("u", 1, item))
    assert published.records == 2


def test_what_is_no_record_of_ours_is_an_error():
    with pytest.raises(BadInput, match="neither a price update nor a decision"):
        digest_of([(b"k", b"rubbish")])
