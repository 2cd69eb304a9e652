"""pricing.lessons: what teaches and what does not, how much of one user, the discount budget, and poisoned prices."""

from __future__ import annotations

from math import exp
from random import Random

import numpy as np
import pytest

from contracts.errors import BadReference, BrokenInvariant
from contracts.learned import BudgetPeriod
from contracts.outcomes import NextDraw
from contracts.policies import Policy, PolicyBook, encode_policy, policy_key
from contracts.rules import DiscountBudget, Features, Guard, LinearQ, Money, Prior, Sarsa, Thompson
from pricing.arms import one
from pricing.choosers import chooser_of
from pricing.contexts import Scene
from pricing.learned import known_of
from pricing.lessons import Lesson, Lessons
from tests.pricing.outcome_topic import PRICES, START_MS, bought, outcome

FEATURES = Features(names=("price",))
HOUR_MS = 3_600_000


def lessons_for(rule=None, features_of=lambda _: None, partitions=1, **policy):
    rule = Thompson(features=FEATURES) if rule is None else rule
    return Lessons(Policy(name="p", number=1, rule=rule, **policy), partitions, None, features_of)


def taught(mind, *outcomes, partition=0):
    """Have `mind` go past `outcomes` as the next records of a partition; return what it says of each."""
    said = []
    for one_ in outcomes:
        order_ms = 0 if one_ is None else one_.resolved_ms
        said.append(mind.learn(Lesson(order_ms, partition, mind.positions[partition], one_)))
    return said


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, None),
        ({"held_out": True, "price": 10_000}, None),
        ({"learnable": False, "unlearnable": ("implausible",)}, "unlearnable"),
        ({"learnable": False, "unlearnable": ("consent", "forced")}, "unlearnable"),
        ({"exposed": False}, "not_exposed"),
        ({"features": None, "feature_version": None}, "other_features"),
        ({"features": (1.0,)}, "other_features"),
        ({"feature_version": 2}, "other_features"),
        ({"policy": "friend@1"}, None),
        ({"policy": "stranger@1"}, "other_features"),
        ({"policy": "unknown@1"}, "other_features"),
        ({"drawn_ms": START_MS - 1}, "too_old"),
    ],
)
def test_what_teaches_and_what_does_not(more, why):
    known = {"friend@1": FEATURES, "stranger@1": Features(names=("intent",))}
    rule = Thompson(features=FEATURES, guard=Guard(since_ms=START_MS))
    mind = lessons_for(rule, known.get)
    before = mind.knowledge.digest()
    assert taught(mind, outcome(**more)) == [why]
    assert (mind.knowledge.digest() == before) == (why is not None)
    assert mind.version().left == ({} if why is None else {why: 1})


def test_a_policy_made_for_a_model_learns_from_draws_with_that_model_only():
    mind = lessons_for(model="0123456789abcdef", fallback="list@1")
    other, own = outcome(model="fedcba9876543210"), outcome(1, model="0123456789abcdef")
    assert taught(mind, other, own) == ["other_features", None]


def test_purchases_that_reward_no_draw_and_erased_outcomes_are_gone_past():
    mind = lessons_for(partitions=2)
    assert taught(mind, None, None, partition=1) == [None, None]
    assert (mind.version().positions, mind.version().outcomes) == ((0, 2), 0)


def test_a_user_teaches_so_much_in_a_window_and_again_in_the_next():
    rule = Thompson(features=FEATURES, guard=Guard(user_outcomes_max=2, user_window_ms=HOUR_MS))
    mind = lessons_for(rule)
    many = [
        outcome(n, user, drawn_ms=START_MS + n) for n, user in enumerate(["ann", "ann", "bob", "ann", "bob", "ann"])
    ]
    assert taught(mind, *many) == [None, None, None, "influence", None, "influence"]
    assert taught(mind, outcome(7, "ann", drawn_ms=START_MS + HOUR_MS)) == [None]


def test_draws_that_are_not_learned_take_nothing_of_a_users_share():
    rule = Thompson(features=FEATURES, guard=Guard(user_outcomes_max=1))
    unseen = outcome(exposed=False)
    assert taught(lessons_for(rule), unseen, unseen, outcome(1), outcome(2)) == ["not_exposed"] * 2 + [
        None,
        "influence",
    ]


def test_a_version_of_another_width_is_no_beginning():
    version = lessons_for().version()
    other = Policy(name="p", number=1, rule=Thompson(features=Features(names=("price", "intent"))))
    with pytest.raises(BadReference, match="is not one over 6 weights"):
        Lessons(other, 1, version, lambda _: None)


@pytest.mark.parametrize("rule", [Thompson(features=FEATURES), LinearQ(features=FEATURES)], ids=["demand", "values"])
def test_what_a_learner_publishes_workers_take_and_price_by(rule):
    mind, policy = lessons_for(rule), Policy(name="p", number=1, rule=rule)
    taught(mind, *[outcome(number, f"user{number}", bought=bought(9_000)) for number in range(50)])
    book, record = PolicyBook(), mind.version()
    for one_ in (policy, record):
        book.apply(book.seen, policy_key(one_), encode_policy(one_))
    assert known_of(policy, book.knowledge_of(policy)).knowledge.encode() == mind.knowledge.encode()


def test_a_learner_whose_belief_rounding_has_damaged_ends_with_a_sentence_and_publishes_nothing():
    """Spreads so far apart are refused in a policy file; whatever the cause, workers would refuse the version."""
    mind = lessons_for(Thompson(features=FEATURES, prior=Prior(features_spread=1e-9, level_spread=10.0)))
    taught(mind, *[outcome(number, f"user{number}", features=(1.0, number / 10)) for number in range(20)])
    with pytest.raises(BrokenInvariant, match=r"Version 1 of what p@1 has learned is not finite.* report it") as end:
        mind.version()
    assert end.value.exit_code == 70


@pytest.mark.parametrize(("windows_later", "credited"), [(1, True), (2, False)])
def test_an_outcome_waits_for_the_next_draw_of_its_user_into_the_next_window_of_memory_and_no_longer(
    windows_later, credited
):
    """The draw earned nothing itself; the next one is worth something by what others taught."""
    rule = Sarsa(features=FEATURES, discount=0.5, explore=0.1, guard=Guard(user_window_ms=HOUR_MS))
    mind = lessons_for(rule)
    good = [outcome(n, f"user{n}", drawn_ms=START_MS, bought=bought(9_000)) for n in range(20)]
    nothing = {"learnable": False, "unlearnable": ("consent",)}
    after = outcome(31, "ann", drawn_ms=START_MS + windows_later * HOUR_MS, **nothing)
    following = NextDraw(draw_id="draw31", item="lamp", price=9_000, drawn_ms=after.drawn_ms)
    first = outcome(30, "ann", drawn_ms=START_MS + 1, next=following)
    taught(mind, *good, first)
    before = mind.knowledge.weights.copy()
    between = outcome(40, "eve", drawn_ms=START_MS + (windows_later - 1) * HOUR_MS + 2, **nothing)
    taught(mind, between)
    waits = (mind.knowledge.weights == before).all()
    taught(mind, after)
    assert waits
    worth = float((before * np.array([1.0, 0.5]) * np.array([[1.0], [0.5], [0.25]])).sum())
    reach = rule.discount ** ((after.drawn_ms - first.drawn_ms) / rule.tau_ms)
    moved = float((mind.knowledge.weights - before)[0, 0])
    error = -worth + (reach * worth if credited else 0.0)
    assert moved == pytest.approx(rule.rate * error / 2)


def chained(elapsed_ms=0, **later):
    """Return by how much a draw that earned nothing is credited with the user's next, in shares of what that is worth."""
    mind = lessons_for(Sarsa(features=FEATURES, discount=0.5))
    taught(mind, *[outcome(n, f"user{n}", bought=bought(9_000)) for n in range(20)])
    before = mind.knowledge.weights.copy()
    worth = float((before * np.array([1.0, 0.5]) * np.array([[1.0], [0.5], [0.25]])).sum())
    after = outcome(31, "ann", drawn_ms=START_MS + 100 + elapsed_ms, **later)
    following = NextDraw(draw_id="draw31", item="lamp", price=9_000, drawn_ms=after.drawn_ms)
    taught(mind, outcome(30, "ann", drawn_ms=START_MS + 100, next=following), after)
    moved = float((mind.knowledge.weights - before)[0, 0])
    return moved / (mind._rule.rate * worth / 2) + 1.0


def test_draws_of_one_instant_follow_one_another():
    assert chained(learnable=False, unlearnable=("consent",)) == pytest.approx(1.0)


def test_a_next_draw_without_features_that_the_policy_understands_ends_the_chain():
    assert chained(1_000, features=None, feature_version=None) == pytest.approx(0.0)


# -- the discount budget -------------------------------------------------------------------------------------------------


def budgeted(permille=50, step=2.0, rule=Thompson, features_of=lambda _: None, **more):
    budget = DiscountBudget(permille=permille, period_ms=HOUR_MS, step=step)
    return lessons_for(rule(features=FEATURES, money=Money(discount_budget=budget), **more), features_of)


def purchase_at(hour, price, **more):
    return outcome(
        hour, f"user{hour}{price}", drawn_ms=START_MS + hour * HOUR_MS, price=price, bought=bought(price), **more
    )


def weight_after(mind, *outcomes):
    taught(mind, *outcomes)
    return mind.version().discount_weight


def test_lambda_follows_what_was_realised_at_the_end_of_each_period():
    mind = budgeted()
    assert weight_after(mind, purchase_at(0, 8_000), purchase_at(0, 10_000)) == 0.0, "the period has not ended"
    assert weight_after(mind, purchase_at(1, 10_000)) == pytest.approx(2.0 * (0.10 - 0.05))
    assert weight_after(mind, purchase_at(2, 9_000)) == pytest.approx(2.0 * 0.05 - 2.0 * 0.05), "nothing was given"
    assert weight_after(mind, purchase_at(5, 8_000)) == pytest.approx(2.0 * 0.05), "hours without a purchase leave it"
    assert weight_after(mind, purchase_at(6, 10_000)) == pytest.approx(2.0 * 0.05 + 2.0 * 0.15)


def test_lambda_is_never_below_zero_and_counts_own_purchases_alone():
    mind = budgeted()
    assert weight_after(mind, purchase_at(0, 10_000), purchase_at(1, 10_000)) == 0.0
    others = [purchase_at(2, 8_000, held_out=True), outcome(9, drawn_ms=START_MS + 2 * HOUR_MS, price=8_000)]
    assert weight_after(mind, *others, purchase_at(3, 10_000)) == 0.0
    friends = budgeted(features_of={"friend@1": FEATURES}.get)
    discounted = [purchase_at(hour, 8_000, policy="friend@1") for hour in range(3)]
    assert weight_after(friends, *discounted, purchase_at(3, 10_000)) == 0.0, (
        "they teach demand, and spend another budget"
    )
    assert friends.version().outcomes == 4


TEACHES_NOTHING = {
    "unlearnable": {"learnable": False, "unlearnable": ("implausible",)},
    "not_exposed": {"exposed": False},
    "other_features": {"features": None, "feature_version": None},
    "too_old": {"drawn_ms": START_MS - 1},
}


@pytest.mark.parametrize("why", TEACHES_NOTHING)
def test_a_purchase_that_teaches_nothing_was_given_its_discount_all_the_same(why):
    mind = budgeted(guard=Guard(since_ms=START_MS))
    bargain = outcome(**{"price": 8_000, "bought": bought(8_000)} | TEACHES_NOTHING[why])
    assert taught(mind, bargain) == [why]
    assert weight_after(mind, purchase_at(2, 10_000)) == pytest.approx(2.0 * (0.20 - 0.05))


def test_what_a_user_buys_beyond_the_limit_of_influence_is_spent_from_the_budget():
    """The trap: one user buys a thousand times at a discount, teaches five times, and lambda hears of five."""
    mind = budgeted(guard=Guard(user_outcomes_max=1))
    many = [outcome(n, "ann", price=8_000 if n else 10_000, bought=bought(8_000)) for n in range(10)]
    assert taught(mind, *many) == [None] + ["influence"] * 9
    assert mind.version().budget == BudgetPeriod(
        period=many[0].resolved_ms // HOUR_MS, discount=pytest.approx(1.8), purchases=10
    )
    assert weight_after(mind, purchase_at(2, 10_000)) == pytest.approx(2.0 * (0.18 - 0.05))


def test_without_a_budget_there_is_no_lambda():
    mind = lessons_for()
    assert weight_after(mind, purchase_at(0, 8_000), purchase_at(1, 8_000)) == 0.0
    assert mind.version().budget is None


def test_lambda_makes_discounts_dear():
    rule, arms = Thompson(features=FEATURES, temper=0.0, explore=0.0), {}
    for weight in (0.0, 10.0):
        arms = one(PRICES, 10_000, None, rule.money, weight)
        chooser = chooser_of(Policy(name="p", number=1, rule=rule))
        chances = chooser.weigh(chooser.project(Scene(np.array([[1.0, 0.0]]), np.array([0]))), arms)[0]
        assert PRICES[int(chances.argmax())] == (10_000 if weight else 8_000)


def test_lambda_pays_nothing_for_a_price_above_list():
    dear = one((9_000, 10_000, 11_000), 10_000, None, Money(), 2.0)
    assert dear.gains[0].tolist() == pytest.approx([0.9 - 2.0 * 0.1, 1.0, 1.1])


def test_a_purchase_under_lambda_is_worth_less_to_a_value():
    dear, cheap = budgeted(permille=0, step=50.0, rule=LinearQ), budgeted(permille=1000, rule=LinearQ)
    for mind in (dear, cheap):
        taught(mind, *[purchase_at(hour, 8_000) for hour in range(6)])
    assert dear.version().discount_weight > 5.0 > cheap.version().discount_weight == 0.0
    assert dear.knowledge.weights[0, 0] < 0.0 < cheap.knowledge.weights[0, 0]


def discounts_under(permille, periods=40, each=60):
    """Let a policy price a shop whose shoppers love discounts, with a budget; return the mean discount of each period's sales."""
    rnd, mind, out = Random(3), budgeted(permille, step=3.0), []
    rule = mind._rule
    for period in range(periods):
        arms = one(PRICES, 10_000, 6_000, rule.money, mind.version().discount_weight)
        chooser, sold = chooser_of(Policy(name="p", number=1, rule=rule), mind.knowledge.copy()), []
        for number in range(each):
            x = rnd.gauss(0.0, 1.0)
            chances = chooser.weigh(chooser.project(Scene(np.array([[1.0, x]]), np.array([0]))), arms)[0]
            price = rnd.choices(PRICES, chances.tolist())[0]
            buys = rnd.random() < 1.0 / (1.0 + exp(1.0 - 8.0 * (1.0 - price / 10_000)))
            sold += [1.0 - price / 10_000] * buys
            drawn_ms = START_MS + period * HOUR_MS + number
            taught(mind, outcome(number, f"user{number}", drawn_ms=drawn_ms, price=price, features=(1.0, x),
                                 bought=bought(price) if buys else None))  # fmt: skip
        out.append(np.mean(sold))
    return out


def test_lambda_holds_what_is_given_to_the_budget():
    free, held = discounts_under(1000), discounts_under(60)
    assert np.mean(free[-20:]) > 0.12
    assert np.mean(held[-20:]) == pytest.approx(0.06, abs=0.015)


# -- poisoning -------------------------------------------------------------------------------------------------------------


DRAWS_A_DAY = (1,) * 56 + (2,) * 19 + (3,) * 11 + (5,) * 8 + (12,) * 4 + (30,) * 2
"""Of a hundred users; about as in a night of REES46."""


def season(poisoned, seed=0, days=2, users=1_200):
    """Draws of two categories (the feature `price` tells them apart); with 1 % of the users making a fifth of the draws of the
    second, who never buy at list price and always at the deepest discount.
    """
    rnd = Random(seed)
    honest = [(day + rnd.random(), f"user{user}", rnd.randrange(2), rnd.choice(PRICES), rnd.random())
              for day in range(days) for user in range(users) for _ in range(rnd.choice(DRAWS_A_DAY))]  # fmt: skip
    many = sum(category for _, _, category, *_ in honest) // 4 if poisoned else 0
    bad = [(days * rnd.random(), f"bad{rnd.randrange(users // 100)}", 1, rnd.choice(PRICES), None) for _ in range(many)]
    for number, (day, user, category, price, luck) in enumerate(sorted(honest + bad, key=lambda draw: draw[0])):
        shift = 5.0 * (1.0 - price / 10_000)
        buys = price == PRICES[0] if luck is None else luck < 1.0 / (1.0 + np.exp(1.2 - 0.9 * shift))
        when_ms = START_MS + int(day * 86_400_000)
        yield outcome(number, user, drawn_ms=when_ms, price=price, features=(1.0, 2.0 * category - 1.0),
                      bought=bought(price) if buys else None)  # fmt: skip


def mean_price(mind, category):
    """Return what a draw of `category` costs on average under what was learned."""
    rule = mind._rule
    chooser, arms = (
        chooser_of(Policy(name="p", number=1, rule=rule), mind.knowledge),
        one(PRICES, 10_000, 6_000, rule.money),
    )
    x = np.array([[1.0, 2.0 * category - 1.0]])
    return float((chooser.weigh(chooser.project(Scene(x, np.array([0]))), arms)[0] * PRICES).sum())


def learned_in(season_, guard):
    mind = lessons_for(Thompson(features=FEATURES, guard=guard))
    taught(mind, *season_)
    return mind


@pytest.mark.parametrize("seed", range(2))
def test_one_percent_of_users_with_a_fifth_of_the_draws_do_not_move_a_mean_price_by_a_step(seed):
    honest, poisoned = (learned_in(season(bad, seed), Guard()) for bad in (False, True))
    moved = [abs(mean_price(poisoned, category) - mean_price(honest, category)) for category in (0, 1)]
    step = PRICES[1] - PRICES[0]
    assert max(moved) <= step
    believing = learned_in(season(True, seed), Guard(user_outcomes_max=1_000_000))
    assert abs(mean_price(believing, 1) - mean_price(honest, 1)) > step, "it is the bound that holds them"
