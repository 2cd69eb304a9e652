"""pricing.explanation: a price in numbers that add up, and what of them could be verified."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace

from contracts.policies import Policy, Rails, SessionIntent, UniformRandom
from contracts.rules import Features, Greedy, LinearQ, Money, Thompson
from pricing.choosers import ignorance
from pricing.explanation import explain_decision
from pricing.recomputing import Background, known_by
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import Shop, item

NAMES = ("preference", "intent", "price")


def drawn(rule, *items, knowledge=None, **rails):
    """Return a draw of a policy with `rule`, the background of it, and its shop."""
    policy = Policy(name="any", number=2, seed=3, rule=rule, rails=Rails(**({"charm_endings": ()} | rails)))
    stocked = items or (item(cost=6_000),)
    shop = Shop(*stocked, policy=policy)
    shop.encoder = FakeEncoder()
    learned = None if knowledge is None else shop.teach(knowledge)
    decision = shop.one(shop.view())
    return decision, Background(policy=policy, item=stocked[0], known=known_by(policy, decision.learned, learned)), shop


def taught(rule):
    knowledge, dice = ignorance(rule), np.random.default_rng(3)
    for _ in range(200):
        x = np.append(1.0, dice.normal(0, 1, len(NAMES)))
        knowledge.learn(x, float(dice.uniform(0, 1)), bool(dice.random() < 0.4))
    return knowledge


def checks_of(explanation):
    return {check.what: check.agrees for check in explanation.checks}


def test_contributions_sum_to_the_log_odds_that_the_posterior_expects_at_the_price():
    rule = Thompson(features=Features(names=NAMES))
    knowledge = taught(rule)
    decision, background, _ = drawn(rule, knowledge=knowledge)
    explanation = explain_decision(decision, background)
    level, response, *_ = knowledge.project(np.array([decision.features]))[0]
    shift = 5 * (1 - decision.price / 10_000)
    assert sum(part.adds for part in explanation.parts) == pytest.approx(level + shift * response, abs=1e-9)
    assert explanation.log_odds == pytest.approx(level + shift * response, abs=1e-9)
    assert [part.feature for part in explanation.parts] == ["base", *NAMES]
    assert explanation.chosen.purchase == pytest.approx(1 / (1 + math.exp(-explanation.log_odds)), abs=1e-12)
    assert explanation.listed.purchase == pytest.approx(1 / (1 + math.exp(-level)), abs=1e-12)
    assert set(checks_of(explanation).values()) == {True}
    assert len(explanation.checks) == 7


def test_a_response_that_nobody_believes_in_is_raised_by_a_part_of_its_own():
    rule = Greedy(features=Features(names=("intent",)))
    knowledge = ignorance(rule)
    knowledge.mean[:] = (-1.0, 0.0, -2.0, 0.0)
    decision, background, _ = drawn(rule, knowledge=knowledge)
    explanation = explain_decision(replace(decision, price=8_500, multiplier=850), background)
    assert [part.feature for part in explanation.parts] == ["base", "intent", "least_response"]
    assert explanation.log_odds == pytest.approx(-1.0 + 0.75 * 0.05, abs=1e-12)
    assert explanation.chosen.purchase > explanation.listed.purchase


def test_margin_is_what_is_left_of_the_price_after_the_catalogues_cost():
    decision, background, _ = drawn(Thompson())
    explanation = explain_decision(decision, background)
    assert explanation.cost_source == "catalogue"
    assert (explanation.chosen.margin, explanation.listed.margin) == (decision.price - 6_000, 4_000)
    chance = explanation.chosen.purchase
    assert explanation.chosen.expected_margin == pytest.approx(chance * (decision.price - 6_000))
    assert explanation.chosen.expected_revenue == pytest.approx(chance * decision.price)


def test_without_a_cost_margin_is_not_available_and_an_assumed_one_is_a_share_of_list():
    decision, background, _ = drawn(Thompson(), item())
    explanation = explain_decision(decision, background)
    assert explanation.cost_source == "none"
    assert explanation.chosen.margin is explanation.chosen.expected_margin is explanation.listed.margin is None
    assert explanation.chosen.expected_revenue is not None
    assumed, background, _ = drawn(Thompson(money=Money(assumed_cost_permille=400)), item())
    explanation = explain_decision(assumed, background)
    assert (explanation.cost_source, explanation.listed.margin) == ("assumed", 6_000)


def test_a_policy_without_demand_has_no_chance_but_the_models_at_list_price():
    decision, background, _ = drawn(LinearQ(explore=1.0))  # or it would charge list price
    explanation = explain_decision(decision, background)
    assert (explanation.parts, explanation.log_odds, explanation.chosen.purchase) == ((), None, None)
    assert explanation.listed.purchase == decision.preference
    assert explanation.listed.purchase is not None


def test_options_are_the_feasible_prices_with_the_probabilities_they_were_drawn_by():
    decision, background, _ = drawn(SessionIntent(explore=0.4))
    options = explain_decision(decision, background).options
    assert [option.price for option in options] == [8_500, 9_000, 9_500, 10_000]
    assert [option.probability for option in options] == pytest.approx([0.7, 0.1, 0.1, 0.1])
    assert [option.price for option in options if option.chosen] == [decision.price]
    assert [option.permille for option in options] == [850, 900, 950, 1000]
    assert explain_decision(decision, Background()).options == options, "all of it is on the record"


def before_feasible(decision):
    """Return a record as it was written before decisions said what they were drawn from, by a policy that does not learn."""
    return replace(decision, feasible=None, probabilities=None, u=None, explored=None)


def test_an_older_record_has_the_probabilities_only_with_its_background():
    decision, background, _ = drawn(SessionIntent(explore=0.4))
    old = before_feasible(decision)
    assert {option.probability for option in explain_decision(old, Background()).options} == {None}
    assert explain_decision(old, background).options == explain_decision(decision, background).options
    assert checks_of(explain_decision(old, background)) == {"on_lattice": True, "again": True}


def test_a_draw_of_a_policy_that_does_not_learn_is_verified_like_any_other():
    decision, background, _ = drawn(UniformRandom(), charm_endings=(99,))
    checks = checks_of(explain_decision(decision, background))
    assert checks == dict.fromkeys(("on_lattice", "probabilities", "arm", "propensity", "number", "again"), True)


def test_the_share_of_list_is_rounded_half_up():
    decision, background, _ = drawn(SessionIntent(explore=0.4), item(list_price=4_999))
    options = explain_decision(decision, background).options
    assert [option.price for option in options] == [4_499, 4_749, 4_999]
    assert [option.permille for option in options] == [900, 950, 1000]  # of 899.98 and 949.99


def test_what_cannot_be_verified_says_for_want_of_what():
    decision, _, _ = drawn(Thompson(), item(), charm_endings=(99,))
    explanation = explain_decision(replace(decision, feasible=None), Background())
    found = {check.what: check.missing for check in explanation.checks if check.agrees is None}
    assert found == {
        "arm": (("endings", "any@2"),),
        "number": (("seed", "any@2"),),
        "again": (("policy", "any@2"), ("catalogue", "0"), ("learned", decision.learned[:12])),
    }
    assert [part.feature for part in explanation.parts][:2] == ["x0", "x1"]
    assert explanation.options == ()
    assert checks_of(explain_decision(decision, Background()))["arm"], "with feasible prices, no endings"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"price": 9_123}, "on_lattice"),
        ({"u": 0.9999}, "arm"),
        ({"u": 0.9999}, "number"),
        ({"propensity": 0.123}, "propensity"),
        ({"feasible": (8_500, 9_000, 9_500, 9_999)}, "again"),
        ({"probabilities": (0.5, 0.5, 0.5, 0.5)}, "probabilities"),
        ({"learned": "0" * 64}, "again"),
    ],
)
def test_a_record_that_was_tampered_with_does_not_agree(change, what):
    decision, background, _ = drawn(Thompson())
    assert checks_of(explain_decision(decision, background))[what]
    assert checks_of(explain_decision(replace(decision, **change), background))[what] is False


@pytest.mark.parametrize("rule", [Thompson(features=Features(names=NAMES)), LinearQ()], ids=["demand", "value"])
def test_what_had_learned_nothing_yet_is_told_from_what_had(rule):
    decision, background, _ = drawn(rule)
    assert explain_decision(decision, background).untaught
    assert not explain_decision(decision, Background()).untaught, "without the policy nobody can tell"
    plain, background, _ = drawn(SessionIntent())
    assert not explain_decision(plain, background).untaught
    if isinstance(rule, Thompson):
        decision, background, _ = drawn(rule, knowledge=taught(rule))
        assert not explain_decision(decision, background).untaught


def test_a_held_price_is_explained_by_its_draw():
    draw, background, shop = drawn(Thompson())
    held = shop.one(shop.view(1))
    alone = explain_decision(held, background)
    assert (alone.draw, alone.parts) == (None, ())
    whole = explain_decision(held, replace(background, draw=draw), background)
    assert (whole.decision, whole.draw) == (held, draw)
    assert whole.options == explain_decision(draw, background).options
    assert whole.parts
    assert set(checks_of(whole).values()) == {True}
    assert "draw:probabilities" in checks_of(whole)


def test_a_prescribed_price_had_no_options():
    _, background, shop = drawn(SessionIntent())
    bought = shop.one(shop.purchase(1))
    explanation = explain_decision(bought, background)
    assert explanation.options == ()
    assert set(checks_of(explanation).values()) == {True}
