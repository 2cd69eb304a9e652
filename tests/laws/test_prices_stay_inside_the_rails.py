"""Design law 5, on a million random decisions: no price outside its rails, no float money, every trail explains itself.

The decisions are the bytes that leave the house; the checker shares no code with the engine.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest

from contracts.catalogue import CatalogueItem
from contracts.events import View
from contracts.ids import DecisionIds
from contracts.intake import Inbound
from contracts.policies import FixedPrice, ListPrice, Policy, Rails, Rule, SessionIntent, UniformRandom
from contracts.rules import Features, Greedy, LinearQ, Sarsa, Thompson
from contracts.semantics import Semantics, Topology
from features.state import Offer, SessionItem, UserState
from pricing.choosers import Knowledge, Sight, ignorance, learner_of
from pricing.contexts import Seen
from pricing.demand import Posterior
from pricing.draws import uniforms
from pricing.learned import Known, sights_of
from pricing.menus import MenuBook
from pricing.offers import PRESCRIBED, Ask, prescribe, respond
from pricing.policies import intent_level
from pricing.records import Place, Recorder
from tests.pricing.independent_checker import Terms, check

PARTS = 4
"""So that the processes of a parallel run share the work."""
DECISIONS = 1_000_000 // PARTS
SEEN = Features(dims=3)
UNTAUGHT = (Thompson, Greedy, LinearQ, Sarsa)
PER_ITEM = 500
ITEMS_PER_POLICY = 20
NOW_MS = 1_572_566_400_000
OF = DecisionIds(0, "views", 0).of
PLACES = [Place(Semantics(consent_default=True), Topology(partitions=1), 0, source) for source in range(4)]


def a_policy(rnd: Random, number: int) -> Policy:
    multipliers = {1000, *rnd.sample(range(300, 1500, 25), rnd.randint(3, 14))}
    discounts = sorted((rnd.randrange(0, 500) for _ in range(6)), reverse=True)
    rails = Rails(
        multipliers=tuple(sorted(multipliers)),
        margin_min_permille=rnd.randrange(0, 300),
        band_low_permille=rnd.randrange(500, 1001),
        band_high_permille=rnd.randrange(1000, 1400),
        step_max_permille=rnd.randrange(20, 500),
        dwell_ms=rnd.randrange(1, 3_600_000),
        charm_endings=rnd.choice([(99, 95, 49), (99,), (0, 50), (), (7, 77, 90)]),
        raise_markets=rnd.choice([(), ("BR",)]),
    )
    rule: Rule = SessionIntent(discounts_permille=tuple(discounts), explore=rnd.random())
    if number % 4 == 0:
        rule = rnd.choice(UNTAUGHT)(features=SEEN, explore=rnd.choice([0.0, rnd.random()]))
    elif number % 10 == 1:
        rule = rnd.choice([ListPrice(), UniformRandom(), FixedPrice(multiplier_permille=rnd.randrange(500, 1300))])
    return Policy(name="random", number=number, seed=rnd.randrange(1 << 53), rule=rule, rails=rails)


def a_knowledge(rnd: Random, rule: Rule) -> Knowledge:
    """Something that `rule` could have learned, sensible or not."""
    knowledge = ignorance(rule)
    if isinstance(knowledge, Posterior):
        knowledge.mean[:] = [rnd.gauss(0.0, 3.0) for _ in knowledge.mean]
        for _ in range(rnd.randrange(50)):
            x = np.array([1.0, *(rnd.gauss(0.0, 2.0) for _ in range(SEEN.width - 1))])
            knowledge.learn(x, rnd.uniform(-1.0, 2.0), rnd.random() < 0.5)
    elif knowledge is not None:
        knowledge.weights[:] = [[rnd.gauss(0.0, 1.0) for _ in range(SEEN.width)] for _ in range(3)]
    return knowledge


def some_sights(rnd: Random, policy: Policy, knowledge: Knowledge) -> list[Sight] | list[None]:
    """What the policy sees of PER_ITEM draws in random contexts."""
    if knowledge is None:
        return [None] * PER_ITEM
    seen = [
        Seen(rnd.randrange(1, 10**6), rnd.randrange(8), rnd.random(), np.array([rnd.gauss(0, 1) for _ in range(3)]))
        for _ in range(PER_ITEM)
    ]
    chooser = learner_of(policy.rule, policy.seed, knowledge)
    return sights_of(Known(chooser, knowledge, knowledge.digest(), rnd.choice([0.0, rnd.uniform(0.0, 10.0)])), seen)


def an_item(rnd: Random, margin_min_permille: int) -> CatalogueItem:
    """An item whose list price keeps its own bounds; from one cent to twenty thousand."""
    list_price = int(10 ** rnd.uniform(0, 6.3))
    floor, cost, map_price, ceiling = (rnd.random() < 0.5 for _ in range(4))
    below = int(list_price * rnd.uniform(0.3, 1.0)) * 1000 // (1000 + margin_min_permille)
    return CatalogueItem(
        item="item",
        valid_from_ms=0,
        title="",
        category="",
        brand="",
        currency="USD",
        list_price=list_price,
        floor=max(1, int(list_price * rnd.uniform(0.3, 1.0))) if floor else None,
        cost=below if cost else None,
        map_price=max(1, int(list_price * rnd.uniform(0.5, 1.0))) if map_price else None,
        ceiling=int(list_price * rnd.uniform(1.0, 1.3)) if ceiling else None,
    )


def terms_of(item: CatalogueItem, rails: Rails, may_raise: bool) -> Terms:
    return Terms(
        list_price=item.list_price,
        multipliers=rails.multipliers,
        endings=rails.charm_endings,
        band=(rails.band_low_permille, rails.band_high_permille),
        margin=rails.margin_min_permille,
        step=rails.step_max_permille,
        may_raise=may_raise,
        floor=item.floor,
        cost=item.cost,
        map_price=item.map_price,
        ceiling=item.ceiling,
    )


def a_state(rnd: Random, terms: Terms) -> tuple[UserState, int]:
    """A user who has or has not been here, with an offer of any price and age; and the last price."""
    seen = SessionItem(rnd.randrange(5), rnd.randrange(2), rnd.randrange(2), rnd.randrange(120_000))
    state = UserState(last_ms=NOW_MS, session_searches=rnd.randrange(2), session_items={"item": seen})
    if rnd.random() < 0.4:
        return state, terms.list_price
    last = rnd.choice(terms.points) if rnd.random() < 0.9 else rnd.randint(1, 2 * terms.list_price)
    listed = terms.list_price if rnd.random() < 0.9 else last
    until = NOW_MS + rnd.randrange(-1000, 3000)
    state.offers["item"] = Offer(last, listed, 1000, rnd.random() or 1.0, "d" * 32, NOW_MS - 5, until, True, 0, None)
    return state, last


def decisions_of(rnd: Random, policy: Policy, first: int) -> Counter[str]:
    """Decide and check PER_ITEM prices of one random item; count what bound."""
    market = rnd.choice([None, "BR"])
    may_raise = market in policy.rails.raise_markets
    item = an_item(rnd, policy.rails.margin_min_permille)
    priced, terms = MenuBook(policy).priced(1, item, may_raise), terms_of(item, policy.rails, may_raise)
    assert priced.refused_by is None
    ids = [OF(offset, item.item) for offset in range(first, first + PER_ITEM)]
    event = View(event_id="e", user="u", item="item", event_time_ms=NOW_MS, price=1, currency="USD", market=market)
    inbound = Inbound(NOW_MS, 1, first, event, None, b"u", None, NOW_MS)
    recorder = Recorder(PLACES, policy.version, None, 0, 0)
    counts: Counter[str] = Counter()
    sights = some_sights(rnd, policy, a_knowledge(rnd, policy.rule))
    for decision_id, u, sight in zip(ids, uniforms(policy.seed, ids), sights, strict=True):
        state, last = a_state(rnd, terms)
        if rnd.random() < 0.1:
            verdict = prescribe(state.offers, priced, market, rnd.choice(list(PRESCRIBED)))
        else:
            ask = Ask(NOW_MS, market, decision_id, u, intent_level(state, "item"), state.last_ms, sight=sight)
            verdict = respond(state.offers, priced, ask, 24)
        recorder.decided(verdict, priced, inbound, decision_id, 1, 1)
        decision = check(recorder.decisions[-1][1], terms, last)
        counts[decision["status"]] += 1
        counts["learned"] += "features" in decision
        counts.update([step[0] for step in decision["trail"]])
    return counts


@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_random_decisions_stay_inside_their_rails_and_every_rail_binds(part):
    rnd = Random(20191101 + part)
    counts: Counter[str] = Counter()
    for number in range(1, DECISIONS // PER_ITEM // ITEMS_PER_POLICY + 1):
        policy = a_policy(rnd, number)
        for _ in range(ITEMS_PER_POLICY):
            counts += decisions_of(rnd, policy, rnd.randrange(1 << 40))
    assert counts["drawn"] + counts["held"] + counts["list"] == DECISIONS
    assert counts["learned"] >= 0.05 * DECISIONS
    rails = ("floor", "margin", "map", "ceiling", "discount_only", "band", "charm", "step", "dwell")
    shares = {rail: counts[rail] / DECISIONS for rail in rails}
    assert min(shares.values()) >= 0.01, shares
