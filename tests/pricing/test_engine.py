"""The rules of the engine, one sentence each."""

from __future__ import annotations

import pytest

from contracts.decisions import Applied, Decision, encode_decision
from contracts.policies import ListPrice, Policy, Rails, SessionIntent
from features.fold import fold
from pricing.engine import EventCrash
from pricing.erasure import erasure_key
from pricing.verdicts import GONE
from tests.pricing.shop import DWELL_MS, MINUTE_MS, START_MS, Shop, item, rails_of

DAY = 24 * 60


def test_a_first_view_draws_the_price_that_the_step_limit_leaves_of_the_target():
    shop = Shop()
    decision = shop.one(shop.view())
    # the target of a first look is 7,500; one step from list is 15 %
    assert (decision.price, decision.list_price, decision.multiplier) == (8_500, 10_000, 850)
    assert (decision.status, decision.draw_id) == ("drawn", decision.decision_id)
    assert (decision.binding_rule, decision.reasons) == ("step", ("session_intent", "rail:step"))
    assert (decision.propensity, decision.forced, decision.intent) == (1.0, False, 0)
    assert (decision.valid_from_ms, decision.valid_until_ms) == (START_MS, START_MS + DWELL_MS)
    assert (decision.sequence, decision.version, decision.event_id) == (1, 1, "e1")


def test_every_decision_has_exactly_one_price_update_that_agrees_with_it():
    shop = Shop()
    decisions = shop.feed(shop.view(), shop.click(1), shop.purchase(2))
    for decision, update in zip(decisions, shop.prices(), strict=True):
        assert {name: getattr(decision, name) for name in update.__struct_fields__} == {
            name: getattr(update, name) for name in update.__struct_fields__
        }


def test_the_bytes_of_a_decision_are_those_of_the_contract():
    shop = Shop()
    for decision in shop.feed(
        shop.consent(True), shop.view(), shop.view(1, decision_id="shown"), shop.consent(False, 2)
    ):
        assert encode_decision(decision) in {value for _, value in shop.last.decisions}


def test_while_an_offer_is_open_its_price_is_held():
    shop = Shop()
    drawn = shop.one(shop.view())
    held = shop.one(shop.click(29, action="add_to_cart"))
    assert (held.price, held.status, held.draw_id) == (8_500, "held", drawn.decision_id)
    assert held.decision_id != drawn.decision_id
    assert held.valid_until_ms == drawn.valid_until_ms
    assert (held.propensity, held.intent, held.forced) == (drawn.propensity, drawn.intent, False)
    assert held.binding_rule == "dwell"
    assert held.trail[-1].rail == "dwell"
    assert held.trail[-1].removed == len(held.lattice) - 1


def test_after_the_dwell_time_the_price_is_drawn_anew_and_one_step_from_the_last():
    shop = Shop()
    shop.one(shop.view())
    decision = shop.one(shop.view(31))
    assert (decision.status, decision.price) == ("drawn", 7_500)


def test_at_the_very_end_of_its_dwell_time_an_offer_is_over():
    shop = Shop()
    shop.one(shop.view())
    assert shop.one(shop.view(30)).status == "drawn"


def test_a_late_view_of_before_the_draw_is_held_too():
    shop = Shop()
    drawn = shop.one(shop.view(10))
    late = shop.one(shop.view(5))
    assert (late.status, late.price, late.valid_until_ms) == ("held", drawn.price, drawn.valid_until_ms)
    assert late.valid_from_ms == START_MS + 5 * MINUTE_MS


def test_stronger_intent_in_this_session_gets_a_smaller_discount():
    shop = Shop()
    shop.feed(shop.view(), shop.click(1, action="add_to_cart", dwell_ms=60_000), shop.view(2))
    decision = shop.one(shop.view(31))
    assert (decision.intent, decision.price) == (6, 10_000)


def test_a_purchase_ends_the_offer_and_returns_the_item_to_list_price_without_a_draw():
    shop = Shop()
    shop.one(shop.view())
    bought = shop.one(shop.purchase(1))
    assert (bought.status, bought.price, bought.draw_id) == ("list", 10_000, None)
    assert (bought.reasons, bought.binding_rule, bought.forced) == (("purchased",), "purchase", True)
    assert (bought.valid_until_ms, bought.intent, bought.propensity) == (None, None, 1.0)
    assert shop.one(shop.view(2)).status == "drawn"


def test_without_consent_everybody_pays_list_price():
    shop = Shop(consent_default=False)
    decision = shop.one(shop.view())
    assert (decision.status, decision.price, decision.forced) == ("list", 10_000, True)
    assert (decision.binding_rule, decision.reasons) == ("consent", ("no_consent",))
    assert shop.state().offers == {}


def test_a_granted_consent_holds_from_the_next_event_on():
    shop = Shop(consent_default=False)
    applied = shop.one(shop.consent(True))
    assert (applied.outcome, applied.user) == ("consent", "ann")
    assert shop.one(shop.view(1)).status == "drawn"


def test_a_withdrawal_returns_every_open_offer_to_list_price_in_the_order_of_items():
    shop = Shop(item("rug"), item("lamp"), item("vase"))
    shop.feed(shop.view(0, "vase"), shop.view(20, "rug"), shop.view(21, "lamp"))
    decisions = shop.feed(shop.consent(False, 40))
    assert [decision.item for decision in decisions] == ["lamp", "rug"]  # the vase's offer was over
    for decision in decisions:
        assert (decision.status, decision.price, decision.binding_rule) == ("list", 10_000, "consent")
        assert (decision.reasons, decision.event_id) == (("consent_withdrawn",), None)
        assert decision.version == 4
    assert len({decision.decision_id for decision in decisions}) == 2
    assert shop.one(shop.view(41)).reasons == ("no_consent",)


def test_a_withdrawal_without_open_offers_is_applied_without_a_price():
    shop = Shop()
    assert shop.one(shop.consent(False)).outcome == "consent"
    assert shop.prices() == []


def test_an_offer_withdrawn_does_not_come_back_with_a_new_consent():
    shop = Shop()
    drawn = shop.one(shop.view())
    shop.feed(shop.consent(False, 1), shop.consent(True, 2))
    again = shop.one(shop.view(3))
    assert (again.status, again.draw_id != drawn.decision_id) == ("drawn", True)


def test_a_withdrawal_finds_the_offer_of_an_item_that_has_left_the_catalogue():
    shop = Shop()
    shop.one(shop.view())
    shop.catalogue.apply(shop.catalogue.seen, b'["lamp",0]', None)
    decision = shop.one(shop.consent(False, 1))
    assert (decision.price, decision.catalogue_version) == (10_000, GONE)


def test_a_withdrawal_of_before_the_draw_returns_to_the_list_price_that_the_draw_was_made_against():
    shop = Shop()
    shop.stock(item(list_price=20_000, valid_from_ms=START_MS + 10 * MINUTE_MS))
    shop.one(shop.view(20))
    decision = shop.one(shop.consent(False, 5))  # late
    assert (decision.price, decision.list_price, decision.catalogue_version) == (20_000, 20_000, 1)


def test_a_withdrawal_finds_the_offer_of_an_item_that_is_refused_now():
    shop = Shop()
    shop.one(shop.view())
    shop.stock(item(floor=30_000, list_price=20_000, valid_from_ms=START_MS + 1))
    decision = shop.one(shop.consent(False, 1))
    assert (decision.price, decision.catalogue_version) == (10_000, GONE)


def test_the_kill_switch_returns_everybody_to_list_price_and_ends_offers():
    shop = Shop()
    shop.one(shop.view())
    shop.kill_switch(True)
    decision = shop.one(shop.view(1))
    assert (decision.price, decision.status, decision.forced) == (10_000, "list", True)
    assert (decision.binding_rule, decision.reasons) == ("kill_switch", ("kill_switch",))
    shop.kill_switch(False)
    assert shop.one(shop.view(2)).status == "drawn"


def test_an_offer_ends_when_the_list_price_changes():
    shop = Shop()
    shop.one(shop.view())
    shop.stock(item(list_price=9_000, valid_from_ms=START_MS + MINUTE_MS))
    decision = shop.one(shop.view(1))
    assert (decision.status, decision.list_price, decision.reasons[0]) == ("drawn", 9_000, "offer_ended")
    assert abs(decision.price - 8_500) <= 9_000 * 150 // 1000


def test_an_offer_ends_when_a_rail_forbids_it():
    shop = Shop()
    shop.one(shop.view())
    shop.stock(item(floor=9_500, valid_from_ms=START_MS + MINUTE_MS))
    decision = shop.one(shop.view(1))
    assert (decision.status, decision.price, decision.binding_rule) == ("drawn", 9_500, "floor")
    assert decision.reasons == ("offer_ended", "session_intent", "rail:floor")


def test_an_offer_ends_when_the_list_price_changes_though_its_price_may_still_be_offered():
    shop = Shop()
    assert shop.one(shop.view()).price == 8_500
    shop.stock(item(list_price=10_625, valid_from_ms=START_MS + MINUTE_MS))
    decision = shop.one(shop.view(1))
    assert 8_500 in decision.lattice, "80 % of the new list price, and inside its rails"
    assert (decision.status, decision.reasons[0]) == ("drawn", "offer_ended")


def test_the_list_price_is_not_counted_among_what_a_step_limit_above_it_rules_out():
    """The list price falls below what the last price may change by: it alone is left, and the trail says how many are not."""
    shop = Shop()
    shop.one(shop.view())
    shop.stock(item(list_price=5_000, valid_from_ms=START_MS + MINUTE_MS))
    decision = shop.one(shop.view(1))
    assert decision.price == 5_000
    (step,) = (one for one in decision.trail if one.rail == "step")
    assert (step.low, step.removed) == (8_500 - 750, len(decision.lattice) - 1)


def test_a_repeated_event_changes_nothing_but_the_count_of_applied_records():
    shop = Shop()
    view = shop.view()
    shop.one(view)
    before = dict(shop.states)
    repeated = shop.one(view)
    assert (repeated.outcome, repeated.version) == ("repeated", 2)
    assert shop.states == before
    assert shop.last.states == {}


def test_an_item_that_the_catalogue_does_not_have_is_folded_and_not_priced():
    shop = Shop()
    assert shop.one(shop.view(0, "ghost")).outcome == "unknown_item"
    assert shop.prices() == []
    assert shop.state().sequence == 1


def test_an_item_is_unknown_before_its_valid_from():
    shop = Shop(item(valid_from_ms=START_MS + MINUTE_MS))
    assert shop.one(shop.view(0)).outcome == "unknown_item"
    assert shop.one(shop.view(1)).status == "drawn"


@pytest.mark.parametrize("bound", [{"floor": 10_001}, {"cost": 9_500}, {"map_price": 10_001}, {"ceiling": 9_999}])
def test_an_item_whose_list_price_breaks_its_own_bound_is_refused(bound):
    shop = Shop(item(**bound))
    assert shop.one(shop.view()).outcome == "refused_item"
    assert shop.prices() == []
    assert shop.last.counts["outcome:refused_item"] == 1


def test_a_price_that_nothing_else_could_be_is_forced_and_still_a_draw():
    shop = Shop(item(floor=10_000))
    decision = shop.one(shop.view())
    assert (decision.price, decision.forced, decision.propensity) == (10_000, True, 1.0)
    assert (decision.status, decision.reasons) == ("drawn", ("only_list_feasible",))
    assert shop.one(shop.view(1)).status == "held"


def test_prices_rise_above_list_only_in_markets_that_allow_it():
    free = Rails(charm_endings=(), raise_markets=("BR",))
    policy = Policy(name="free", number=1, rule=SessionIntent(explore=1.0), rails=free)
    shop = Shop(policy=policy)
    above = dict.fromkeys(("BR", "US", None), 0)
    for market in above:
        for user in range(60):
            decision = shop.one(shop.view(user=f"{market}{user}", market=market))
            assert ("discount_only" in rails_of(decision)) is (market != "BR")
            above[market] += decision.price > decision.list_price
    assert above["BR"] > 0
    assert (above["US"], above[None]) == (0, 0)


def test_a_policy_that_charges_list_price_draws_it_with_certainty():
    shop = Shop(policy=Policy(name="plain", number=1, rule=ListPrice()))
    decision = shop.one(shop.view())
    assert (decision.price, decision.propensity, decision.status) == (10_000, 1.0, "drawn")
    assert (decision.forced, decision.reasons) == (False, ("list_price_policy",))


def test_a_decision_carries_the_versions_it_was_made_with():
    shop = Shop(item("rug"), item("lamp"))
    decision = shop.one(shop.view(decision_id="what the shop rendered"))
    assert (decision.policy, decision.policies_seen) == ("steady@1", 1)
    assert (decision.catalogue_version, decision.catalogue_seen) == (1, 2)
    assert (decision.model, decision.shown) == (None, "what the shop rendered")
    assert (decision.source.topic, decision.source.partition, decision.source.offset) == ("views", 0, 0)


def test_a_full_memory_forgets_the_offer_drawn_longest_ago_that_is_over():
    shop = Shop(item("a"), item("b"), item("c"), offers_max=2)
    shop.feed(shop.view(0, "a"), shop.view(20, "b"))
    assert shop.one(shop.view(31, "c")).status == "drawn"
    assert list(shop.state().offers) == ["b", "c"]


def test_an_open_offer_is_never_forgotten_so_the_next_item_stays_at_list_price():
    shop = Shop(item("a"), item("b"), item("c"), offers_max=2)
    shop.feed(shop.view(0, "a"), shop.view(1, "b"))
    decision = shop.one(shop.view(2, "c"))
    assert (decision.status, decision.binding_rule, decision.price) == ("list", "offers_max", 10_000)
    assert list(shop.state().offers) == ["a", "b"]


def test_a_dead_letter_has_a_version_and_a_record_and_touches_nobody():
    shop = Shop()
    applied, decision = shop.feed(shop.broken("not_json"), shop.view())
    assert (applied.outcome, applied.user, applied.version) == ("dead_letter:not_json", None, 1)
    assert decision.version == 2
    assert [(letter.offset, error.code) for letter, error in shop.last.dead] == [(0, "not_json")]
    assert shop.partition.watermark_ms == START_MS


def test_an_event_that_crashes_says_where_it_stood(monkeypatch):
    shop = Shop()
    monkeypatch.setattr("pricing.verdicts.respond", lambda *_: 1 // 0)
    with pytest.raises(EventCrash) as crash:
        shop.feed(shop.purchase(), shop.view(1))
    assert (crash.value.source, crash.value.offset) == (1, 0)
    assert isinstance(crash.value.__cause__, ZeroDivisionError)


def test_the_first_record_that_crashes_is_named_in_whichever_pass_it_does(monkeypatch):
    def picky_fold(state, event, *args):
        if event.item == "rug":
            raise KeyError("in the first pass")
        return fold(state, event, *args)

    monkeypatch.setattr("pricing.run.fold", picky_fold)
    shop = Shop(item("rug"), item("lamp"))
    with pytest.raises(EventCrash) as crash:
        shop.feed(shop.view(), shop.view(1, "rug"), shop.view(2))
    assert (crash.value.offset, type(crash.value.__cause__)) == (1, KeyError)
    monkeypatch.setattr("pricing.verdicts.respond", lambda *_: 1 // 0)
    with pytest.raises(EventCrash) as crash:
        shop.feed(shop.view(3), shop.view(4, "rug"))
    assert (crash.value.offset, type(crash.value.__cause__)) == (3, ZeroDivisionError)


def test_an_isolated_event_is_a_dead_letter_with_the_last_line_of_its_traceback():
    shop = Shop()
    applied, decision = shop.feed(shop.view(), shop.view(1), isolated={(1, 0): "ZeroDivisionError: by zero"})
    assert applied.outcome == "dead_letter:crashed"
    ((letter, error),) = shop.last.dead
    assert (letter.offset, error.message) == (0, "ZeroDivisionError: by zero")
    assert (decision.sequence, decision.version) == (1, 2)


def test_a_user_whom_the_watermark_has_left_behind_reads_as_empty():
    shop = Shop()
    shop.feed(shop.view())
    on_the_edge, beyond = 35 * DAY, 35 * DAY + 1
    shop.feed(shop.view(on_the_edge, user="bob"))
    assert shop.one(shop.view(on_the_edge)).sequence == 2
    shop.feed(shop.view(on_the_edge + beyond, user="bob"))
    decision = shop.one(shop.view(on_the_edge + beyond))
    assert (decision.sequence, decision.version) == (1, 5)
    assert shop.last.counts["expired"] == 1


def test_the_counts_say_what_happened():
    shop = Shop()
    shop.feed(shop.view(), shop.view(1), shop.purchase(2), shop.view(3, "ghost"), shop.view(4, price=999_999))
    counts = shop.last.counts
    assert (counts["event:view"], counts["event:purchase"], counts["implausible"]) == (4, 1, 1)
    assert (counts["status:drawn"], counts["status:held"], counts["status:list"]) == (2, 1, 1)
    assert (counts["rail:dwell"], counts["binding_rule:dwell"], counts["outcome:unknown_item"]) == (1, 1, 1)


def test_a_state_is_loaded_once_per_user_and_batch():
    shop = Shop()
    asked = []
    batch = [shop.inbound(shop.view(minute)) for minute in range(3)]
    shop.engine.step(batch, asked.append, shop.partition, shop.catalogue, shop.policies)
    assert asked == [b"ann", erasure_key(b"ann")], "and where there is none, whether the user was forgotten"


def test_decisions_are_keyed_by_user_and_records_without_a_user_by_nobody():
    shop = Shop()
    shop.feed(shop.broken("not_json"), shop.view())
    (dead, _), (decided, _) = shop.last.decisions
    assert dead.startswith(b'["","')
    assert decided.startswith(b'["ann","')
    assert [key for key, _ in shop.last.prices] == [b'["ann","lamp"]']


def test_all_records_are_of_the_two_known_kinds():
    shop = Shop()
    records = shop.feed(shop.consent(True), shop.view(), shop.view(0, "ghost"), shop.broken("null_value"))
    assert [type(record) for record in records] == [Applied, Decision, Applied, Applied]


def test_a_late_event_finds_room_where_offers_have_ended_for_the_user_by_now():
    shop = Shop(item("a"), item("b"), offers_max=1)
    shop.one(shop.view(0, "a"))
    shop.feed(shop.view(40, "unknown"))
    decision = shop.one(shop.view(10, "b"))
    assert (decision.status, list(shop.state().offers)) == ("drawn", ["b"])
