"""What was learned equals an independent pass over the topic, wherever versions were cut and learners started again."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.learned import Learned
from contracts.outcomes import Outcome, encode_outcome
from contracts.policies import Policy, encode_policy
from contracts.rules import Churn, DiscountBudget, Features, Guard, LinearQ, Money, Prior, Sarsa, Thompson
from pricing.demand import Posterior
from pricing.lessons import Lesson, Lessons
from tests.laws.naive_lessons import in_order, naive_demand, naive_lambda, naive_values, teaching
from tests.pricing.outcome_topic import made_up_topic

FEATURES = Features(names=("intent", "price"))
GUARD = Guard(user_outcomes_max=4, user_window_ms=7_200_000)
BUDGET = Money(discount_budget=DiscountBudget(permille=80))
CHURN = Churn(weight=2.0, slope="randomised", slope_value=0.1)
RULES = [
    Thompson(features=FEATURES, guard=GUARD, money=BUDGET),
    LinearQ(features=FEATURES, guard=GUARD, discount=0.9),
    # windows shorter than chains of draws: they are cut where two windows have gone by
    Sarsa(features=FEATURES, guard=Guard(user_outcomes_max=2, user_window_ms=1_800_000), discount=0.9, money=BUDGET),
]
KNOWN = {"p@1": FEATURES, "friend@1": FEATURES, "stranger@1": Features(names=("preference", "price"))}


def lessons_of(topic):
    """Return the lessons of every partition."""
    out = []
    for partition, records in enumerate(topic):
        highest = 0
        out.append([])
        for offset, record in enumerate(records):
            outcome = record if isinstance(record, Outcome) else None
            highest = max(highest, 0 if outcome is None else outcome.resolved_ms)
            out[-1].append(Lesson(highest, partition, offset, outcome))
    return out


def merged(by_partition):
    every = (one for lessons in by_partition for one in lessons)
    return sorted(every, key=lambda one: (one.order_ms, one.partition, one.offset))


def learner(policy, partitions, last=None):
    return Lessons(policy, partitions, last, KNOWN.get)


def raw(topic):
    return [
        list(enumerate(json.loads(encode_outcome(one)) if isinstance(one, Outcome) else None for one in records))
        for records in topic
    ]


def learned_in(policy, topic, cuts, restart):
    """Learn the topic in versions that end at `cuts` of the order; with `restart`, each by a learner that starts again."""
    by_partition = lessons_of(topic)
    ordered = merged(by_partition)
    mind, versions = learner(policy, len(topic)), []
    for start, end in pairwise([0, *cuts, len(ordered)]):
        for lesson in ordered[start:end]:
            mind.learn(lesson)
        versions.append(mind.version())
        if restart:
            last = msgspec.json.decode(encode_policy(versions[-1]), type=Learned)
            mind = learner(policy, len(topic), last)
            for lessons, begin, until in zip(by_partition, last.begins, last.positions, strict=True):
                for lesson in lessons[begin:until]:
                    mind.recall(lesson)
    return versions


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 420), max_size=6))
def test_wherever_versions_are_cut_and_learners_start_again_the_last_one_has_the_same_bytes(rule, seed, cuts):
    policy, topic = Policy(name="p", number=1, rule=rule), made_up_topic(seed, 3, 400, 12)
    cuts = sorted(min(cut, sum(map(len, topic))) for cut in cuts)
    whole = learned_in(policy, topic, [], restart=False)[-1]
    for restart in (False, True):
        last = learned_in(policy, topic, cuts, restart)[-1]
        assert msgspec.structs.replace(last, version=1) == whole
    assert whole.outcomes > 100
    assert {"unlearnable", "not_exposed", "other_features", "influence"} <= set(whole.left)
    assert whole.outcomes + sum(whole.left.values()) == sum(
        isinstance(one, Outcome) for records in topic for one in records
    )


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_the_posterior_equals_a_naive_pass_over_the_topic(seed, partitions):
    rule = Thompson(features=FEATURES, guard=GUARD, prior=Prior(level=-2.0, memory=1_000))
    topic = made_up_topic(seed, partitions, 600, 20)
    last = learned_in(Policy(name="p", number=1, rule=rule), topic, [100], restart=True)[-1]
    taught = teaching(in_order(raw(topic)), {"p@1", "friend@1"}, 4, 7_200_000)
    mean, covariance = naive_demand(taught, FEATURES.width, msgspec.structs.asdict(rule.prior))
    mine = Posterior(rule.prior, FEATURES.width)
    mine.restore(last.content)
    assert (last.outcomes, last.stragglers) == (len(taught), 0)
    np.testing.assert_allclose(mine.mean, mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mine.covariance, covariance, rtol=0, atol=1e-8)
    assert np.linalg.eigvalsh(mine.covariance)[0] > 0.0


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_lambda_follows_every_own_purchase_whatever_it_teaches(seed, partitions):
    topic = made_up_topic(seed, partitions, 600, 20)
    last = learned_in(Policy(name="p", number=1, rule=RULES[0]), topic, [100, 300], restart=True)[-1]
    weight, sold = naive_lambda(in_order(raw(topic)), "p@1", 80, 3_600_000, 1.0)
    assert last.discount_weight == pytest.approx(weight, abs=1e-12)
    assert (last.budget.discount, last.budget.purchases) == (pytest.approx(sum(sold)), len(sold))
    assert weight > 0.0


@pytest.mark.parametrize(
    "rule",
    [LinearQ(discount=0.9), Sarsa(discount=0.9, trace=0.7), Sarsa(), Sarsa(discount=0.9, churn=CHURN)],
    ids=["q", "sarsa", "bandit", "churn weighed"],
)
@pytest.mark.parametrize("seed", range(4))
def test_values_that_look_ahead_equal_a_naive_pass_over_the_topic(rule, seed):
    guard = Guard(user_outcomes_max=10_000, user_window_ms=30 * 86_400_000)
    rule = msgspec.structs.replace(rule, features=FEATURES, guard=guard, tau_ms=3_600_000, value_max=0.3)
    topic = made_up_topic(seed, 2, 400, 12)
    for records in topic:  # all teach: the naive pass knows of no gaps
        records[:] = [msgspec.structs.replace(one, policy="p@1", exposed=True, learnable=True, unlearnable=())
                      if isinstance(one, Outcome) else one for one in records]  # fmt: skip
    policy = Policy(name="p", number=1, rule=rule)
    mind = learner(policy, 2)
    for lesson in merged(lessons_of(topic)):
        mind.learn(lesson)
    settings_of = {name: getattr(rule, name) for name in ("rate", "discount", "tau_ms", "value_max")}
    trace = rule.trace if isinstance(rule, Sarsa) else None
    taught = [record for _, _, record in in_order(raw(topic)) if record is not None]
    besides = rule.churn.weight * rule.churn.slope_value
    waits = naive_values(taught, FEATURES.width, **settings_of, trace=trace, besides=besides)
    np.testing.assert_allclose(mind.knowledge.weights, waits, rtol=0, atol=1e-8)
    assert np.abs(waits).max() > 0.01


def test_partitions_that_come_late_are_counted_and_equal_a_pass_that_knows_the_versions():
    rule = Thompson(features=FEATURES, guard=GUARD)
    policy, topic = Policy(name="p", number=1, rule=rule), made_up_topic(5, 2, 300, 10)
    first, second = lessons_of(topic)
    mind, bounds = learner(policy, 2), []
    for piece in (first, second):  # the second partition had nothing to say until the first had been learned
        for lesson in piece:
            mind.learn(lesson)
        bounds.append(mind.version().positions)
    last = mind.version()
    taught = teaching(in_order(raw(topic), bounds), {"p@1", "friend@1"}, 4, 7_200_000)
    mean, _ = naive_demand(taught, FEATURES.width, msgspec.structs.asdict(rule.prior))
    assert last.stragglers > 100
    np.testing.assert_allclose(mind.knowledge.mean, mean, rtol=0, atol=1e-8)
