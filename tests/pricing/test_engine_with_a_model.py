"""What a model behind the engine changes, one sentence each. That the questions to it are right is a law (tests/laws)."""

from __future__ import annotations

import json
from math import exp

import numpy as np
import pytest

from contracts.decisions import encode_decision
from contracts.policies import ListPrice, Policy, SessionIntent
from features.tokens import tokens
from features.vectors import Encoded, tastes_of
from pricing import verdicts
from pricing.engine import EventCrash
from tests.pricing.fake_encoder import FakeEncoder, answer
from tests.pricing.shop import POLICY, Shop, item

MADE_FOR_FAKE = Policy(name="made", number=1, rule=ListPrice(), model="fake", fallback="steady@1")


def modelled(*items, digest="fake", **more) -> Shop:
    shop = Shop(*items, **more)
    shop.encoder = FakeEncoder(digest)
    return shop


def test_a_decision_names_the_model_and_what_it_makes_of_user_and_item():
    shop = modelled()
    decision = shop.one(shop.view())
    (ask,) = shop.encoder.asks
    assert decision.model == "fake"
    assert decision.preference == pytest.approx(1 / (1 + exp(-answer("fake", ask)[0])), abs=1e-6)
    assert decision.preference == round(decision.preference, 6)


@pytest.mark.parametrize(
    ("logit", "preference"), [(0.0, 0.5), (2.0, 0.880797), (-2.0, 0.119203), (3e38, 1.0), (-3e38, 0.0)]
)
def test_the_preference_is_the_logistic_function_of_the_logit_however_large(logit, preference):
    encoded = Encoded(np.ones((1, 3), dtype=np.float32), np.array([logit], dtype=np.float32))
    assert [taste.preference for taste in tastes_of(encoded)] == [preference]


def test_without_a_model_no_byte_of_a_record_speaks_of_one():
    shop = Shop()
    for record in shop.feed(shop.view(), shop.view(1, "ghost")):
        assert "preference" not in json.loads(encode_decision(record))
        assert record.model is None


def test_every_record_of_a_step_names_the_model_and_only_events_with_the_item_have_a_preference():
    shop = modelled(item("lamp"), item("broken", floor=20_000))
    batch = [shop.consent(True), shop.view(), shop.view(1, "ghost"), shop.view(2, "broken"), shop.broken("not_json")]
    records = shop.feed(*batch, batch[1], shop.purchase(3, user="bob"), shop.consent(False, 4))
    assert [record.model for record in records] == ["fake"] * 8
    assert [getattr(record, "preference", None) is None for record in records] == [True, False] + [True] * 4 + [
        False,
        True,
    ]
    assert records[-1].reasons == ("consent_withdrawn",)


def test_the_bytes_of_a_decision_with_a_preference_are_those_of_the_contract():
    shop = modelled()
    for record in shop.feed(shop.view(), shop.view(1), shop.consent(False, 2), shop.broken("not_json")):
        assert encode_decision(record) in {value for _, value in shop.last.decisions}


def test_the_model_is_asked_about_every_event_that_is_new():
    shop = modelled()
    view, cart, unknown = shop.view(), shop.click(1, action="add_to_cart"), shop.view(3, "ghost")
    shop.feed(view, cart, view, shop.consent(False, 2), unknown, shop.broken("not_json"))
    asked = [(ask.user, ask.position, *tokens(ask.token)) for ask in shop.encoder.asks]
    assert [(user, position, token.kind, token.list_price) for user, position, token in asked] == [
        (b"ann", 0, "view", 10_000),
        (b"ann", 1, "cart", 10_000),
        (b"ann", 2, "view", 0),
    ]
    assert shop.encoder.owners == {shop.engine}


def test_a_batch_without_an_event_asks_the_model_nothing():
    shop = modelled()
    shop.feed(shop.consent(True), shop.broken("not_json"))
    assert shop.encoder.asks == []


def test_vector_and_preference_reach_the_policy(monkeypatch):
    seen = []
    respond = verdicts.respond

    def spy(offers, priced, ask, offers_max):
        seen.append(ask.taste)
        return respond(offers, priced, ask, offers_max)

    monkeypatch.setattr(verdicts, "respond", spy)
    shop = modelled()
    decisions = shop.feed(shop.view(), shop.view(1))
    assert [taste.preference for taste in seen] == [decision.preference for decision in decisions]
    for taste, ask in zip(seen, shop.encoder.asks, strict=True):
        assert taste.vector.tolist() == pytest.approx(answer("fake", ask)[1:])


def test_a_failure_of_the_model_is_not_one_of_a_record(monkeypatch):
    shop = modelled()
    monkeypatch.setattr(shop.encoder, "encode", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        shop.feed(shop.view())
    assert not issubclass(ZeroDivisionError, EventCrash)


def test_a_policy_prices_with_the_model_it_was_made_for():
    shop = modelled()
    shop.adopt(MADE_FOR_FAKE)
    decision = shop.one(shop.view())
    assert (decision.policy, decision.reasons) == ("made@1", ("list_price_policy",))


@pytest.mark.parametrize("digest", ["another", None])
def test_where_another_model_or_none_is_in_force_the_named_fallback_prices_and_says_why(digest):
    shop = Shop()
    shop.encoder = None if digest is None else FakeEncoder(digest)
    shop.adopt(MADE_FOR_FAKE)
    decision = shop.one(shop.view())
    assert (decision.policy, decision.model, decision.price) == ("steady@1", digest, 8_500)
    assert decision.reasons == ("model_mismatch", "session_intent", "rail:step")


def test_a_fallback_draws_with_its_own_seed():
    def prices(policy, fallback):
        shop = Shop(policy=fallback)
        if policy is not None:
            shop.adopt(policy)
        return [shop.one(shop.view(user=f"user {number}")).price for number in range(40)]

    loose = Policy(name="loose", number=1, seed=5, rule=SessionIntent(explore=1.0), rails=POLICY.rails)
    made = Policy(name="made", number=1, seed=6, rule=SessionIntent(explore=1.0), model="fake", fallback="loose@1")
    assert prices(made, loose) == prices(None, loose)


def test_prices_that_no_policy_chose_do_not_blame_the_model():
    shop = modelled(digest="another")
    shop.adopt(MADE_FOR_FAKE)
    records = shop.feed(shop.view(), shop.view(1), shop.purchase(2), shop.view(3), shop.consent(False, 4), shop.view(5))
    blamed = ["model_mismatch" in record.reasons for record in records]
    assert [record.status for record in records] == ["drawn", "held", "list", "drawn", "list", "list"]
    assert blamed == [True, False, False, True, False, False]
    assert {record.policy for record in records} == {"steady@1"}
