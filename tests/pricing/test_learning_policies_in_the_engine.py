"""Learning policies behind the engine: what their decisions say, that they can be recomputed from it, and what stays as it was."""

from __future__ import annotations

import json
from itertools import accumulate, pairwise

import numpy as np
import pytest

from contracts.decisions import encode_decision
from contracts.errors import BrokenInvariant
from contracts.outcomes import decode_outcome, encode_outcome
from contracts.policies import FixedPrice, ListPrice, Policy, Rails, SessionIntent, UniformRandom
from contracts.rules import Features, Greedy, LinearQ, Sarsa, Thompson
from features.vectors import Encoded
from pricing.arms import of_rule
from pricing.choosers import chooser_of, ignorance
from pricing.contexts import Scene
from pricing.draws import uniforms
from pricing.menus import MenuBook
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import Shop, item

RAILS = Rails(charm_endings=())
RULES = [Thompson(explore=0.2), Greedy(), LinearQ(explore=0.3), Sarsa()]


def policy_of(rule, **rails):
    return Policy(name="learns", number=4, seed=11, rule=rule, rails=RAILS if not rails else Rails(**rails))


def shop_of(rule, *items, modelled=True, **rails):
    shop = Shop(*items, policy=policy_of(rule, **rails))
    shop.encoder = FakeEncoder() if modelled else None
    return shop


def taught(rule, seed=0):
    knowledge, random = ignorance(rule), np.random.default_rng(seed)
    for _ in range(100):
        x, shift, bought = np.append(1.0, random.normal(0, 1, 19)), float(random.uniform(0, 1)), random.random() < 0.3
        if isinstance(rule, LinearQ | Sarsa):
            knowledge.learn(rule, x, shift, 0.5 * bought, None, None)
        else:
            knowledge.learn(x, shift, bool(bought))
    return knowledge


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_decision_can_be_recomputed_from_its_record(rule):
    knowledge, policy = taught(rule), policy_of(rule)
    shop = shop_of(rule, item(cost=5_000))
    shop.teach(knowledge)
    for user in range(20):
        decision = shop.feed(shop.view(user=f"user {user}"))[0]
        priced = MenuBook(policy).of(decision.catalogue_version, item(cost=5_000), None)
        menu, chooser = priced.menu(10_000), chooser_of(policy, knowledge)
        rows = chooser.project(Scene(np.array([decision.features]), np.array([decision.intent])))
        arms = of_rule(rule, menu.prices, 10_000, 5_000)
        assert decision.probabilities == tuple(chooser.weigh(rows, arms)[0].tolist())
        assert decision.u == uniforms(policy.seed, [decision.decision_id])[0]
        at = menu.prices.index(decision.price)
        assert decision.propensity == decision.probabilities[at]
        assert sum(decision.probabilities[:at]) <= decision.u < sum(decision.probabilities[: at + 1]) + 1e-12
        assert decision.explored == (at != chooser.values(rows, arms)[0].argmax())
        assert decision.learned == knowledge.digest()
        assert (decision.feature_version, decision.cost_source, decision.policy) == (1, "catalogue", "learns@4")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_an_outcome_carries_what_a_learner_needs_of_its_draw(rule):
    shop = shop_of(rule, item(cost=5_000))
    shop.teach(taught(rule))
    draw = shop.feed(shop.view())[0]
    shop.feed(shop.view(60, user="bob"))
    (outcome,) = [decode_outcome(value) for _, value in shop.last.outcomes]
    same = ("features", "feature_version", "learned", "cost_source", "probabilities", "propensity", "price")
    assert [getattr(outcome, name) for name in same] == [getattr(draw, name) for name in same]
    assert outcome.features is not None
    assert encode_outcome(outcome) == shop.last.outcomes[0][1]


@pytest.mark.parametrize("rule", [LinearQ(explore=0.0), Sarsa(explore=0.0)], ids=["q", "sarsa"])
def test_values_that_have_learned_nothing_charge_everybody_list_price_and_call_that_their_aim(rule):
    shop = shop_of(rule, item(cost=5_000), raise_markets=("US",), multipliers=(800, 900, 1000, 1100, 1200))
    for user in range(5):
        decision = shop.feed(shop.view(user=f"user {user}", market="US"))[0]
        assert len(decision.probabilities) > 2
        assert (decision.price, decision.propensity, decision.explored) == (10_000, 1.0, False)
        assert decision.binding_rule is None, "no rail keeps it from what it aims at"


def test_contributions_add_up_to_what_the_demand_model_expects():
    rule = Thompson()
    knowledge, shop = taught(rule), shop_of(rule)
    shop.teach(knowledge)
    decision = shop.feed(shop.view())[0]
    level, response, *_ = knowledge.project(np.array([decision.features]))[0]
    assert sum(decision.level_contributions) == pytest.approx(level, abs=1e-9)
    assert sum(decision.response_contributions) == pytest.approx(response, abs=1e-9)
    assert decision.cost_source == "none"


def test_values_have_no_contributions_of_demand():
    shop = shop_of(LinearQ())
    decision = json.loads(encode_decision(shop.one(shop.view())))
    assert "level_contributions" not in decision
    assert "probabilities" in decision


def test_a_forced_a_held_and_a_prescribed_price_carry_no_draw():
    shop = shop_of(Thompson(), item(), item("plain", floor=10_000))
    forced, drawn, held, bought = shop.feed(shop.view(what="plain"), shop.view(1), shop.view(2), shop.purchase(3))
    assert forced.forced
    assert forced.propensity == 1.0
    assert drawn.probabilities is not None
    assert held.draw_id == drawn.decision_id
    for decision in (forced, held, bought):
        assert decision.feasible is decision.probabilities is decision.u is decision.explored is None
        assert decision.features is decision.learned is None


PLAIN = [FixedPrice(multiplier_permille=900), UniformRandom(), ListPrice(), SessionIntent(explore=0.4)]


@pytest.mark.parametrize("rule", PLAIN, ids=lambda rule: type(rule).__name__)
def test_a_policy_that_does_not_learn_says_what_it_drew_from_and_nothing_of_learning(rule):
    shop = shop_of(rule)
    written = json.loads(encode_decision(shop.one(shop.view())))
    assert {"feasible", "probabilities", "u", "explored"} <= written.keys()
    assert not {"learned", "features", "feature_version", "cost_source", "churn"} & written.keys()


@pytest.mark.parametrize("rule", PLAIN, ids=lambda rule: type(rule).__name__)
def test_a_draw_is_made_again_from_its_record_alone(rule):
    shop = shop_of(rule, item(list_price=12_999), charm_endings=(99, 49))
    for decision in shop.feed(*[shop.view(user=f"user {n}") for n in range(40)]):
        below = accumulate(decision.probabilities)
        at = next(at for at, sum_ in enumerate(below) if decision.u < sum_ or at == len(decision.feasible) - 1)
        assert (decision.feasible[at], decision.probabilities[at]) == (decision.price, decision.propensity)


def test_explored_is_every_price_but_the_one_aimed_at_and_uniform_aims_at_none():
    def drawn(rule):
        shop = shop_of(rule)
        return {(one.price, one.explored) for one in shop.feed(*[shop.view(user=f"user {n}") for n in range(60)])}

    assert drawn(SessionIntent(discounts_permille=(100,), explore=0.6)) == {
        (8_500, True), (9_000, False), (9_500, True), (10_000, True),
    }  # fmt: skip
    assert drawn(ListPrice()) == {(10_000, False)}
    assert drawn(UniformRandom()) == {(8_500, True), (9_000, True), (9_500, True), (10_000, True)}


def test_a_fixed_price_is_charged_and_says_so():
    shop = shop_of(FixedPrice(multiplier_permille=900))
    decision = shop.one(shop.view())
    assert (decision.price, decision.propensity, decision.reasons) == (9_000, 1.0, ("fixed_price",))


def test_uniform_gives_every_price_the_same_propensity():
    shop = shop_of(UniformRandom())
    prices = {shop.one(shop.view(user=f"user {n}")).price for n in range(60)}
    assert len(prices) > 2
    assert shop.one(shop.view(user="zoe")).propensity == pytest.approx(1.0 / 4)


def test_a_rail_between_the_policy_and_its_aim_is_named():
    # revenue alone, and a response that wants everything at half price
    rule = Greedy(features=Features(names=("intent",)))
    knowledge = ignorance(rule)
    knowledge.mean[:] = (-6.0, 0.0, 5.0, 0.0)
    shop = shop_of(rule, multipliers=(500, 900, 1000), charm_endings=(), band_low_permille=600)
    shop.teach(knowledge)
    decision = shop.feed(shop.view())[0]
    assert (decision.price, decision.binding_rule, decision.reasons) == (9_000, "step", ("demand", "rail:step"))


def test_any_split_into_batches_gives_the_same_bytes():
    rule = Thompson(explore=0.3)
    knowledge = taught(rule)
    whole, split = shop_of(rule, item(), item("rug", 4_999)), shop_of(rule, item(), item("rug", 4_999))
    for shop in (whole, split):
        shop.teach(knowledge)
    batch = [whole.inbound(whole.view(n / 3, "rug" if n % 3 else "lamp", user=f"user {n % 7}")) for n in range(90)]
    whole.feed(*batch)
    expected = whole.last.decisions, whole.last.prices, whole.states
    decisions, prices = [], []
    for start, end in pairwise([0, 1, 2, 9, 40, 41, 90]):
        split.feed(*batch[start:end])
        decisions += split.last.decisions
        prices += split.last.prices
    assert (decisions, prices, split.states) == expected


def test_without_a_model_its_features_are_zero():
    shop = shop_of(Thompson(), modelled=False)
    decision = shop.one(shop.view())
    assert decision.features == (1.0, *[0.0] * 17, -1.0, 0.0)


def test_a_user_vector_that_is_no_number_stops_the_worker():
    class Broken(FakeEncoder):
        def encode(self, owner, asks):
            return Encoded(np.full((len(asks), 4), np.nan, dtype=np.float32), np.zeros(len(asks), dtype=np.float32))

    shop = shop_of(Thompson())
    shop.encoder = Broken()
    with pytest.raises(BrokenInvariant, match="user vector that is not finite"):
        shop.one(shop.view())


def test_a_version_is_followed_from_the_next_batch_on_and_its_lambda_is_in_force_with_it():
    rule = Thompson(features=Features(names=("intent",)), temper=0.0, explore=0.0)
    knowledge = ignorance(rule)
    knowledge.mean[:] = (-3.0, 0.0, 6.0, 0.0)  # wants the deepest discount
    shop = shop_of(rule)
    prices, digests = [], []
    for user, weight in enumerate((None, 0.0, 10.0, 0.0)):
        if weight is not None:
            shop.teach(knowledge, weight)
        decision = shop.one(shop.view(user=f"user {user}"))
        prices.append(decision.price)
        digests.append(decision.learned)
    assert prices[1:] == [8_500, 9_500, 8_500]
    assert digests[1] == digests[3] == knowledge.digest() != digests[2]
    assert digests[0] == ignorance(rule).digest()


def test_what_is_learned_of_one_policy_is_not_anothers():
    shop = shop_of(Thompson())
    other = Policy(name="other", number=1, rule=Thompson(), rails=RAILS)
    shop.adopt(other)
    shop.teach(taught(Thompson()), policy=other)
    assert shop.one(shop.view()).learned == taught(Thompson()).digest()
    shop.publish(policy_of(Thompson()))
    assert shop.one(shop.view(1, user="bob")).learned == ignorance(Thompson()).digest()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_draw_and_its_outcome_log_the_chance_that_the_user_stays_away_and_no_price_depends_on_it(rule):
    shop = shop_of(rule, modelled=False)
    for day in range(5):
        shop.feed(shop.view(1440 * day, user="often", what="rug"))
    often, new = shop.feed(shop.view(1440 * 5, user="often"), shop.view(1440 * 5, user="new"))
    assert (often.churn_days, new.churn_days) == (7, 7)
    assert 0.0 < often.churn < new.churn < 1.0
    assert (often.probabilities, often.intent) == (new.probabilities, new.intent)
    shop.feed(shop.view(1440 * 6, user="often"))
    outcomes = {one.draw_id: one for one in (decode_outcome(value) for _, value in shop.last.outcomes)}
    assert (outcomes[often.draw_id].churn, outcomes[often.draw_id].churn_days) == (often.churn, 7)
    held = shop.one(shop.view(1440 * 6 + 1, user="often"))
    assert (held.status, held.churn, held.churn_days) == ("held", None, None)


def test_policies_that_do_not_learn_log_no_churn():
    shop = Shop(policy=policy_of(UniformRandom()))
    assert shop.one(shop.view()).churn is None
    shop.feed(shop.view(60))
    assert all(b"churn" not in value for _, value in shop.last.outcomes)
