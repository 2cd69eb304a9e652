"""contracts.policies: the fold of the policies topic, and which rails and rules are refused."""

from __future__ import annotations

import msgspec
import pytest

from contracts.errors import BadReference
from contracts.policies import (
    BUILTIN,
    CurrentPolicy,
    KillSwitch,
    ListPrice,
    Policy,
    PolicyBook,
    Rails,
    SessionIntent,
    encode_policy,
    policy_key,
)

FIRST = Policy(name="careful", number=1, rule=ListPrice())
SECOND = Policy(name="careful", number=2, rule=SessionIntent(explore=0.5))


def book_of(*records):
    book = PolicyBook()
    for offset, record in enumerate(records):
        book.apply(offset, policy_key(record), encode_policy(record))
    return book


def test_the_builtin_policy_holds_while_the_topic_is_empty():
    assert PolicyBook().current is BUILTIN
    assert BUILTIN.version == "builtin"


def test_a_policy_prices_only_once_it_is_current():
    assert book_of(FIRST).current is BUILTIN
    assert book_of(FIRST, SECOND, CurrentPolicy(name="careful", number=2)).current == SECOND
    assert SECOND.version == "careful@2"


def test_the_kill_switch_is_apart_from_the_policy():
    book = book_of(KillSwitch(on=True, reason="prices look wrong"))
    assert book.kill_switch
    assert book.current is BUILTIN
    assert not book_of(KillSwitch(on=True), KillSwitch(on=False)).kill_switch


def test_a_version_is_never_rewritten():
    changed = msgspec.structs.replace(FIRST, seed=9)
    with pytest.raises(BadReference, match="publish the next number"):
        book_of(FIRST, changed)
    assert book_of(FIRST, FIRST).seen == 2


def test_a_pointer_to_a_version_that_is_not_there_is_refused_and_seen():
    book = PolicyBook()
    with pytest.raises(BadReference, match="publish it first"):
        book.apply(4, b"current", encode_policy(CurrentPolicy(name="careful", number=1)))
    assert book.seen == 5
    assert book.current is BUILTIN


def test_a_null_value_removes_a_version():
    book = book_of(FIRST)
    book.apply(1, policy_key(FIRST), None)
    with pytest.raises(BadReference):
        book.apply(2, b"current", encode_policy(CurrentPolicy(name="careful", number=1)))


BAD_RULES = [
    (lambda: Rails(multipliers=(900, 800, 1000)), "ascend"),
    (lambda: Rails(multipliers=(900, 950)), "contain 1000"),
    (lambda: Rails(multipliers=tuple(range(950, 1050))), "1 to 64"),
    (lambda: Rails(band_low_permille=1001), "list price is always feasible"),
    (lambda: SessionIntent(discounts_permille=(50, 100)), "stronger intent, smaller discount"),
    (lambda: SessionIntent(discounts_permille=()), "empty"),
]


@pytest.mark.parametrize(("make", "says"), BAD_RULES)
def test_rails_and_rules_that_contradict_themselves_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    "text",
    [
        b'{"record":"policy","name":"p","number":1,"rule":{"kind":"session_intent","explore":2.0}}',
        b'{"record":"policy","name":"p","number":1,"rule":{"kind":"list_price"},"rails":{"dwell_ms":0}}',
        b'{"record":"policy","name":"P!","number":1,"rule":{"kind":"list_price"}}',
        b'{"record":"policy","name":"p","number":1,"rule":{"kind":"list_price"},"typo":1}',
        b'{"record":"killswitch","on":"yes"}',
    ],
)
def test_records_with_a_wrong_or_unknown_field_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        PolicyBook().apply(0, b"k", text)
