"""contracts.nesting: how deep JSON may be nested does not depend on who reads it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import Catalogue
from contracts.intake import Intake
from contracts.nesting import NESTING_MAX, depth_of, shallow
from contracts.policies import PolicyBook
from contracts.semantics import Semantics, Topology

NOW_MS = 1_700_000_000_000
VIEW = {
    "type": "view", "event_id": "e", "user": "u1", "item": "i", "event_time_ms": NOW_MS, "price": 100, "currency": "USD"
}  # fmt: skip
ITEM = {
    "item": "i", "valid_from_ms": NOW_MS, "title": "", "category": "", "brand": "", "currency": "USD", "list_price": 100
}  # fmt: skip

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('ab[]{}"\\,:')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('[]{}"\\')), inner, max_size=3),
)


def naive_depth(value):
    if isinstance(value, dict):
        return 1 + max(map(naive_depth, value.values()), default=0)
    return 1 + max(map(naive_depth, value), default=0) if isinstance(value, list) else 0


def deeper(frames, call):
    """Call `call` from a stack that is deeper by so many frames."""
    return call() if frames == 0 else deeper(frames - 1, call)


def with_more(base, depth):
    """Return the JSON of `base` with a field that nobody reads, `depth` brackets deep, the object's own included."""
    return json.dumps(base).encode()[:-1] + b', "more": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@given(values, st.integers(0, NESTING_MAX))
def test_depth_is_that_of_the_parsed_value_where_it_matters(value, around):
    text = "[" * around + json.dumps(value) + "]" * around
    depth, brackets = around + naive_depth(value), text.count("[") + text.count("{")
    assert depth_of(text) == depth_of(text.encode()) == (depth if brackets > NESTING_MAX else brackets)


@pytest.mark.parametrize("depth", [2, NESTING_MAX, NESTING_MAX + 1, 900, 990, 5_000])
@pytest.mark.parametrize("frames", [0, 300])
def test_an_event_is_read_or_refused_whatever_stack_there_is_left(depth, frames):
    value = with_more(VIEW, depth)
    found = deeper(
        frames,
        lambda: Intake(Semantics(consent_default=False), Topology(partitions=1), 0).read(1, 0, b"u1", value, NOW_MS),
    )
    assert (None if found.error is None else found.error.code) == ("not_json" if depth > NESTING_MAX else None)


@pytest.mark.parametrize("frames", [0, 300])
@pytest.mark.parametrize("depth", [NESTING_MAX, NESTING_MAX + 1, 900])
def test_so_is_an_item(depth, frames):
    catalogue = Catalogue("USD")
    value = with_more(ITEM, depth)

    def apply():
        try:
            catalogue.apply(0, None, value)
        except ValueError as error:
            assert str(NESTING_MAX) in str(error)

    deeper(frames, apply)
    assert len(catalogue) == (depth <= NESTING_MAX)


def test_a_policy_has_no_fields_that_nobody_reads_and_is_refused_all_the_same():
    for depth in (2, 900, 100_000):
        with pytest.raises(ValueError):
            PolicyBook().apply(0, None, with_more({"record": "killswitch", "on": True}, depth))


def test_brackets_that_are_text_are_not_counted():
    decode = shallow(msgspec.json.Decoder(list[str]).decode)
    text = "[" * 1_000 + '"' + "{" * 1_000
    assert decode(json.dumps([text])) == [text]


def test_brackets_that_nobody_closes_are_no_json_however_many():
    decode = shallow(msgspec.json.decode)
    for count in (1, 2 * NESTING_MAX, 2 * NESTING_MAX + 1, 100_000):
        with pytest.raises(ValueError):
            decode(b"[" * count)
