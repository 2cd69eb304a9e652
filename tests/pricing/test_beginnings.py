"""pricing.beginnings: what a policy that has learned nothing charges, as the engine would."""

from __future__ import annotations

import pytest

from contracts.policies import Policy, Rails, SessionIntent
from contracts.rules import Features, Greedy, LinearQ, Money, Prior, Sarsa, Thompson
from pricing.beginnings import beginning_of
from tests.pricing.shop import Shop, item

FEATURES = Features(names=("intent", "price"))
RAILS = Rails(charm_endings=(), multipliers=(800, 850, 900, 950, 1000))


def beginning(rule, **rails):
    return beginning_of(Policy(name="p", number=1, rule=rule, rails=Rails(**rails) if rails else RAILS))


@pytest.mark.parametrize("rule", [LinearQ(features=FEATURES), Sarsa(features=FEATURES)], ids=["q", "sarsa"])
def test_values_begin_at_list_price_with_their_explored_share(rule):
    found = beginning(rule)
    assert (found.likeliest, found.lowest) == (10_000, 8_500)
    assert found.probability == pytest.approx(0.95 + 0.05 / 4)
    assert found.mean == pytest.approx(0.95 * 10_000 + 0.05 * 9_250)


def test_a_demand_model_begins_at_deep_discounts_unless_a_cost_is_assumed_or_its_prior_doubts_them():
    deep, careful = beginning(Greedy(features=FEATURES)), Money(assumed_cost_permille=700)
    assert (deep.likeliest, deep.probability) == (deep.lowest, 1.0)
    thompson = beginning(Thompson(features=FEATURES))
    assert thompson.likeliest == thompson.lowest
    assert thompson.mean < 9_000 < 9_700 < beginning(Thompson(features=FEATURES, money=careful)).mean
    doubtful = Prior(response=0.1, response_spread=0.1)
    assert beginning(Thompson(features=FEATURES, prior=doubtful)).likeliest == 10_000


def test_it_says_so_in_one_sentence():
    assert beginning(Greedy(features=FEATURES)).sentence == (
        "Until it has learned, a first look at an item of list price 100.00 without a known cost is priced at 85.00 on average; "
        "most often, in 100.0% of draws, at 85.00 (the lowest that the rails allow)."
    )
    assumed = beginning(LinearQ(features=FEATURES, money=Money(assumed_cost_permille=615))).sentence
    assert (
        "with its assumed cost of 61.50 is priced at 99.62 on average; most often, in 96.2% of draws, at 100.00."
        in assumed
    )


def test_it_is_what_a_shopper_is_charged():
    rule = Thompson(features=FEATURES, money=Money(assumed_cost_permille=600))
    policy = Policy(name="p", number=1, rule=rule, rails=RAILS)
    shop = Shop(item(), policy=policy)
    decision = shop.one(shop.view())
    found = beginning_of(policy)
    assert found.probability == max(decision.probabilities)
    assert found.mean == pytest.approx(
        sum(p * price for p, price in zip(decision.probabilities, (8_500, 9_000, 9_500, 10_000), strict=True))
    )


def test_what_does_not_learn_has_none():
    assert beginning(SessionIntent()) is None
