"""Every draw has exactly one outcome, the one that a naive twin computes from the whole history, however it is batched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import Click, Consent, Event, Purchase, View
from contracts.intake import Inbound
from contracts.outcomes import decode_outcome, encode_outcome
from contracts.policies import Policy, Rails, SessionIntent
from contracts.semantics import Semantics
from features.bounds import state_bytes_max
from pricing.pending import decode_pending
from pricing.timers import PREFIX, Timers, timer_of
from tests.laws.naive_outcomes import Applying, Twin
from tests.pricing.shop import MINUTE_MS, START_MS, Shop, item

POLICY = Policy(name="lively", number=1, rule=SessionIntent(explore=0.9), rails=Rails(dwell_ms=7 * MINUTE_MS))
STOCK = {
    "lamp": [item("lamp", cost=6_000), item("lamp", 9_000, valid_from_ms=START_MS + 40 * MINUTE_MS)],
    "rug": [item("rug", 4_999)],
    "vase": [item("vase", 300, map_price=300, floor=300)],
}
"""The vase has one feasible price, so its draws are forced; and views that show it at 88.88 are implausible."""


@dataclass
class Action:
    """Something that may happen; what it says of prices and ids depends on what was published before."""

    kind: str
    user: str
    item: str
    minute: float
    pick: int


times = st.one_of(st.integers(0, 90), st.integers(0, 60 * 24 * 2), st.integers(0, 60 * 24 * 90))
actions = st.lists(
    st.builds(
        Action,
        kind=st.sampled_from(
            ("view", "view", "view", "click", "buy", "buy", "repeat", "consent", "withdraw", "broken")
        ),
        user=st.sampled_from(("ann", "bob")),
        item=st.sampled_from(("lamp", "lamp", "rug", "vase", "ghost")),
        minute=st.one_of(st.integers(0, 90), st.integers(0, 90), times),
        pick=st.integers(0, 11),
    ),
    min_size=5,
    max_size=60,
)


class Script:
    """Turns actions into records, one by one, beside the shop that applies them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.inbounds: list[Inbound] = []
        self.history: list[Applying] = []
        self.outcomes: list[tuple[bytes, bytes]] = []
        self.published: list[Any] = []
        """Decisions with a price, newest last."""
        self.events: list[Event] = []

    def act(self, action: Action) -> None:
        one = self._inbound(action)
        records = self.shop.feed(one)
        self.inbounds.append(one)
        self.history.append((one.event, records))
        self.outcomes += self.shop.last.outcomes
        self.published += [record for record in records if hasattr(record, "status")]

    def _inbound(self, action: Action) -> Inbound:
        shop, minute, more = self.shop, action.minute, {"user": action.user}
        if action.kind == "broken":
            return shop.broken("not_json")
        if action.kind in ("consent", "withdraw"):
            return shop.inbound(shop.consent(action.kind == "consent", minute, action.user))
        if action.kind == "repeat" and self.events:
            return shop.inbound(self.events[-1])
        known = [one for one in self.published if one.user == action.user and one.item == action.item][::-1]
        shown = known[min(action.pick % 4, len(known) - 1)] if known else None
        more["price"] = 1 if action.pick == 11 else shown.price if shown and action.pick < 8 else 8_888
        if shown and action.pick % 2:
            more["decision_id"] = shown.decision_id
        make = {"buy": shop.purchase, "click": shop.click}.get(action.kind, shop.view)
        if action.kind == "buy":
            more["quantity"] = 1 + action.pick % 3
        event = make(minute, action.item, **more)
        self.events.append(event)
        return shop.inbound(event)


def a_shop(**semantics: Any) -> Shop:
    return Shop(*[one for versions in STOCK.values() for one in versions], policy=POLICY, **semantics)


def played(script: list[Action], **semantics: Any) -> Script:
    one = Script(a_shop(**semantics))
    for action in script:
        one.act(action)
    return one


def said(records: list[tuple[bytes, bytes]]) -> list[dict[str, Any]]:
    return [json.loads(value) for _, value in records]


def like(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in wanted}


semantics = st.fixed_dictionaries(
    {
        "exposure": st.sampled_from(("ids", "all")),
        "outcome_window_ms": st.sampled_from((MINUTE_MS, 10 * MINUTE_MS, 30 * MINUTE_MS, 1_440 * MINUTE_MS)),
    }
)


@settings(max_examples=400)
@given(actions, semantics)
def test_the_outcomes_are_those_of_a_naive_twin(script, given_semantics):
    one = played(script, **given_semantics)
    twin = Twin(one.shop.semantics, STOCK).go(one.history)
    found = said(one.outcomes)
    assert [like(ours, theirs) for ours, theirs in zip(found, twin.said, strict=True)] == twin.said
    assert len(one.shop.timers) == len(twin.unresolved)


@settings(max_examples=200)
@given(actions, semantics, st.integers(1, 3))
def test_the_draws_of_a_crowded_user_are_those_of_a_naive_twin(script, given_semantics, offers_max):
    """Late purchases aside: which offers are remembered is another law's business."""
    one = played(script, offers_max=offers_max, **given_semantics)
    twin = Twin(one.shop.semantics, STOCK).go(one.history)
    found, wanted = ([row for row in rows if row["record"] == "outcome"] for rows in (said(one.outcomes), twin.said))
    assert [like(ours, theirs) for ours, theirs in zip(found, wanted, strict=True)] == wanted


@settings(max_examples=200)
@given(actions, semantics)
def test_every_draw_is_resolved_once_or_pending(script, given_semantics):
    one = played(script, **given_semantics)
    drawn = [record.decision_id for record in one.published if record.status == "drawn"]
    resolved = [row["draw_id"] for row in said(one.outcomes) if row["record"] == "outcome"]
    pending = [
        json.loads(decode_pending(value).key)[1] for key, value in one.shop.states.items() if key.startswith(PREFIX)
    ]
    assert sorted(resolved + pending) == sorted(drawn)
    assert len(one.shop.timers) == len(pending)


@settings(max_examples=200)
@given(actions, semantics, st.data())
def test_any_split_into_batches_gives_the_same_outcomes_and_the_same_store(script, given_semantics, data):
    one, again = played(script, **given_semantics), a_shop(**given_semantics)
    cuts = data.draw(st.lists(st.integers(0, len(one.inbounds)), max_size=6))
    outcomes = []
    for start, end in pairwise([0, *sorted(cuts), len(one.inbounds)]):
        again.feed(*one.inbounds[start:end])
        outcomes += again.last.outcomes
    assert outcomes == one.outcomes
    assert again.states == one.shop.states
    assert timers_of(again.timers) == timers_of(one.shop.timers)


def timers_of(timers: Timers) -> list[tuple[int, int]]:
    return [timers.at(place) for place in range(len(timers))]


@settings(max_examples=100)
@given(actions, semantics, st.data())
def test_timers_read_from_the_store_again_go_on_as_if_nothing_had_happened(script, given_semantics, data):
    one, again = played(script, **given_semantics), a_shop(**given_semantics)
    outcomes = []
    restarts = data.draw(st.sets(st.integers(0, len(one.inbounds))))
    for place, inbound in enumerate(one.inbounds):
        if place in restarts:
            again.timers = Timers(timer_of(key) for key in sorted(again.states) if key.startswith(PREFIX))
        again.feed(inbound)
        outcomes += again.last.outcomes
    assert outcomes == one.outcomes


@settings(max_examples=100)
@given(actions, semantics)
def test_an_outcome_is_written_as_its_contract_writes_it(script, given_semantics):
    for key, value in played(script, **given_semantics).outcomes:
        record = decode_outcome(value)
        assert encode_outcome(record) == value
        assert json.loads(key) == [record.user, getattr(record, "decision_id", None) or record.draw_id]
        if hasattr(record, "prices"):
            chances = dict(zip(record.prices, record.probabilities, strict=True))
            assert chances[record.price] == record.propensity
            assert abs(sum(record.probabilities) - 1) < 1e-12
            assert record.list_price in record.prices


@settings(max_examples=100)
@given(actions, st.integers(1, 4))
def test_a_state_remembers_no_more_draws_than_its_limit(script, offers_max):
    shop = played(script, offers_max=offers_max, exposure="ids", outcome_window_ms=1_440 * MINUTE_MS).shop
    for user in ("ann", "bob"):
        assert len(shop.state(user).draws) <= offers_max
        assert len(shop.states.get(user.encode(), b"")) <= state_bytes_max(shop.semantics)


@settings(max_examples=50)
@given(actions)
def test_without_a_window_there_are_no_outcomes_and_the_same_prices(script):
    one, without = played(script), a_shop(outcome_window_ms=0)
    without.feed(*one.inbounds)
    assert without.last.outcomes == []
    assert not [key for key in without.states if key.startswith(PREFIX)]
    assert [value for _, value in without.last.decisions] == [
        value for _, value in fed_whole(one.inbounds).last.decisions
    ]


def fed_whole(inbounds: list[Inbound]) -> Shop:
    shop = a_shop()
    shop.feed(*inbounds)
    return shop


def test_a_window_beyond_the_life_of_a_state_is_refused():
    try:
        Semantics(consent_default=True, outcome_window_ms=36 * 86_400_000)
    except ValueError as error:
        assert "must not exceed state_ttl_ms" in str(error)
    else:
        raise AssertionError("accepted")


def test_the_events_of_the_script_are_of_every_kind():
    """The laws above would be empty if scripts did not buy, expose, withdraw and crowd: one script does all of it."""
    script = [Action("view", "ann", "lamp", 0, 0), Action("click", "ann", "lamp", 1, 1), Action("buy", "ann", "lamp", 2, 0),
              Action("view", "ann", "lamp", 3, 0), Action("view", "bob", "rug", 3, 0), Action("withdraw", "ann", "", 4, 0),
              Action("buy", "ann", "lamp", 5, 9), Action("view", "cyd", "vase", 50, 0), Action("buy", "bob", "rug", 51, 0),
              Action("view", "cyd", "vase", 90, 0)]  # fmt: skip
    one = played(script, exposure="ids")
    kinds = [type(event) for event, _ in one.history]
    assert {View, Click, Purchase, Consent} <= set(kinds)
    rows = said(one.outcomes)
    assert [row["record"] for row in rows] == ["price_mismatch", "outcome", "outcome", "outcome", "late", "outcome"]
    first, second, rug, vase = (row for row in rows if row["record"] == "outcome")
    assert (first["exposed"], first["bought"]["quantity"], first["unlearnable"]) == (True, 1, ["consent"])
    assert first["next"]["draw_id"] == second["draw_id"]
    assert (second["exposed"], second["bought"], second["unlearnable"]) == (False, None, ["consent"])
    assert (rug["bought"], rug["learnable"]) == (None, True)
    assert vase["unlearnable"] == ["implausible", "forced"]
