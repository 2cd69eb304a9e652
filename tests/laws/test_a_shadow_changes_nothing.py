"""Laws of a shadow policy: not a byte of what customers get, or of a state, depends on it; and its decisions not on batches."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.decisions import decode_decision
from contracts.experiments import Experiment, RunningExperiments, Variant
from contracts.policies import Policy, Rails, SessionIntent, ShadowPolicy, UniformRandom, encode_policy, policy_key
from contracts.rules import Greedy, LinearQ, Thompson
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import Shop, item

RULES = (SessionIntent(explore=0.3), UniformRandom(), Thompson(explore=0.1), Greedy(), LinearQ(explore=0.2))
CURRENT = Policy(name="now", number=1, rule=SessionIntent(explore=0.4), rails=Rails())
BOLD = Policy(name="bold", number=1, seed=4, rule=Thompson(), rails=Rails(charm_endings=()))
SPRING = Experiment(
    name="spring",
    number=1,
    variants=(Variant(name="a", weight=0.5, policy="now@1"), Variant(name="b", weight=0.5, policy="bold@1")),
    control="a",
    holdout=0.2,
)
COUNT = 70


def a_shop(shadow: Policy, on: bool, experiment: bool) -> Shop:
    shop = Shop(item(), item("rug", 4_999, cost=4_400), item("pen", 250), policy=CURRENT, offers_max=2)
    shop.encoder = FakeEncoder()
    running = RunningExperiments(experiments=("spring@1",) if experiment else ())
    for record in (shadow, BOLD, SPRING, running, ShadowPolicy(policy=shadow.version if on else None)):
        shop.policies.apply(shop.policies.seen, policy_key(record), encode_policy(record))
    return shop


def visits(shop: Shop, seed: int) -> list:
    dice = random.Random(seed)
    events = []
    for n in range(COUNT):
        user, what = f"user {dice.randrange(4)}", dice.choice(["lamp", "rug", "pen"])
        kind = dice.choice([shop.view, shop.view, shop.click, shop.purchase])
        consent = dice.random() < 0.08
        event = shop.consent(dice.random() < 0.6, n * 5, user) if consent else kind(n * 5, what, user=user)
        events.append(shop.inbound(event))
    return events


def run(shop: Shop, events: list, cuts: list[int]) -> tuple:
    """Return everything that came of the events, and beside it what the shadow decided."""
    out: dict[str, list] = {name: [] for name in ("prices", "decisions", "outcomes", "shadows")}
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        shop.feed(*events[start:end])
        for name, records in out.items():
            records += getattr(shop.last, name)
    return (out["prices"], out["decisions"], out["outcomes"], shop.states, shop.partition), out["shadows"]


@settings(max_examples=25)
@given(
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 1 << 20),
    experiment=st.booleans(),
    cuts=st.lists(st.integers(0, COUNT), max_size=6).map(sorted),
)
def test_with_and_without_a_shadow_the_bytes_are_equal_in_any_split(rule, seed, experiment, cuts):
    rails = Rails(multipliers=(500, 800, 1000), band_low_permille=500, margin_min_permille=200, step_max_permille=900)
    shadow = Policy(name="next", number=7, seed=seed, rule=rule, rails=rails)
    with_it, without = a_shop(shadow, True, experiment), a_shop(shadow, False, experiment)
    events = visits(with_it, seed)
    plain, nothing = run(without, events, [])
    published, decided = run(with_it, events, cuts)
    assert published == plain
    assert nothing == []
    _, whole = run(a_shop(shadow, True, experiment), events, [])
    assert decided == whole
    draws = [
        one for one in (decode_decision(value) for _, value in published[1]) if getattr(one, "status", "") == "drawn"
    ]
    shadows = {one.decision_id: one for one in (decode_decision(value) for _, value in decided)}
    priced = [draw for draw in draws if draw.item != "rug"]  # of which the shadow's least margin refuses the list price
    assert set(shadows) == {draw.decision_id for draw in priced}
    for draw in priced:
        other = shadows[draw.decision_id]
        same = ("user", "item", "version", "sequence", "event_time_ms", "intent", "preference", "source", "list_price")
        assert [getattr(other, name) for name in same] == [getattr(draw, name) for name in same]
        assert (other.policy, other.experiment, other.held_out) == ("next@7", None, False)
