"""Every policy behind one interface: probabilities over feasible prices, the same alone and in company, drawn as often."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.ids import DecisionIds
from contracts.policies import FixedPrice, ListPrice, Policy, SessionIntent, UniformRandom
from contracts.rules import Churn, Features, Greedy, LinearQ, Money, Prior, Sarsa, Thompson
from pricing.arms import best, cost_of, of_rule, one, stacked
from pricing.choosers import chooser_of, ignorance
from pricing.contexts import Scene
from pricing.draws import uniforms
from pricing.policies import probabilities
from pricing.thompson import RESPONSE_MIN, table

FEATURES = Features(names=("intent", "price"))
LEARNING = [
    Thompson(features=FEATURES, explore=0.1),
    Thompson(features=FEATURES, temper=1.0, samples=16),
    Greedy(features=FEATURES),
    LinearQ(features=FEATURES, explore=0.3),
    Sarsa(features=FEATURES),
]
PLAIN = [ListPrice(), FixedPrice(multiplier_permille=870, explore=0.2), SessionIntent(), UniformRandom()]

lattices = st.sets(st.integers(6_000, 12_500), min_size=1, max_size=20).map(lambda prices: sorted(prices | {10_000}))


def taught(rule, seed=0, count=200):
    """Return what `rule` knows after made-up outcomes."""
    knowledge, random = ignorance(rule), np.random.default_rng(seed)
    for _ in range(count):
        x, shift = np.append(1.0, random.normal(0, 1, 2)), float(random.uniform(-1, 2))
        bought = bool(random.random() < 0.3)
        if isinstance(rule, LinearQ | Sarsa):
            knowledge.learn(rule, x, shift, 0.4 * bought, None, None)
        elif knowledge is not None:
            knowledge.learn(x, shift, bought)
    return knowledge


def policy_of(rule, seed=7):
    return Policy(name="p", number=1, seed=seed, rule=rule)


def scene(count, seed):
    random = np.random.default_rng(seed)
    x = np.column_stack([np.ones(count), random.normal(0, 1, (count, 2))])
    return Scene(x, random.integers(0, 8, count))


@given(st.sampled_from(LEARNING + PLAIN), st.lists(lattices, min_size=1, max_size=12), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_probabilities_sum_to_one_lie_on_feasible_prices_and_do_not_depend_on_company(rule, prices, seed):
    chooser, seen = chooser_of(policy_of(rule), taught(rule, seed)), scene(len(prices), seed)
    arms = [of_rule(rule, each, 10_000, 6_000) for each in prices]
    rows = chooser.project(seen)
    together = chooser.weigh(rows, stacked(arms))
    assert together.shape == (len(prices), max(map(len, prices)))
    for at, each in enumerate(prices):
        alone = chooser.weigh(chooser.project(Scene(seen.x[at : at + 1], seen.intents[at : at + 1])), arms[at])[0]
        assert (together[at, : len(each)] == alone).all()
        assert (together[at, len(each) :] == 0.0).all()
        assert alone.min() >= 0.0
        assert alone.sum() == pytest.approx(1.0, abs=1e-12)


@given(st.sampled_from(PLAIN), lattices, st.integers(0, 9))
@settings(deadline=None)
def test_what_does_not_learn_chooses_as_the_menus_do(rule, prices, intent):
    chooser = chooser_of(policy_of(rule))
    rows = chooser.project(Scene(np.empty((1, 0)), np.array([intent])))
    chances = chooser.weigh(rows, one(prices, 10_000, None, Money()))[0]
    assert chances.tolist() == pytest.approx(probabilities(rule, prices, 10_000, intent), abs=1e-15)


@pytest.mark.parametrize("rule", LEARNING, ids=lambda rule: type(rule).__name__)
def test_every_price_is_drawn_as_often_as_its_probability_says(rule):
    chooser = chooser_of(policy_of(rule), taught(rule))
    prices = list(range(8_000, 10_001, 500))
    chances = chooser.weigh(chooser.project(scene(1, 3)), of_rule(rule, prices, 10_000, 6_000))[0].tolist()
    of = DecisionIds(0, "views", 1).of
    cumulative = (*accumulate(chances[:-1]), 1.0)
    drawn = [bisect_right(cumulative, u) for u in uniforms(7, [of(offset, "a") for offset in range(100_000)])]
    observed = np.bincount(drawn, minlength=len(prices))
    expected = 100_000 * np.array(chances)
    assert (observed[expected == 0.0] == 0).all()
    possible = expected > 0.0
    # the 0.999 quantile of chi-square with 4 degrees of freedom is 18.5
    assert ((observed - expected)[possible] ** 2 / expected[possible]).sum() < 18.5


@pytest.mark.parametrize("hurdle", [0.0, 0.2, 1.0])
def test_thompson_counts_over_its_table_how_often_a_price_is_the_best_one_less_its_hurdle(hurdle):
    rule = Thompson(features=FEATURES, explore=0.0, temper=1.0, samples=32, hurdle=hurdle)
    knowledge, prices = taught(rule), list(range(7_000, 10_001, 250))
    seen = scene(1, 5)
    chances = chooser_of(policy_of(rule), knowledge).weigh(
        chooser_of(policy_of(rule), knowledge).project(seen), of_rule(rule, prices, 10_000, 6_000)
    )[0]
    level, response, deviation, shared, own = knowledge.project(seen.x)[0]
    votes = [0] * len(prices)
    for u, v in zip(*table(7, 32, 1.0), strict=True):
        a, b = level + deviation * u, max(response + shared * u + own * v, RESPONSE_MIN)
        worth = [(p / 10_000 - 0.6) / (1 + np.exp(-(a + b * 5 * (1 - p / 10_000)))) for p in prices]
        worth = [value * (1 - hurdle * (1 - p / 10_000)) for value, p in zip(worth, prices, strict=True)]
        votes[int(np.argmax(worth))] += 1
    assert chances.tolist() == [vote / 32 for vote in votes]


def test_a_higher_hurdle_keeps_prices_nearer_to_list():
    prices, seen = list(range(7_000, 10_001, 250)), scene(1, 5)
    means = []
    for hurdle in (0.0, 0.2, 0.5, 1.0):
        rule = Thompson(features=FEATURES, explore=0.0, hurdle=hurdle, prior=Prior(response=2.0))
        chooser = chooser_of(policy_of(rule))
        chances = chooser.weigh(chooser.project(seen), of_rule(rule, prices, 10_000, 6_000))[0]
        means.append(float((chances * prices).sum()))
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_greedy_is_thompson_that_samples_nothing():
    knowledge = taught(Greedy(features=FEATURES))
    arms, seen = one(list(range(7_000, 10_001, 250)), 10_000, 6_000, Money()), scene(1, 5)
    greedy = chooser_of(policy_of(Greedy(features=FEATURES)), knowledge)
    cold = chooser_of(policy_of(Thompson(features=FEATURES, temper=0.0, explore=0.0, hurdle=0.0)), knowledge)
    assert (greedy.weigh(greedy.project(seen), arms) == cold.weigh(cold.project(seen), arms)).all()


@pytest.mark.parametrize("rule", [LinearQ(features=FEATURES, explore=0.1), Sarsa(features=FEATURES, explore=0.1)])
def test_values_that_have_learned_nothing_charge_list_price_but_for_the_explored_share(rule):
    chooser, arms = chooser_of(policy_of(rule)), of_rule(rule, [8_000, 9_000, 10_000, 11_000], 10_000, 6_000)
    rows = chooser.project(scene(3, 1))
    alone = [chooser.weigh(row[None], arms)[0].tolist() for row in rows]
    assert alone == [pytest.approx([0.025, 0.025, 0.925, 0.025])] * 3
    assert chooser.weigh(rows, stacked([arms] * 3)).tolist() == alone


@pytest.mark.parametrize("rule", LEARNING, ids=lambda rule: type(rule).__name__)
def test_where_all_prices_are_worth_the_same_every_learner_aims_at_list_price(rule):
    chooser = chooser_of(policy_of(rule))
    arms = of_rule(rule, [8_000, 9_000, 10_000], 10_000, 6_000)
    worthless = arms._replace(aims=np.zeros((1, 3)))
    chances = chooser.weigh(chooser.project(scene(1, 2)), worthless)[0]
    assert chances.argmax() == 2
    assert chances[2] == pytest.approx(1.0 - rule.explore * 2 / 3)


TIES = [
    ([8_000, 9_000, 10_000, 11_000], [1.0, 1.0, 1.0, 1.0], 10_000),
    ([8_000, 9_000, 10_000, 11_000], [1.0, 1.0, 0.0, 1.0], 11_000),  # of two equally near the higher
    ([8_000, 9_000, 10_000, 12_000], [1.0, 1.0, 0.0, 1.0], 9_000),  # the nearer, though it lies below
    ([8_000, 9_000, 10_000, 11_000], [1.0, 0.5, 0.5, 0.5], 8_000),  # no tie
    ([9_999, 10_000], [1.0, np.nextafter(1.0, 0.0)], 9_999),  # nor is the next float one
    ([7_000, 8_000], [1.0, 1.0], 8_000),
]


@pytest.mark.parametrize(("prices", "worth", "price"), TIES)
def test_of_equal_prices_the_one_nearest_to_list_is_best_alone_and_padded_in_company(prices, worth, price):
    arms, wide = one(prices, 10_000, None, Money()), one(list(range(5_000, 10_001, 500)), 10_000, None, Money())
    assert prices[best(np.array([worth]), arms)[0]] == price
    assert prices[best(np.array([[worth, worth]]), arms)[0, 1]] == price
    padded = np.pad([worth, worth], ((0, 0), (0, 11 - len(worth))), mode="edge")
    padded[1] = 1.0
    assert best(padded, stacked([arms, wide])).tolist() == [prices.index(price), 10]
    assert best(np.stack([padded, padded], 1), stacked([arms, wide])).tolist() == [[prices.index(price)] * 2, [10] * 2]


def test_another_seed_has_another_table_and_the_same_seed_the_same():
    first, again, other = table(1, 64, 0.5), table(1, 64, 0.5), table(2, 64, 0.5)
    assert (first[0] == again[0]).all()
    assert (first[0] != other[0]).any()
    assert not np.array_equal(first[0], first[1])


def test_without_a_known_cost_revenue_counts_and_the_source_is_said():
    assert cost_of(700, 1_000, Money(assumed_cost_permille=500)) == (700.0, "catalogue")
    assert cost_of(None, 1_000, Money(assumed_cost_permille=500)) == (500.0, "assumed")
    assert cost_of(None, 1_000, Money()) == (0.0, "none")
    assert one([900, 1_000], 1_000, None, Money()).gains[0].tolist() == [0.9, 1.0]
    assert one([900, 1_000], 1_000, 600, Money()).gains[0].tolist() == pytest.approx([0.3, 0.4])


def test_the_hurdle_grows_with_the_distance_from_list_on_both_sides():
    arms = one([8_000, 9_000, 10_000, 11_000], 10_000, 6_000, Money(), hurdle=0.5)
    kept = (arms.aims / arms.gains)[0].tolist()
    assert kept == pytest.approx([1.0 - 0.5 * 0.2, 1.0 - 0.5 * 0.1, 1.0, 1.0 - 0.5 * 0.1])


def test_a_target_that_lies_half_way_is_rounded_up():
    chooser = chooser_of(policy_of(FixedPrice(multiplier_permille=955)))
    rows, prices = chooser.project(Scene(np.empty((1, 0)), np.array([0]))), [1_050, 1_051, 1_100]
    assert chooser.weigh(rows, one(prices, 1_100, None, Money()))[0].tolist() == [0.0, 1.0, 0.0]  # 1,050.5
    assert probabilities(FixedPrice(multiplier_permille=955), prices, 1_100, 0) == [0.0, 1.0, 0.0]


def test_a_price_that_brings_people_back_is_worth_it_alike_for_all_and_whether_or_not_it_sells():
    prices, seen = [8_000, 9_000, 10_000], scene(50, 1)
    base = Thompson(features=FEATURES, explore=0.0)
    knowledge, paid = taught(base), []
    for effect in (0.0, 0.05, 0.5):
        rule = replace(base, churn=Churn(weight=1.0, slope="randomised", slope_value=effect))
        chooser = chooser_of(policy_of(rule), knowledge)
        arms = of_rule(rule, prices, 10_000, 6_000)
        assert arms.reward(0, False) == pytest.approx(effect)
        assert arms.reward(1, True) == pytest.approx(0.3 + effect / 2)
        assert arms.reward(2, False) == 0.0
        rows = chooser.project(seen)
        worth = chooser.values(rows, stacked([arms] * 50)) - chooser_of(policy_of(base), knowledge).values(
            rows, stacked([of_rule(base, prices, 10_000, 6_000)] * 50)
        )
        assert worth == pytest.approx(np.tile([effect, effect / 2, 0.0], (50, 1)))
        paid.append(float((chooser.weigh(rows, stacked([arms] * 50)) * prices).sum(-1).mean()))
    assert paid[0] > paid[1] > paid[2] == 8_000.0


def test_a_charged_discount_moves_the_choice_towards_list():
    rule = Thompson(features=FEATURES, explore=0.0)
    knowledge, seen, prices = taught(rule), scene(50, 1), [8_000, 9_000, 10_000]
    chooser = chooser_of(policy_of(rule), knowledge)
    rows = chooser.project(seen)
    paid = []
    for weight in (0.0, 0.5, 10.0):
        arms = stacked([of_rule(rule, prices, 10_000, 6_000, weight)] * 50)
        paid.append(float((chooser.weigh(rows, arms) * prices).sum(-1).mean()))
    assert paid[0] <= paid[1] <= paid[2] == 10_000.0
    assert paid[0] < paid[2]
