"""A withdrawal of consent, and an erasure: what each of them ends at once, what is left, what is never learned."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from contracts.decisions import Applied
from contracts.errors import BadSettings, BrokenInvariant
from contracts.events import Consent, decode_event
from contracts.outcomes import decode_outcome
from contracts.policies import Policy, Rails, SessionIntent
from pricing.erasure import PREFIX, Erasure, decode_erasure, encode_erasure, erasure_key
from pricing.timers import PREFIX as DRAWS
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import MINUTE_MS, START_MS, Shop, item

SHORT = Policy(name="short", number=1, rule=SessionIntent(explore=0.0), rails=Rails(dwell_ms=MINUTE_MS))
ANN = "Ann-7f3d2b"


def outcomes(shop: Shop) -> list[Any]:
    assert shop.last is not None
    return [decode_outcome(value) for _, value in shop.last.outcomes]


def erasures(shop: Shop) -> dict[bytes, Erasure]:
    return {key: decode_erasure(value) for key, value in shop.states.items() if key.startswith(PREFIX)}


def holds(shop: Shop, user: str) -> list[bytes]:
    """The keys in the store whose records name a user."""
    return [key for key, value in shop.states.items() if user.encode() in key + value]


def test_a_withdrawal_returns_open_offers_to_list_says_why_and_nothing_more_is_learned_of_that_user():
    shop = Shop(item("lamp"), item("rug", 4_999))
    shop.feed(shop.view(0), shop.view(1, "rug"), shop.view(1, user="bob"))
    withdrawn = shop.feed(shop.consent(False, 2))
    assert [(one.item, one.price, one.list_price) for one in withdrawn] == [
        ("lamp", 10_000, 10_000),
        ("rug", 4_999, 4_999),
    ]
    assert {one.reasons for one in [*withdrawn, *shop.prices()]} == {("consent_withdrawn",)}
    after = shop.feed(shop.view(3), shop.view(4, "rug"), shop.purchase(5), shop.click(6))
    assert {(one.price == one.list_price, one.forced, one.status) for one in after} == {(True, True, "list")}
    assert [one.reasons for one in after] == [("no_consent",), ("no_consent",), ("purchased",), ("no_consent",)]
    shop.feed(shop.view(90, user="passer-by"))
    learnable = {(one.user, one.item): (one.learnable, one.unlearnable) for one in outcomes(shop)}
    assert learnable == {
        ("ann", "lamp"): (False, ("consent",)),
        ("ann", "rug"): (False, ("consent",)),
        ("bob", "lamp"): (True, ()),
    }
    shop.feed(shop.view(95), shop.view(200, user="passer-by"))
    assert {one.user for one in outcomes(shop)} == {"passer-by"}, "without consent there are no draws"


def test_an_erasure_returns_open_offers_to_list_and_is_applied_without_naming_anybody():
    shop = Shop()
    shop.feed(shop.view(0))
    decision, applied = shop.feed(shop.consent(False, 1, erase=True))
    assert (decision.price, decision.reasons, decision.user) == (10_000, ("consent_withdrawn",), "ann")
    assert isinstance(applied, Applied)
    assert (applied.outcome, applied.user, applied.version) == ("erasure", None, decision.version)
    assert shop.last.decisions[-1][0] == b'["","%b"]' % applied.decision_id.encode()


def test_an_erasure_leaves_a_denial_under_a_hash_and_nothing_that_names_the_user():
    shop = Shop(item("lamp"), item("rug", 4_999))
    shop.feed(shop.view(0, user=ANN), shop.view(1, "rug", user=ANN), shop.view(1))
    assert len(holds(shop, ANN)) == 3, "a state and two pending draws"
    shop.feed(shop.consent(False, 2, ANN, erase=True))
    assert holds(shop, ANN) == []
    assert erasures(shop) == {erasure_key(ANN.encode()): Erasure(4, START_MS + 2 * MINUTE_MS)}
    assert len([key for key in shop.states if key.startswith(DRAWS)]) == 3, "their timers run on"
    shop.feed(shop.view(90, user="passer-by"))
    assert [one.user for one in outcomes(shop)] == ["ann"]


@pytest.mark.parametrize("default", [True, False])
def test_who_was_forgotten_comes_back_as_a_stranger_at_list_price_whatever_the_default(default):
    shop = Shop(consent_default=default)
    shop.feed(shop.view(0), shop.consent(False, 1, erase=True))
    back = shop.one(shop.view(2))
    assert (back.price, back.reasons, back.sequence) == (10_000, ("no_consent",), 1)
    assert shop.state().consent is False


def test_an_erasure_within_a_batch_is_one_between_two_batches():
    def run(cut: int) -> Shop:
        shop = Shop()
        batch = [
            shop.inbound(one) for one in (shop.view(0), shop.consent(False, 1, erase=True), shop.view(2), shop.view(3))
        ]
        shop.feed(*batch[:cut])
        shop.feed(*batch[cut:])
        return shop

    assert run(0).states == run(1).states == run(2).states == run(3).states == run(4).states


def test_a_later_consent_counts_and_one_from_before_the_erasure_does_not():
    shop = Shop()
    shop.feed(shop.consent(False, 10, erase=True), shop.consent(True, 5))
    assert shop.one(shop.view(11)).reasons == ("no_consent",)
    shop.feed(shop.consent(True, 12))
    assert shop.one(shop.view(13)).status == "drawn"


def test_somebody_never_seen_can_be_forgotten_too():
    shop = Shop()
    (applied,) = shop.feed(shop.consent(False, 1, "nobody", erase=True))
    assert (applied.outcome, list(erasures(shop))) == ("erasure", [erasure_key(b"nobody")])


def test_the_purchase_of_a_draw_from_before_the_erasure_is_nothing():
    shop = Shop()
    shop.feed(shop.view(0), shop.consent(False, 1, erase=True))
    shop.feed(shop.purchase(2), shop.view(90, user="passer-by"))
    assert outcomes(shop) == []


@pytest.mark.parametrize("together", [True, False])
def test_a_draw_that_the_state_remembered_no_more_has_no_outcome_either(together):
    shop = Shop(policy=SHORT, offers_max=1)
    shop.feed(shop.view(0), shop.view(2), shop.view(4))
    records = [shop.inbound(shop.consent(False, 5, erase=True)), shop.inbound(shop.view(90, user="passer-by"))]
    for batch in [records] if together else [[one] for one in records]:
        shop.feed(*batch)
    assert outcomes(shop) == []


def test_a_draw_of_after_the_erasure_has_its_outcome_even_if_it_was_forgotten_meanwhile():
    shop = Shop(policy=SHORT, offers_max=1)
    shop.feed(shop.consent(False, 0, erase=True), shop.consent(True, 1))
    shop.feed(shop.view(2), shop.view(4), shop.view(6))
    shop.feed(shop.view(90, user="passer-by"))
    assert [one.unlearnable for one in outcomes(shop)] == [("forgotten",), ("forgotten",), ()]


def test_the_model_forgets_the_ring_of_who_is_forgotten():
    shop = Shop()
    shop.encoder = FakeEncoder()
    shop.feed(shop.view(0), shop.consent(False, 1, erase=True))
    assert shop.encoder.forgotten == [b"ann"]


def test_an_erasure_that_grants_consent_is_no_event():
    with pytest.raises(ValueError, match="granted must be false"):
        Consent(user="ann", granted=True, event_time_ms=START_MS, erase=True)
    with pytest.raises(msgspec.ValidationError, match="granted must be false"):
        decode_event(b'{"type":"consent","user":"ann","granted":true,"event_time_ms":1572566400000,"erase":true}')
    plain = decode_event(b'{"type":"consent","user":"ann","granted":false,"event_time_ms":1572566400000}')
    assert not plain.erase, "consents of before this field stay what they were"


def test_the_bytes_of_an_erasure_are_those_of_its_schema():
    value = encode_erasure(Erasure(7, START_MS, done=True))
    assert value.hex() == "940107cf0000016e2442fc00c3", "another layout needs another SCHEMA, and a reader"
    with pytest.raises(BadSettings, match="schema 2, this release reads 1: it was written by a newer"):
        decode_erasure(value[:1] + b"\x02" + value[2:])
    with pytest.raises(BrokenInvariant, match=r"cannot be read .* wipe the data directory"):
        decode_erasure(value[:-1])
