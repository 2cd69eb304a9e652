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


def test_the_builtin_policy_may_be_made_current_again_by_its_name():
    back = CurrentPolicy(name="builtin", number=1)
    book = book_of(FIRST, SECOND, MADE, CurrentPolicy(name="made", number=1), back)
    assert back.version == "builtin"
    assert (book.current, book.in_force("any model"), book.priced_by()) == (BUILTIN, BUILTIN, [BUILTIN])
    assert book_of(back).current is BUILTIN
    with pytest.raises(BadReference, match="builtin@2 is not on the topic"):
        book_of(CurrentPolicy(name="builtin", number=2))


def test_a_topic_on_which_somebody_published_a_policy_of_that_name_reads_as_it_did():
    theirs = msgspec.structs.replace(FIRST, name="builtin")
    assert book_of(theirs, CurrentPolicy(name="builtin", number=1)).current == theirs


def test_the_kill_switch_is_apart_from_the_policy():
    book = book_of(KillSwitch(on=True, reason="prices look wrong"))
    assert book.kill_switch
    assert book.current is BUILTIN
    assert not book_of(KillSwitch(on=True), KillSwitch(on=False)).kill_switch


def test_the_twin_of_a_policy_is_the_newest_version_that_is_equal_but_for_its_number():
    again = msgspec.structs.replace(FIRST, number=3)
    book = book_of(FIRST, SECOND, again)
    assert book.twin_of(msgspec.structs.replace(FIRST, number=7)) == again
    assert book.twin_of(SECOND) == SECOND
    assert book.twin_of(msgspec.structs.replace(FIRST, name="bold")) is None


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


MADE = Policy(name="made", number=1, rule=ListPrice(), model="0123456789abcdef", fallback="careful@2")


def test_a_policy_prices_with_its_model_and_its_fallback_with_any_other_or_none():
    book = book_of(FIRST, SECOND, MADE, CurrentPolicy(name="made", number=1))
    assert book.current == MADE
    assert book.in_force("0123456789abcdef") == MADE
    assert (book.in_force("fedcba9876543210"), book.in_force(None)) == (SECOND, SECOND)


def test_a_policy_without_a_model_prices_with_any_and_with_none():
    book = book_of(FIRST, CurrentPolicy(name="careful", number=1))
    assert (book.in_force("0123456789abcdef"), book.in_force(None)) == (FIRST, FIRST)
    assert PolicyBook().in_force("0123456789abcdef") is BUILTIN


def test_the_fallback_is_that_of_the_current_policy():
    other = msgspec.structs.replace(MADE, number=2, fallback="careful@1")
    book = book_of(FIRST, SECOND, MADE, other, CurrentPolicy(name="made", number=2))
    assert book.in_force(None) == FIRST
    book.apply(9, b"current", encode_policy(CurrentPolicy(name="made", number=1)))
    assert book.in_force(None) == SECOND


def test_a_fallback_that_is_not_on_the_topic_is_refused_when_the_policy_comes():
    with pytest.raises(
        BadReference, match=r"made@1 falls back to careful@2, which is not on the topic: publish that first"
    ):
        book_of(FIRST, MADE)


def test_a_fallback_that_has_left_the_topic_is_refused_when_the_policy_is_to_price():
    book = book_of(SECOND, MADE)
    book.apply(2, policy_key(SECOND), None)
    with pytest.raises(BadReference, match="not on the topic"):
        book.apply(3, b"current", encode_policy(CurrentPolicy(name="made", number=1)))
    assert (book.current, book.in_force(None)) == (BUILTIN, BUILTIN)


def test_a_fallback_that_needs_a_model_itself_is_refused():
    chained = msgspec.structs.replace(MADE, number=2, fallback="made@1")
    with pytest.raises(BadReference, match=r"made@2 falls back to made@1, which was made for a model, too"):
        book_of(SECOND, MADE, chained)


@pytest.mark.parametrize("more", [{"model": "0123456789abcdef"}, {"fallback": "careful@1"}])
def test_a_model_without_a_fallback_and_a_fallback_without_a_model_are_refused(more):
    with pytest.raises(ValueError, match="go together"):
        Policy(name="made", number=1, rule=ListPrice(), **more)


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
        b'{"record":"policy","name":"p","number":1,"rule":{"kind":"list_price"},"model":"m","fallback":"p"}',
        b'{"record":"policy","name":"p","number":1,"rule":{"kind":"list_price"},"model":"m"}',
        b'{"record":"killswitch","on":"yes"}',
    ],
)
def test_records_with_a_wrong_or_unknown_field_are_refused(text):
    with pytest.raises(msgspec.ValidationError):
        PolicyBook().apply(0, b"k", text)
