"""pricing.shadow: what a shadow decides, from which state, and when it decides nothing."""

from __future__ import annotations

import pytest

from contracts.decisions import decode_decision, encode_decision
from contracts.errors import BadReference
from contracts.policies import (
    CurrentPolicy,
    FixedPrice,
    ListPrice,
    Policy,
    Rails,
    ShadowPolicy,
    decode_policy,
    encode_policy,
    policy_key,
)
from contracts.rules import Churn, Thompson
from pricing.menus import MenuShelf
from pricing.recomputing import Background, known_by, recompute
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import POLICY, Shop, item
from tests.pricing.test_learning_policies_in_the_engine import taught

DEEP = Policy(
    name="deep",
    number=1,
    rule=FixedPrice(multiplier_permille=700),
    rails=Rails(charm_endings=(), band_low_permille=600),
)


def tell(shop, *records):
    for record in records:
        shop.policies.apply(shop.policies.seen, policy_key(record), encode_policy(record))


def shadowed(*items, shadow=DEEP, **more):
    shop = Shop(*items, **more)
    tell(shop, shadow, ShadowPolicy(policy=shadow.version))
    return shop


def shadows(shop):
    return [decode_decision(value) for _, value in shop.last.shadows]


def test_a_draw_is_decided_once_more_under_the_shadows_rails_with_its_own_version():
    shop = shadowed()
    draw = shop.one(shop.view())
    (other,) = shadows(shop)
    assert (draw.price, other.price) == (8_500, 8_500)
    assert (other.policy, other.decision_id, other.draw_id) == ("deep@1", draw.decision_id, draw.decision_id)
    assert (other.binding_rule, other.reasons) == ("step", ("fixed_price", "rail:step"))
    assert [step.low for step in other.trail if step.rail == "band"] == [6_000]
    assert shop.last.counts["shadow:same_price"] == 1


def test_the_step_limit_counts_from_the_price_that_the_shopper_really_had_last():
    shop = shadowed()
    shop.one(shop.view())
    later = shop.one(shop.view(31))
    (other,) = shadows(shop)
    assert (later.price, other.price) == (8_500 - 1_000, 7_000)
    assert shop.last.counts["shadow:other_price"] == 1


def test_a_shadow_that_learns_logs_the_churn_hazard_of_its_own_horizon():
    longer = Churn(horizon_days=30)
    real = Policy(name="real", number=1, rule=Thompson())
    shop = shadowed(shadow=Policy(name="mind", number=1, rule=Thompson(churn=longer)), policy=real)
    draw = shop.one(shop.view())
    (other,) = shadows(shop)
    alone = Shop(policy=Policy(name="real", number=1, rule=Thompson(churn=longer)))
    assert (draw.churn_days, other.churn_days) == (7, 30)
    assert other.churn == alone.one(alone.view()).churn < draw.churn


def test_only_draws_are_decided_once_more():
    shop = shadowed()
    shop.feed(shop.view(), shop.view(1), shop.purchase(2), shop.view(3, user="bob", what="none"))
    assert len(shadows(shop)) == 1
    shop.kill_switch(True)
    shop.one(shop.view(40))
    assert shadows(shop) == []


def test_an_item_that_the_shadows_margin_refuses_is_counted_and_not_decided():
    strict = Policy(name="strict", number=1, rule=ListPrice(), rails=Rails(margin_min_permille=9_000))
    shop = shadowed(item(cost=5_000), shadow=strict)
    shop.one(shop.view())
    assert shadows(shop) == []
    assert shop.last.counts["shadow:refused_item"] == 1


def test_it_ends_when_it_is_told_to_and_its_menus_are_forgotten():
    shop = shadowed()
    tell(shop, ShadowPolicy(policy=None))
    shop.one(shop.view())
    assert shadows(shop) == []
    assert shop.policies.shadow is None
    shelf = MenuShelf()
    first = shelf.shadow_of(DEEP)
    assert shelf.shadow_of(DEEP) is first
    assert shelf.shadow_of(None) is None
    assert shelf.shadow_of(DEEP) is not first


def test_a_shadow_made_for_another_model_is_decided_by_its_fallback_and_says_so():
    made = Policy(name="made", number=1, rule=ListPrice(), model="other", fallback="deep@1")
    shop = Shop()
    tell(shop, DEEP, made, ShadowPolicy(policy="made@1"))
    shop.encoder = FakeEncoder()
    shop.one(shop.view())
    (other,) = shadows(shop)
    assert (other.policy, other.reasons[0]) == ("deep@1", "model_mismatch")


def test_a_learning_shadow_has_its_features_and_probabilities_and_comes_out_again():
    learns = Policy(name="learns", number=2, seed=8, rule=Thompson(), rails=Rails())
    shop = shadowed(item(cost=4_000), shadow=learns)
    shop.encoder = FakeEncoder()
    shop.feed(shop.view(), shop.view(1, user="bob"))
    for other in shadows(shop):
        assert other.learned is not None
        background = Background(policy=learns, item=item(cost=4_000), known=known_by(learns, other.learned))
        assert recompute(other, background).value == encode_decision(other)


def test_a_learning_shadow_decides_by_what_was_learned_for_it():
    learns = Policy(name="learns", number=2, seed=8, rule=Thompson(), rails=Rails())
    shop = Shop(item(cost=4_000), policy=learns)
    shop.encoder = FakeEncoder()
    learned = shop.teach(taught(learns.rule))
    tell(shop, DEEP, CurrentPolicy(name="deep", number=1), ShadowPolicy(policy="learns@2"))
    draw = shop.one(shop.view())
    (other,) = shadows(shop)
    assert (draw.policy, draw.learned, other.learned) == ("deep@1", None, learned.digest)


def test_a_shadow_that_is_not_on_the_topic_is_refused_and_the_one_before_stays():
    shop = shadowed()
    with pytest.raises(BadReference, match="The shadow record names policy none@1, which is not on the topic"):
        tell(shop, ShadowPolicy(policy="none@1"))
    assert shop.policies.shadow == DEEP
    tell(shop, ShadowPolicy(policy="builtin"))
    assert shop.policies.shadow.version == "builtin"


def test_the_current_policy_does_not_move_with_the_shadow():
    shop = shadowed()
    assert shop.policies.current == POLICY
    tell(shop, CurrentPolicy(name="deep", number=1))
    assert shop.policies.shadow == shop.policies.current == DEEP
    assert decode_policy(encode_policy(ShadowPolicy(policy="deep@1"))) == ShadowPolicy(policy="deep@1")
