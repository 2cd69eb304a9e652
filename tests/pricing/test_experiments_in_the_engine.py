"""The engine under experiments: who is priced by what, what decisions say of it, and what a held-out user pays."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from contracts.decisions import Decision
from contracts.experiments import Experiment, Namespace, RunningExperiments, Variant
from contracts.outcomes import decode_outcome
from contracts.policies import ListPrice, Policy, Rails, SessionIntent, encode_policy, policy_key
from contracts.rules import Features, Thompson
from pricing.assignment import hash_of
from pricing.choosers import ignorance
from pricing.menus import MenuShelf
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.independent_checker import Terms, check
from tests.pricing.shop import MINUTE_MS, POLICY, START_MS, Shop, item

RAILS = Rails(charm_endings=())
BOLD = Policy(name="bold", number=1, seed=7, rule=SessionIntent(discounts_permille=(100,), explore=0.4), rails=RAILS)
HALVES = (
    Variant(name="plain", weight=0.5, policy="steady@1"),
    Variant(name="bold", weight=0.5, policy="bold@1"),
)
SPRING = Experiment(name="spring", number=1, variants=HALVES, control="plain", holdout=0.0)
USERS = [f"user-{number}" for number in range(300)]


def tell(shop: Shop, *records) -> None:
    for record in records:
        shop.policies.apply(shop.policies.seen, policy_key(record), encode_policy(record))


def a_shop(experiment: Experiment = SPRING, **more) -> Shop:
    shop = Shop(**more)
    tell(shop, BOLD, experiment, RunningExperiments(experiments=(experiment.version,)))
    return shop


def views(shop: Shop, minute: float = 0, **more) -> dict[str, Decision]:
    decisions = shop.feed(*(shop.view(minute, user=user, **more) for user in USERS))
    return {decision.user: decision for decision in decisions}


def test_each_user_is_priced_by_the_policy_of_the_own_variant_and_the_decision_says_so():
    for user, decision in views(a_shop()).items():
        bold = hash_of("spring", user, 2) >= 0.5
        assert decision.experiment == "spring@1"
        assert (decision.variant, decision.policy) == (("bold", "bold@1") if bold else ("plain", "steady@1"))
        assert not decision.held_out
        assert bold or (decision.price, decision.propensity) == (8_500, 1.0)


def test_a_variant_draws_as_its_policy_would_alone():
    alone = views(Shop(policy=BOLD))
    bold = {user: one for user, one in views(a_shop()).items() if one.variant == "bold"}
    assert len({one.price for one in bold.values()}) > 1
    for user, one in bold.items():
        expected = alone[user]
        assert (one.price, one.propensity, one.trail) == (expected.price, expected.propensity, expected.trail)


def test_who_is_held_out_pays_list_and_the_prices_that_were_not_chosen_stay_on_record():
    decisions = views(a_shop(replace(SPRING, holdout=0.4))).values()
    held = [one for one in decisions if one.held_out]
    assert 0.3 < len(held) / len(USERS) < 0.5
    assert {one.variant for one in held} == {"plain", "bold"}
    for one in held:
        assert (one.price, one.status, one.binding_rule, one.reasons) == (10_000, "drawn", "holdout", ("held_out",))
        assert not one.forced
        assert [step.rail for step in one.trail] == ["discount_only", "band", "step"]
        assert one.draw_id == one.decision_id
        assert one.policy == ("bold@1" if one.variant == "bold" else "steady@1")


def test_propensities_are_those_over_the_lot_of_the_holdout_and_the_draw():
    h, explore = 0.4, 0.4
    decisions = views(a_shop(replace(SPRING, holdout=h))).values()
    feasible = 4  # 850, 900, 950 and 1000 permille: the step limit keeps the others out
    for one in decisions:
        if one.variant == "plain":
            assert one.propensity == pytest.approx(h if one.price == 10_000 else 1 - h)
        else:
            aimed = (1 - explore) * (one.price == 9_000) + explore / feasible
            assert one.propensity == pytest.approx((1 - h) * aimed + h * (one.price == 10_000))


def test_every_decision_in_an_experiment_explains_itself_to_an_independent_checker():
    shop = a_shop(replace(SPRING, holdout=0.4))
    views(shop)
    terms = Terms(
        list_price=10_000,
        multipliers=RAILS.multipliers,
        endings=(),
        band=(RAILS.band_low_permille, RAILS.band_high_permille),
        margin=RAILS.margin_min_permille,
        step=RAILS.step_max_permille,
        may_raise=False,
    )
    assert len(shop.last.decisions) == len(USERS)
    for _, value in shop.last.decisions:
        check(value, terms, last=10_000, holdout=0.4)


def test_a_held_out_offer_is_held_at_list_price_with_the_same_propensity():
    shop = a_shop(replace(SPRING, holdout=0.4))
    drawn, held = views(shop), views(shop, 1)
    for user, decision in held.items():
        assert (decision.status, decision.price) == ("held", drawn[user].price)
        assert decision.propensity == drawn[user].propensity
        assert (decision.experiment, decision.held_out) == ("spring@1", drawn[user].held_out)


def test_a_single_feasible_price_is_forced_whatever_the_lot():
    shop = a_shop(replace(SPRING, holdout=0.4))
    shop.stock(item("rug", 10_000, floor=10_000))
    for decision in views(shop, what="rug").values():
        assert (decision.forced, decision.propensity, decision.reasons) == (True, 1.0, ("only_list_feasible",))


def test_without_consent_nobody_is_in_an_experiment():
    shop = a_shop(consent_default=False)
    assert {(one.experiment, one.policy) for one in views(shop).values()} == {(None, "steady@1")}
    shop.feed(shop.consent(True, user="user-1"))
    assert shop.one(shop.view(user="user-1")).experiment == "spring@1"
    withdrawal = shop.feed(shop.consent(False, 1, user="user-1"))[0]
    assert (withdrawal.experiment, withdrawal.price) == (None, 10_000)


def test_before_its_start_and_from_its_stop_on_an_experiment_prices_nothing():
    shop = a_shop(replace(SPRING, start_ms=START_MS + MINUTE_MS, stop_ms=START_MS + 2 * MINUTE_MS))
    shop.stock(item("rug"))
    shop.stock(item("vase"))
    assert shop.one(shop.view(0)).experiment is None
    assert shop.one(shop.view(1, "rug")).experiment == "spring@1"
    assert shop.one(shop.view(2, "vase")).experiment is None


def test_who_is_not_covered_or_in_another_namespace_is_priced_by_the_current_policy():
    space = Namespace(name="prices", start=0.0, end=0.5)
    decisions = views(a_shop(replace(SPRING, coverage=0.5, namespace=space)))
    inside = {user for user, one in decisions.items() if one.experiment}
    assert 40 < len(inside) < 110
    assert {one.policy for user, one in decisions.items() if user not in inside} == {"steady@1"}
    assert all(hash_of("__prices", user, 1) < 0.5 for user in inside)


def test_a_stopped_experiment_prices_nobody():
    shop = a_shop()
    tell(shop, RunningExperiments())
    assert {one.experiment for one in views(shop).values()} == {None}


def test_the_kill_switch_is_stronger_than_an_experiment():
    shop = a_shop()
    shop.kill_switch(True)
    for decision in views(shop).values():
        assert (decision.price, decision.status, decision.forced) == (10_000, "list", True)


def test_a_variant_made_for_another_model_is_priced_by_its_fallback_and_says_so():
    made = Policy(name="made", number=1, rule=ListPrice(), rails=RAILS, model="other", fallback="bold@1")
    odd = replace(SPRING, variants=(HALVES[0], replace(HALVES[1], policy="made@1")))
    shop = Shop()
    tell(shop, BOLD, made, odd, RunningExperiments(experiments=("spring@1",)))
    shop.encoder = FakeEncoder()
    found = {(one.policy, one.reasons[0] == "model_mismatch") for one in views(shop).values()}
    assert found == {("steady@1", False), ("bold@1", True)}


def test_a_variant_made_for_a_model_follows_when_that_model_comes_and_goes():
    made_for = replace(BOLD, number=2, model="fake", fallback="steady@1")
    shop = Shop()
    halves = (HALVES[0], replace(HALVES[1], policy="bold@2"))
    tell(shop, made_for, replace(SPRING, variants=halves), RunningExperiments(experiments=("spring@1",)))
    seen = []
    for minute, encoder in enumerate((None, FakeEncoder(), None)):
        shop.encoder = encoder
        made = views(shop, minute * 40)
        seen.append({one.policy for one in made.values() if one.variant == "bold"})
    assert seen == [{"steady@1"}, {"bold@2"}, {"steady@1"}]


def test_without_an_experiment_records_have_no_field_of_one():
    shop = Shop()
    shop.one(shop.view())
    ((_, value),) = shop.last.decisions
    assert b"experiment" not in value and b"variant" not in value and b"held_out" not in value


def test_a_shelf_keeps_the_books_that_are_asked_for_and_shares_its_room_among_them():
    shelf = MenuShelf()
    (alone,) = shelf.of(POLICY)
    first, second, again = shelf.of(POLICY, BOLD, POLICY)
    assert first is again is alone
    assert first.items_max == second.items_max == alone.items_max
    room = first.items_max
    (only,) = shelf.of(BOLD)
    assert only is second
    assert only.items_max == 2 * room


def test_outcomes_carry_the_stamps_of_their_draws_and_the_marginal_propensity():
    shop = a_shop(replace(SPRING, holdout=0.4))
    drawn = views(shop)
    shop.feed(shop.view(31, user="somebody else"))
    outcomes = {one.user: one for one in (decode_outcome(value) for _, value in shop.last.outcomes)}
    assert outcomes.keys() == drawn.keys()
    for user, one in outcomes.items():
        decision = drawn[user]
        for name in ("experiment", "variant", "held_out", "policy", "price", "propensity"):
            assert getattr(one, name) == getattr(decision, name)
        assert sum(one.probabilities) == pytest.approx(1.0)
        assert one.learnable


def test_an_outcome_outside_of_experiments_has_no_field_of_one():
    shop = Shop()
    shop.one(shop.view())
    shop.feed(shop.view(31, user="somebody else"))
    ((_, value),) = shop.last.outcomes
    assert b"experiment" not in value and b"variant" not in value and b"held_out" not in value


def test_a_variant_may_learn_and_its_draws_say_what_it_saw_held_out_or_not():
    h = 0.4
    learns = Policy(name="learns", number=1, seed=3, rule=Thompson(), rails=RAILS)
    odd = replace(SPRING, holdout=h, variants=(HALVES[0], replace(HALVES[1], policy="learns@1")))
    shop = Shop()
    tell(shop, learns, odd, RunningExperiments(experiments=("spring@1",)))
    decisions = views(shop)
    seen = {one.variant: one for one in decisions.values()}
    assert seen["plain"].features is None
    for one in decisions.values():
        if one.variant == "bold":
            listed = one.price == 10_000
            assert sum(one.probabilities) == pytest.approx(1.0)
            chances = one.probabilities[-1] if listed else (one.propensity / (1 - h))
            assert one.propensity == pytest.approx((1 - h) * chances + h * listed)
            assert any(chances == pytest.approx(chance) for chance in one.probabilities)
            assert listed or not one.held_out
    alone = Shop(policy=learns)
    for user, one in views(alone).items():
        if decisions[user].variant == "bold" and not decisions[user].held_out:
            assert (decisions[user].price, decisions[user].probabilities) == (one.price, one.probabilities)


def test_a_variant_prices_by_what_its_own_policy_has_learned():
    learns = Policy(name="learns", number=1, rule=Thompson(features=Features(names=("intent",))), rails=RAILS)
    odd = replace(SPRING, variants=(HALVES[0], replace(HALVES[1], policy="learns@1")))
    shop = Shop()
    tell(shop, learns, odd, RunningExperiments(experiments=("spring@1",)))
    knowledge = ignorance(learns.rule)
    knowledge.learn(np.array([1.0, 0.5]), 0.25, True)
    version = shop.teach(knowledge, policy=learns)
    known = {one.variant: one.learned for one in views(shop).values()}
    assert known == {"plain": None, "bold": version.digest}
