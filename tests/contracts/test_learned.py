"""contracts.learned: the fold of what policies have learned, and what of it is refused."""

from __future__ import annotations

from struct import pack

import msgspec
import pytest

from contracts.errors import BadReference
from contracts.learned import KEPT, CurrentLearned, Learned, digest_of, payload_of
from contracts.policies import CurrentPolicy, ListPrice, Policy, PolicyBook, encode_policy, policy_key
from contracts.rules import Features, LinearQ, Thompson

DEMAND = Policy(name="demand", number=3, rule=Thompson(features=Features(names=("price",))))
VALUES = Policy(name="values", number=1, rule=LinearQ(features=Features(names=("price",))))
PLAIN = Policy(name="plain", number=1, rule=ListPrice())
IDENTITY = [1.0, 0, 0, 0, 1.0, 0, 0, 1.0, 0, 1.0]
ROUNDED_AWAY = [1.0, 1.0, 0, 0, 1.0 + 2**-52, 0, 0, 1.0, 0, 1.0]
"""Upper triangle of a covariance that has a Cholesky factor, and a direction about which rounding has left nothing."""


def bytes_of(*numbers, outcomes=7):
    return outcomes.to_bytes(8, "little") + pack(f"<{len(numbers)}d", *numbers)


def version(number, policy=DEMAND, content=None, weight=0.0, **more):
    if content is None:
        content = bytes_of(*[float(number)] * 4, *IDENTITY) if policy is DEMAND else bytes_of(*[0.5] * 6)
    fields = {
        "name": policy.name, "number": policy.number, "version": number, "feature_version": 1,
        "payload": payload_of(content), "digest": digest_of(content, weight), "outcomes": 7, "left": {},
        "discount_weight": weight, "positions": (number,), "begins": (0,), "resolved_ms": number,
    }  # fmt: skip
    return Learned(**fields | more)


def book_of(*records):
    book = PolicyBook()
    for policy in (DEMAND, VALUES, PLAIN):
        book.apply(book.seen, policy_key(policy), encode_policy(policy))
    for record in records:
        book.apply(book.seen, policy_key(record), encode_policy(record))
    return book


def in_force(book, policy=DEMAND):
    known = book.knowledge_of(policy)
    return None if known is None else known.version


def test_a_policy_knows_nothing_until_a_version_comes_and_each_is_in_force_from_its_record_on():
    assert in_force(book_of()) is None
    assert in_force(book_of(version(1), version(2))) == 2
    assert in_force(book_of(version(1)), VALUES) is None


def test_a_pointer_leads_back_to_an_earlier_version_until_a_later_one_comes():
    back = CurrentLearned(name="demand", number=3, version=1)
    assert in_force(book_of(version(1), version(2), back)) == 1
    assert in_force(book_of(version(1), version(2), back, version(3))) == 3
    assert book_of(version(1), version(2), back).learned.newest("demand", 3).version == 2, "where the learner goes on"


def test_what_compaction_leaves_of_the_pointers_gives_the_same_versions_in_force():
    pointers = [CurrentLearned(name="demand", number=3, version=number) for number in (1, 2, 3)]
    whole = [record for number in (1, 2, 3) for record in (version(number), pointers[number - 1])]
    compacted = [version(1), version(2), version(3), pointers[2]]
    assert [in_force(book_of(*whole[: 2 * n])) for n in (1, 2, 3)] == [1, 2, 3]
    assert [in_force(book_of(*compacted[:n])) for n in (1, 2, 3)] == [1, 2, 3]


def test_a_pointer_to_a_version_that_is_not_there_or_too_old_is_refused():
    for records in ([version(1)], [version(number) for number in range(2, KEPT + 5)]):
        book = book_of(*records)
        with pytest.raises(BadReference, match="not on the topic, or not among its last 16"):
            book.apply(
                90, b"k", encode_policy(CurrentLearned(name="demand", number=3, version=2 if records[1:] else 5))
            )
        assert in_force(book) == records[-1].version


def test_a_version_is_never_rewritten_nor_numbered_before_those_that_are_there():
    other = bytes_of(9.0, 9.0, 9.0, 9.0, *IDENTITY)
    for late in (version(2, content=other), version(1)):
        book = book_of(*[version(number) for number in range(2, KEPT + 3)][: None if late.version == 1 else 2])
        with pytest.raises(BadReference, match="its learner goes on from that one"):
            book.apply(90, b"k", encode_policy(late))
    assert in_force(book_of(version(1), version(1))) == 1


def test_a_removal_takes_an_old_version_away_and_not_what_is_in_force():
    book = book_of(version(1), version(2))
    for key in (policy_key(version(1)), policy_key(version(2)), b"demand/3/learned"):
        book.apply(book.seen, key, None)
    assert in_force(book) == 2
    with pytest.raises(BadReference):
        book.apply(book.seen, b"k", encode_policy(CurrentLearned(name="demand", number=3, version=1)))
    assert book.find("demand@3") == DEMAND, "nor the policy"


def test_the_digest_is_that_of_the_bytes_and_of_lambda_if_there_is_one():
    content = bytes_of(0.0)
    assert digest_of(content, 0.0) != digest_of(content, 0.5) != digest_of(content, 0.25)
    assert in_force(book_of(version(1, weight=0.5))) == 1


MISFITS = [
    (version(1, content=bytes_of(0.0, 0.0)), "has 24 bytes, 120 are 2 features'"),
    (version(1, VALUES, content=bytes_of(*[0.0] * 14)), "has 120 bytes, 56 are 2 features'"),
    (version(1, feature_version=2), "features of version 2, not 1"),
    (version(1, digest="0" * 64), "is not what its digest says"),
    (version(1, discount_weight=0.5), "is not what its digest says"),
    (version(1, payload="!"), "is no base64"),
    (version(1, content=bytes_of(float("nan"), 0.0, 0.0, 0.0, *IDENTITY)), "is not finite"),
    (version(1, content=bytes_of(*[0.0] * 14)), "not positive definite"),
    (version(1, content=bytes_of(*[0.0] * 4, *ROUNDED_AWAY)), "not positive definite"),
    (version(1, VALUES, content=bytes_of(*[0.5] * 5, float("inf"))), "is not finite"),
    (version(1, PLAIN), "plain@1 does not learn"),
    (version(1, msgspec.structs.replace(DEMAND, number=4)), "demand@4, which is not on the topic"),
]


@pytest.mark.parametrize(("record", "says"), MISFITS, ids=[says for _, says in MISFITS])
def test_what_a_policy_cannot_have_learned_is_refused_with_a_sentence(record, says):
    book = book_of(version(1))
    with pytest.raises(BadReference, match=says):
        book.apply(90, b"k", encode_policy(msgspec.structs.replace(record, version=2)))
    assert (in_force(book), book.seen) == (1, 91)


def test_whoever_may_price_now_is_known_with_fallbacks():
    book = book_of(CurrentPolicy(name="demand", number=3))
    assert [policy.version for policy in book.priced_by()] == ["demand@3"]
    made = Policy(name="made", number=1, rule=Thompson(), model="0123456789abcdef", fallback="values@1")
    for record in (made, CurrentPolicy(name="made", number=1)):
        book.apply(book.seen, policy_key(record), encode_policy(record))
    assert [policy.version for policy in book.priced_by()] == ["made@1", "values@1"]
