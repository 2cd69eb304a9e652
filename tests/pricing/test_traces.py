"""Which published records an erasure takes back: the user's, up to the request, by the last record of each key."""

from __future__ import annotations

import json

import pytest

from pricing.erasure import Erasure, erasure_key
from pricing.traces import Traces


def key(user: str, other: str) -> bytes:
    return json.dumps([user, other]).encode()


def value(version: int) -> bytes:
    return json.dumps({"record": "decision", "version": version}).encode()


@pytest.mark.parametrize(
    ("records", "taken_back"),
    [
        ([(key("ann", "d1"), value(3)), (key("ann", "d2"), value(10))], [key("ann", "d1"), key("ann", "d2")]),
        ([(key("bob", "d1"), value(3))], []),
        ([(key("ann", "d1"), value(11))], []),
        ([(key("ann", "lamp"), value(3)), (key("ann", "lamp"), value(12))], []),
        ([(key("ann", "lamp"), value(3)), (key("ann", "lamp"), None)], []),
        ([(key("ann", "d1"), b'{"record":"late","user":"ann"}')], [key("ann", "d1")]),
        ([(key("ann", "d1"), b"no JSON")], [key("ann", "d1")]),
        ([(None, value(1)), (b"ann", value(1)), (b"\xff\xffledger", value(1)), (b"[1]", None)], []),
    ],
    ids=[
        "those up to the request",
        "not another user's",
        "not those of after it",
        "not a price that a later one replaces",
        "not what is taken back already",
        "those without a version",
        "those that nobody can read",
        "not what is no key of ours",
    ],
)
def test_an_erasure_takes_back(records, taken_back):
    traces = Traces({erasure_key(b"ann"): Erasure(10, 0)})
    for one in records:
        traces.see("decisions", *one)
    assert list(traces.keys["decisions"]) == taken_back


def test_topics_are_told_apart():
    traces = Traces({erasure_key(b"ann"): Erasure(10, 0)})
    traces.see("decisions", key("ann", "x"), value(1))
    traces.see("outcomes", key("ann", "x"), None)
    assert list(traces.keys["decisions"]) == [key("ann", "x")]
