"""Design laws 1 and 2: the same records give the same bytes, however they are batched, whatever an engine has cached."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import Click, Consent, Event, Purchase, View
from contracts.experiments import Experiment, RunningExperiments, Variant
from contracts.intake import Inbound
from contracts.policies import BUILTIN, Policy, SessionIntent, encode_policy, policy_key
from contracts.rules import Features, Thompson
from tests.pricing.shop import MINUTE_MS, START_MS, Shop, item

USERS = ("ann", "bob", "cyd")
ITEMS = ("lamp", "rug", "vase", "ghost")
MINUTES = st.one_of(st.integers(0, 90), st.integers(0, 60 * 24 * 80))  # one session; or long enough to expire


@st.composite
def shop_events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from((View, View, View, Click, Purchase)))
    more = {"action": "add_to_cart"} if kind is Click else {}
    return kind(
        event_id=f"e{draw(st.integers(0, 60))}",  # few: repeated ids are common
        user=draw(st.sampled_from(USERS)),
        item=draw(st.sampled_from(ITEMS)),
        event_time_ms=START_MS + draw(MINUTES) * MINUTE_MS,
        price=draw(st.sampled_from((10_000, 9_000, 1))),
        currency="USD",
        market=draw(st.sampled_from((None, "BR"))),
        dwell_ms=draw(st.sampled_from((None, 70_000))),
        query=draw(st.sampled_from((None, "lamp"))),
        **more,
    )


times = MINUTES.map(lambda minute: START_MS + minute * MINUTE_MS)
granted_and_erase = st.sampled_from(((True, False), (False, False), (False, True)))
consents = st.builds(
    lambda user, said, time_ms: Consent(user=user, granted=said[0], erase=said[1], event_time_ms=time_ms),
    st.sampled_from(USERS),
    granted_and_erase,
    times,
)
codes = st.sampled_from(("not_json", "null_value"))
records = st.lists(st.one_of(shop_events(), shop_events(), consents, codes), min_size=1, max_size=40)


@dataclass
class Left:
    """What left the house, and what stayed."""

    prices: list[tuple[bytes, bytes]]
    decisions: list[tuple[bytes, bytes]]
    dead: list[int]
    states: dict[bytes, bytes]
    partition: object
    counts: dict[str, int]


def a_shop() -> Shop:
    stock = (item("lamp"), item("lamp", 9_000, valid_from_ms=START_MS + 20 * MINUTE_MS), item("rug", 4_999, cost=4_000))
    vase = item("vase", 300, map_price=250, floor=200, ceiling=310)
    return Shop(*stock, vase, policy=BUILTIN, offers_max=2, recent_ids_max=4)


def run(shop: Shop, batch: list[Inbound], cuts: list[int]) -> Left:
    left = Left([], [], [], {}, None, {})
    edges = [0, *sorted(cuts), len(batch)]
    for start, end in pairwise(edges):
        shop.feed(*batch[start:end])
        step = shop.last
        left.prices += step.prices
        left.decisions += step.decisions
        left.dead += [letter.offset for letter, _ in step.dead]
        for name, count in step.counts.items():
            left.counts[name] = left.counts.get(name, 0) + count
    left.states, left.partition = shop.states, shop.partition
    return left


def inbounds(shop: Shop, drawn: list[Event | str]) -> list[Inbound]:
    return [shop.broken(one) if isinstance(one, str) else shop.inbound(one) for one in drawn]


@settings(max_examples=150)
@given(records, st.data())
def test_any_split_into_batches_gives_the_same_bytes(drawn, data):
    whole, split = a_shop(), a_shop()
    batch = inbounds(whole, drawn)
    cuts = data.draw(st.lists(st.integers(0, len(batch)), max_size=8))
    assert run(split, batch, cuts) == run(whole, batch, [])


def an_experimenting_shop() -> Shop:
    shop = a_shop()
    bold = Policy(name="bold", number=1, seed=9, rule=SessionIntent(discounts_permille=(200, 100), explore=0.5))
    variants = (
        Variant(name="plain", weight=0.5, policy="builtin"),
        Variant(name="bold", weight=0.5, policy="bold@1"),
    )
    spring = Experiment(
        name="spring",
        number=1,
        variants=variants,
        control="plain",
        holdout=0.4,
        start_ms=START_MS + 10 * MINUTE_MS,
        stop_ms=START_MS + 60 * 24 * 40 * MINUTE_MS,
    )
    for record in (bold, spring, RunningExperiments(experiments=("spring@1",))):
        shop.policies.apply(shop.policies.seen, policy_key(record), encode_policy(record))
    return shop


def a_learning_shop() -> Shop:
    shop = a_shop()
    rule = Thompson(features=Features(names=("intent", "price")), samples=8, explore=0.2)
    shop.publish(Policy(name="learns", number=1, seed=5, rule=rule))
    return shop


@pytest.mark.parametrize("shop", [an_experimenting_shop, a_learning_shop])
@settings(max_examples=80)
@given(drawn=records, data=st.data())
def test_any_split_into_batches_gives_the_same_bytes_under_experiments_and_policies_that_learn(shop, drawn, data):
    whole, split = shop(), shop()
    batch = inbounds(whole, drawn)
    cuts = data.draw(st.lists(st.integers(0, len(batch)), max_size=8))
    assert run(split, batch, cuts) == run(whole, batch, [])


@settings(max_examples=50)
@given(records)
def test_what_an_engine_has_seen_before_changes_no_byte(drawn):
    fresh, used = a_shop(), a_shop()
    batch = inbounds(fresh, drawn)
    run(used, batch, [])
    used.states.clear()
    used.partition = type(used.partition)()
    assert run(used, batch, []) == run(fresh, batch, [])
