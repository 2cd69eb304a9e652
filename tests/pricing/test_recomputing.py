"""Decisions made again from their records: the same bytes, for every policy, status, rail and lot."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from contracts.decisions import Decision, decode_decision, encode_decision
from contracts.experiments import Experiment, RunningExperiments, Variant
from contracts.policies import (
    FixedPrice,
    ListPrice,
    Policy,
    Rails,
    SessionIntent,
    UniformRandom,
    encode_policy,
    policy_key,
)
from contracts.rules import Features, Greedy, LinearQ, Sarsa, Thompson
from pricing.recomputing import Background, feasible_prices, known_by, lacking, recompute
from pricing.verdicts import GONE
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import Shop, item
from tests.pricing.test_learning_policies_in_the_engine import taught

RULES = [
    ListPrice(), FixedPrice(multiplier_permille=880, explore=0.2), SessionIntent(explore=0.4), UniformRandom(),
    Thompson(explore=0.2), Greedy(features=Features(names=("intent", "price"))), LinearQ(explore=0.3), Sarsa(),
]  # fmt: skip
RAILS = [Rails(), Rails(charm_endings=(), raise_markets=("DE",), dwell_ms=3_600_000), Rails(step_max_permille=900)]


class Archive:
    """Everything that the records of a shop name, as a topic would keep it."""

    def __init__(self, shop: Shop, *policies: Policy, experiment: Experiment | None = None) -> None:
        self.items = dict(enumerate(shop.stocked))
        self.policies = {policy.version: policy for policy in policies}
        self.experiment = experiment
        self.drawn: dict[str, Decision] = {}

    def background(self, decision: Decision) -> Background:
        if decision.status == "drawn":
            self.drawn[decision.decision_id] = decision
        policy = self.policies[decision.policy]
        return Background(
            policy=policy,
            item=self.items.get(decision.catalogue_version),
            known=known_by(policy, decision.learned),
            holdout=None if self.experiment is None else self.experiment.holdout,
            draw=self.drawn.get(decision.draw_id or ""),
        )


class Counter(Shop):
    """A shop that remembers what it stocked, in the order of the catalogue."""

    def stock(self, one):
        self.stocked = [*getattr(self, "stocked", []), one]
        super().stock(one)


def items():
    return [
        item("lamp", 10_000, cost=5_000, floor=7_900),
        item("rug", 4_999, map_price=4_500),
        item("vase", 1_250, floor=1_250),
        item("desk", 30_000, ceiling=31_000),
        item("pen", 3),
    ]


def visits(shop: Shop, seed: int, count: int = 150):
    """Yield the decisions of shoppers who come back, buy, and withdraw their consent, while list prices change."""
    dice = random.Random(seed)
    for n in range(count):
        user, what, minute = f"user {dice.randrange(6)}", dice.choice(["lamp", "rug", "vase", "desk", "pen"]), n * 4
        kind = dice.choice([shop.view, shop.view, shop.view, shop.click, shop.purchase])
        if dice.random() < 0.05:
            event = shop.consent(dice.random() < 0.6, minute, user)
        else:
            event = kind(minute, what, user=user, market=dice.choice([None, "DE"]))
        if n == count // 2:
            shop.stock(item("lamp", 9_000, valid_from_ms=1, floor=8_000))
        shop.kill_switch(0.7 < n / count < 0.75)
        yield from shop.feed(event)


@pytest.mark.parametrize("rails", RAILS, ids=["usual", "may raise", "wide steps"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_every_decision_made_again_from_its_record_has_the_same_bytes(rule, rails):
    policy = Policy(name="any", number=3, seed=5, rule=rule, rails=rails)
    shop = Counter(*items(), policy=policy, offers_max=3)
    shop.encoder = FakeEncoder()
    seen = []
    decisions = [one for one in visits(shop, seed=1) if isinstance(one, Decision)]
    archive = Archive(shop, policy)
    for decision in decisions:
        background = archive.background(decision)
        assert lacking(decision, background) == []
        again = recompute(decision, background)
        assert again.value == encode_decision(decision)
        assert feasible_prices(decision, policy) == again.prices
        seen.append((decision.status, decision.forced))
    assert {("drawn", False), ("drawn", True), ("held", False), ("list", True)} <= set(seen) or isinstance(
        rule, ListPrice
    )


def test_every_decision_of_an_experiment_with_a_holdout_can_be_made_again():
    plain = Policy(name="plain", number=1, rule=SessionIntent(), rails=Rails())
    bold = Policy(name="bold", number=1, seed=9, rule=Thompson(), rails=Rails(charm_endings=()))
    halves = (Variant(name="a", weight=0.5, policy="plain@1"), Variant(name="b", weight=0.5, policy="bold@1"))
    spring = Experiment(name="spring", number=1, variants=halves, control="a", holdout=0.4)
    shop = Counter(*items(), policy=plain)
    for record in (bold, spring, RunningExperiments(experiments=("spring@1",))):
        shop.policies.apply(shop.policies.seen, policy_key(record), encode_policy(record))
    decisions = [one for one in visits(shop, seed=2) if isinstance(one, Decision)]
    archive = Archive(shop, plain, bold, experiment=spring)
    for decision in decisions:
        assert recompute(decision, archive.background(decision)).value == encode_decision(decision)
    assert {one.held_out for one in decisions} == {True, False}
    assert {one.policy for one in decisions} == {"plain@1", "bold@1"}


@pytest.mark.parametrize("weight", [0.0, 0.4])
@pytest.mark.parametrize("rule", [Thompson(explore=0.2), LinearQ(explore=0.3)], ids=["thompson", "linear_q"])
def test_a_decision_by_what_was_learned_is_made_again_from_that_version_and_no_other(rule, weight):
    policy = Policy(name="any", number=3, seed=5, rule=rule, rails=Rails(charm_endings=()))
    shop = Counter(*items(), policy=policy)
    shop.encoder = FakeEncoder()
    learned = shop.teach(taught(rule), weight)
    for decision in shop.feed(*[shop.view(user=f"user {n}") for n in range(9)]):
        known = known_by(policy, decision.learned, learned)
        background = Background(policy=policy, item=shop.stocked[0], known=known)
        assert decision.learned == learned.digest
        assert recompute(decision, background).value == encode_decision(decision)
        assert known_by(policy, decision.learned) is None, "at its prior it knew less"


def test_a_record_that_was_changed_is_not_what_comes_out_again():
    policy = Policy(name="any", number=3, rule=SessionIntent(), rails=Rails())
    shop = Counter(*items(), policy=policy)
    decision = shop.one(shop.view())
    archive = Archive(shop, policy)
    for change in ({"price": 9_999}, {"propensity": 0.5}, {"reasons": ("uniform",)}, {"trail": decision.trail[1:]}):
        forged = replace(decision, **change)
        assert recompute(forged, archive.background(decision)).value != encode_decision(forged)


def test_what_is_missing_is_named():
    policy = Policy(name="any", number=3, rule=Thompson(), rails=Rails())
    shop = Counter(*items(), policy=policy)
    drawn, held = shop.feed(shop.view(), shop.view(1))
    assert lacking(drawn, Background()) == [
        ("policy", "any@3"), ("catalogue", "0"), ("learned", drawn.learned[:12]),
    ]  # fmt: skip
    assert lacking(held, Background(policy=policy, item=shop.stocked[0])) == [("draw", drawn.decision_id)]
    assert lacking(
        replace(drawn, learned=None, experiment="spring@2"), Background(policy=policy, item=shop.stocked[0])
    ) == [("experiment", "spring@2")]
    assert known_by(policy, "another digest") is None


def test_a_withdrawn_offer_of_an_item_that_has_left_the_catalogue_needs_no_item():
    policy = Policy(name="any", number=3, rule=SessionIntent(), rails=Rails())
    shop = Counter(*items(), policy=policy)
    shop.one(shop.view())
    shop.catalogue.apply(shop.catalogue.seen, b'["lamp",0]', None)
    withdrawn = shop.one(shop.consent(False, 1))
    assert (withdrawn.catalogue_version, lacking(withdrawn, Background(policy=policy))) == (GONE, [])
    assert recompute(withdrawn, Background(policy=policy)).value == encode_decision(withdrawn)


def test_where_no_rail_binds_all_of_the_lattice_is_feasible():
    rails = Rails(
        charm_endings=(),
        raise_markets=("DE",),
        band_low_permille=1,
        band_high_permille=10_000,
        step_max_permille=10_000,
    )
    shop = Counter(item(), policy=Policy(name="any", number=1, rule=UniformRandom(), rails=rails))
    decision = shop.one(shop.view(market="DE"))
    assert decision.trail == ()
    assert feasible_prices(decision, None) == decision.lattice == tuple(range(6_500, 12_001, 500))


def test_without_the_policy_the_feasible_prices_of_an_older_record_are_known_unless_endings_bind():
    for rails, known in ((Rails(charm_endings=()), True), (Rails(), False)):
        shop = Counter(*items(), policy=Policy(name="any", number=1, rule=SessionIntent(), rails=rails))
        shop.feed(shop.view(what="desk"))
        decision = decode_decision(shop.last.decisions[0][1])
        assert feasible_prices(decision, None) == decision.feasible is not None
        decision = replace(decision, feasible=None)
        assert (feasible_prices(decision, None) is not None) is known


@pytest.mark.parametrize("rule", [SessionIntent(explore=0.4), Thompson(explore=0.2)], ids=["plain", "learns"])
def test_a_record_of_before_feasible_is_made_again_with_what_it_had(rule):
    policy = Policy(name="any", number=1, rule=rule, rails=Rails())
    shop = Counter(*items(), policy=policy)
    archive, decision = Archive(shop, policy), shop.one(shop.view(what="lamp"))
    had = {} if isinstance(rule, Thompson) else {"probabilities": None, "u": None, "explored": None}
    old = replace(decision, feasible=None, **had)
    assert recompute(old, archive.background(old)).value == encode_decision(old)
    stripped = replace(decision, u=None)
    assert recompute(stripped, archive.background(stripped)).value == encode_decision(decision)


def test_a_record_of_before_churn_was_logged_is_made_again_without_it():
    policy = Policy(name="any", number=1, rule=Thompson(explore=0.2), rails=Rails())
    shop = Counter(*items(), policy=policy)
    archive, decision = Archive(shop, policy), shop.one(shop.view(what="lamp"))
    old = replace(decision, churn=None, churn_days=None)
    for record in (decision, old):
        assert recompute(record, archive.background(record)).value == encode_decision(record)
    assert decision.churn is not None
