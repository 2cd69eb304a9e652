"""After an erasure nothing in the store names the user, nothing of before it is published any more, however it is batched."""

from __future__ import annotations

import json
from itertools import pairwise
from operator import itemgetter

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.intake import Inbound
from contracts.policies import Policy, Rails, SessionIntent
from pricing.erasure import decode_erasure, erasure_key
from pricing.traces import Traces
from tests.pricing.shop import MINUTE_MS, Shop, item

POLICY = Policy(name="lively", number=1, rule=SessionIntent(explore=0.9), rails=Rails(dwell_ms=7 * MINUTE_MS))
USERS = ("Ann-7f3d2b", "Bob-93ea11")
KINDS = ("view", "view", "view", "click", "buy", "consent", "withdraw", "erase")
actions = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from(USERS), st.sampled_from(("lamp", "rug")), st.integers(0, 120)),
    min_size=3,
    max_size=40,
)


def a_shop(offers_max: int) -> Shop:
    return Shop(item("lamp"), item("rug", 4_999), policy=POLICY, offers_max=offers_max)


def inbound(shop: Shop, kind: str, user: str, what: str, minute: int) -> Inbound:
    if kind in ("consent", "withdraw", "erase"):
        return shop.inbound(shop.consent(kind == "consent", minute, user, erase=kind == "erase"))
    make = {"buy": shop.purchase, "click": shop.click}.get(kind, shop.view)
    return shop.inbound(make(minute, what, user=user))


def published(shop: Shop, batch: list[Inbound], cuts: list[int]) -> list[tuple[str, bytes, bytes]]:
    found = []
    for start, end in pairwise([0, *sorted(cuts), len(batch)]):
        shop.feed(*batch[start:end])
        step = shop.last
        for name in ("prices", "decisions", "outcomes"):
            found += [(name, key, value) for key, value in getattr(step, name)]
    return found


@settings(max_examples=150)
@given(actions, st.sampled_from((1, 2, 24)), st.data())
def test_any_split_into_batches_publishes_and_keeps_the_same(script, offers_max, data):
    whole, split = a_shop(offers_max), a_shop(offers_max)
    batch = [inbound(whole, *action) for action in script]
    cuts = data.draw(st.lists(st.integers(0, len(batch)), max_size=8))
    ours, theirs = published(whole, batch, []), published(split, batch, cuts)
    for name in ("prices", "decisions", "outcomes"):
        assert [one for one in ours if one[0] == name] == [one for one in theirs if one[0] == name]
    assert split.states == whole.states
    assert split.timers.at(0) == whole.timers.at(0)


@settings(max_examples=150)
@given(actions)
def test_after_an_erasure_the_store_names_the_user_nowhere_until_they_come_back(script):
    shop = a_shop(24)
    for action in script:
        shop.feed(inbound(shop, *action))
        if action[0] == "erase":
            assert not [key for key, value in shop.states.items() if action[1].encode() in key + value]


@settings(max_examples=150)
@given(actions, st.sampled_from((1, 24)))
def test_no_outcome_of_a_draw_from_before_the_erasure_comes_after_it(script, offers_max):
    shop, erased = a_shop(offers_max), dict.fromkeys(USERS, 0)
    in_time = sorted(script, key=itemgetter(3))  # else few draws are forgotten before their windows end
    for action in [*in_time, ("view", "passer-by", "lamp", 600)]:
        shop.feed(inbound(shop, *action))
        if action[0] == "erase":
            erased[action[1]] = shop.partition.applied
        for _, value in shop.last.outcomes:
            outcome = json.loads(value)
            if outcome["record"] == "outcome":
                assert outcome["version"] > erased.get(outcome["user"], 0)


@settings(max_examples=100)
@given(actions)
def test_what_is_taken_back_is_what_was_published_up_to_the_last_erasure(script):
    shop = a_shop(24)
    batch = [inbound(shop, *action) for action in script]
    records = published(shop, batch, list(range(len(batch))))
    values = {user: shop.states.get(erasure_key(user.encode())) for user in USERS}
    erasures = {user: decode_erasure(value) for user, value in values.items() if value is not None}
    traces = Traces({erasure_key(user.encode()): erasure for user, erasure in erasures.items()})
    last = {}
    for topic, key, value in records:
        traces.see(topic, key, value)
        last[topic, key] = json.loads(value)
    wanted = {
        (topic, key)
        for (topic, key), value in last.items()
        if value["user"] in erasures and value.get("version", 0) <= erasures[value["user"]].version
    }
    assert {(topic, key) for topic, keys in traces.keys.items() for key in keys} == wanted
