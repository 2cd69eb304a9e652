"""Outcomes of draws, rule by rule: when they resolve, what rewards them, what nothing is learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import BadSettings
from contracts.outcomes import LatePurchase, Outcome, PriceMismatch, decode_outcome
from contracts.policies import ListPrice, Policy, Rails
from pricing.engine import EventCrash
from pricing.pending import DamagedDraw, decode_pending
from pricing.timers import PREFIX
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import DWELL_MS, MINUTE_MS, START_MS, Shop, item

LIST = Policy(name="list", number=1, rule=ListPrice(), rails=Rails(dwell_ms=5 * MINUTE_MS))
GOLDEN = Path(__file__).parents[1] / "golden/pending_draws_schema_1.hex"
WINDOW_MS = 30 * MINUTE_MS


def said(shop: Shop) -> list[Any]:
    """The outcomes of the last batch."""
    assert shop.last is not None
    return [decode_outcome(value) for _, value in shop.last.outcomes]


def resolved(shop: Shop, minute: float = 100) -> list[Any]:
    """What a passer-by at `minute` resolves, by the watermark."""
    shop.feed(shop.view(minute, "rug", user="passer-by"))
    return said(shop)


def a_shop(policy: Policy = LIST, **semantics: Any) -> Shop:
    return Shop(item("lamp", cost=6_000), item("rug", 4_999), policy=policy, **semantics)


def test_a_draw_resolves_when_the_watermark_reaches_the_end_of_its_window_whoever_moves_it():
    shop = a_shop()
    draw = shop.one(shop.view(0))
    shop.feed(shop.view(29.9, "rug", user="bob"))
    assert said(shop) == []
    shop.feed(shop.consent(True, 30, "cyd"))
    (outcome,) = said(shop)
    assert (outcome.draw_id, outcome.drawn_ms, outcome.resolved_ms) == (
        draw.decision_id,
        START_MS,
        START_MS + WINDOW_MS,
    )
    assert (outcome.bought, outcome.learnable, outcome.cost) == (None, True, 6_000)


def test_a_draw_of_an_event_that_comes_too_late_resolves_at_once():
    shop = a_shop()
    shop.feed(shop.view(60, user="bob"))
    draw = shop.one(shop.view(0))
    assert [outcome.draw_id for outcome in said(shop)] == [draw.decision_id]


def test_a_dead_letter_resolves_nothing():
    shop = a_shop()
    shop.feed(shop.view(0))
    shop.feed(shop.inbound(shop.view(90, user="bob")), isolated={(1, 1): "Boom"})
    assert said(shop) == []


def test_a_purchase_rewards_the_latest_draw_at_the_price_that_was_paid():
    shop = a_shop()
    for minute in (0, 6):
        shop.feed(shop.view(minute))
    shop.feed(shop.purchase(7, quantity=2), shop.purchase(8, quantity=3))
    first, second = resolved(shop)
    assert first.bought is None
    assert (second.bought.quantity, second.bought.price, second.bought.event_time_ms) == (
        5,
        10_000,
        START_MS + 7 * MINUTE_MS,
    )


def test_of_two_draws_at_the_same_instant_the_one_applied_later_is_the_latest():
    shop = a_shop()
    shop.feed(shop.view(0), shop.purchase(0, price=9_999), shop.view(0), shop.purchase(0))
    assert [outcome.bought is not None for outcome in resolved(shop)] == [False, True]


def test_a_purchase_at_the_instant_at_which_the_window_ends_is_late():
    shop = a_shop()
    draw = shop.one(shop.view(0))
    shop.feed(shop.purchase(30))
    late, outcome = said(shop)
    assert type(late) is LatePurchase
    assert (late.draw_id, late.drawn_price, late.price) == (draw.decision_id, 10_000, 10_000)
    assert outcome.bought is None


def test_a_purchase_that_arrives_when_its_draw_has_resolved_is_late_whatever_its_time():
    shop = a_shop()
    shop.feed(shop.view(0), shop.view(31, user="bob"))
    shop.feed(shop.purchase(1))
    assert [type(record) for record in said(shop)] == [LatePurchase]


def test_a_purchase_before_the_draw_or_without_one_says_nothing():
    shop = a_shop()
    shop.feed(shop.view(5), shop.purchase(4), shop.purchase(6, "rug"))
    assert said(shop) == []
    (outcome,) = resolved(shop)
    assert outcome.bought is None


def test_a_purchase_at_another_price_is_a_mismatch_and_no_reward():
    shop = a_shop()
    draw = shop.one(shop.view(0))
    purchase = shop.purchase(1, price=9_000, quantity=4)
    decision = shop.one(purchase)
    (mismatch,) = said(shop)
    assert type(mismatch) is PriceMismatch
    assert (mismatch.decision_id, mismatch.purchase_id) == (decision.decision_id, purchase.event_id)
    assert (mismatch.draw_id, mismatch.drawn_price, mismatch.price, mismatch.quantity) == (
        draw.decision_id,
        10_000,
        9_000,
        4,
    )
    assert resolved(shop)[0].bought is None


def test_a_purchase_at_no_price_of_two_draws_of_one_instant_names_the_one_applied_later():
    shop = a_shop()
    shop.feed(shop.view(0), shop.purchase(0, price=10_000))
    second = shop.one(shop.view(0))
    shop.feed(shop.purchase(1, price=9_000))
    (mismatch,) = said(shop)
    assert (type(mismatch), mismatch.draw_id) == (PriceMismatch, second.decision_id)


def test_a_purchase_of_an_item_that_has_left_the_catalogue_counts():
    shop = a_shop()
    shop.feed(shop.view(0))
    shop.catalogue = type(shop.catalogue)()
    shop.feed(shop.purchase(1))
    (outcome,) = resolved(shop)
    assert outcome.bought.quantity == 1


def test_a_purchase_that_comes_twice_counts_once():
    shop = a_shop()
    purchase = shop.purchase(1)
    shop.feed(shop.view(0), purchase, purchase)
    assert resolved(shop)[0].bought.quantity == 1


@pytest.mark.parametrize(("exposure", "exposed"), [("all", True), ("ids", False)])
def test_without_ids_every_draw_counts_where_the_shop_sends_none(exposure, exposed):
    shop = a_shop(exposure=exposure)
    shop.feed(shop.view(0), shop.view(1))
    (outcome,) = resolved(shop)
    assert (outcome.exposure, outcome.exposed) == (exposure, exposed)


def test_exposure_is_a_view_or_click_with_the_id_of_the_draw_or_of_a_price_held_at_it():
    shop = a_shop(exposure="ids")
    draws = [shop.one(shop.view(0, user=user)) for user in ("ann", "bob", "cyd")]
    held = shop.one(shop.view(1, user="bob"))
    assert (held.status, held.draw_id) == ("held", draws[1].decision_id)
    shop.feed(shop.click(2, user="ann", decision_id=draws[0].decision_id))
    shop.feed(shop.view(2, user="bob", decision_id=held.decision_id))
    shop.feed(shop.purchase(2, user="cyd", decision_id=draws[2].decision_id))
    shop.feed(shop.view(3, user="cyd", decision_id="of another shop"))
    outcomes = {outcome.draw_id: outcome for outcome in resolved(shop)}
    assert [outcomes[draw.decision_id].exposed for draw in draws] == [True, True, False]
    assert outcomes[draws[2].decision_id].bought is not None


def test_a_draw_that_was_seen_keeps_no_ids_of_the_prices_held_at_it_any_more():
    shop = a_shop(exposure="ids")
    draw = shop.one(shop.view(0))
    shop.one(shop.view(1))
    assert len(shop.state().draws[0].ids) == 16
    shop.one(shop.click(2, decision_id=draw.decision_id))
    assert shop.one(shop.view(3)).status == "held"
    assert shop.state().draws[0].ids == b""


def test_the_next_draw_is_of_any_item_and_only_within_the_window():
    shop = a_shop()
    first, second = shop.one(shop.view(0)), shop.one(shop.view(9, "rug"))
    shop.feed(shop.view(50))
    ours = said(shop)
    assert ours[0].draw_id == first.decision_id
    assert (ours[0].next.draw_id, ours[0].next.item, ours[0].next.price) == (second.decision_id, "rug", second.price)
    assert ours[0].next.drawn_ms == START_MS + 9 * MINUTE_MS
    assert ours[1].next is None


def test_nothing_is_learned_after_a_withdrawal_nor_from_implausible_traffic_nor_from_a_single_price():
    shop = Shop(item("lamp"), item("rug", 500, floor=500), policy=LIST)
    shop.feed(shop.view(0), shop.view(0, user="bob"), shop.view(0, "rug", user="cyd", price=500))
    shop.feed(shop.consent(False, 1), shop.view(1, user="bob", price=1))
    shop.feed(shop.view(2, user="dan", price=500), shop.view(60, user="eve"))
    assert {outcome.user: outcome.unlearnable for outcome in said(shop)} == {
        "ann": ("consent",),
        "bob": ("implausible",),
        "cyd": ("forced",),
        "dan": ("implausible",),
    }


def test_a_draw_within_a_day_of_implausible_traffic_is_not_learned_from():
    shop = a_shop()
    shop.feed(shop.view(0, price=1), shop.view(1_400), shop.view(1_441), shop.view(1_500))
    assert [outcome.unlearnable for outcome in said(shop)] == [("implausible",), ("implausible",), ()]


def test_a_draw_that_is_forgotten_says_so():
    shop = a_shop(offers_max=1)
    shop.feed(shop.view(0), shop.purchase(1), shop.view(2))
    assert [outcome.unlearnable for outcome in resolved(shop)] == [("forgotten",), ()]


def test_draws_that_have_resolved_take_no_room():
    shop = a_shop(offers_max=2)
    shop.feed(shop.view(60), shop.view(0, "rug"), shop.view(66))
    assert [outcome.unlearnable for outcome in [*said(shop), *resolved(shop)]] == [(), (), ()]


def test_held_prices_and_prescribed_ones_are_no_draws():
    shop = a_shop(policy=Policy(name="list", number=1, rule=ListPrice(), rails=Rails(dwell_ms=DWELL_MS)))
    shop.feed(shop.view(0), shop.view(1), shop.consent(False, 2, "bob"), shop.view(3, user="bob"))
    assert [outcome.user for outcome in resolved(shop) if type(outcome) is Outcome] == ["ann"]


def test_an_outcome_carries_its_decision_as_it_was_whatever_is_in_force_when_it_resolves():
    shop = a_shop()
    shop.encoder = FakeEncoder("the model of then")
    draw = shop.one(shop.view(0, market="BR"))
    shop.encoder = None
    shop.publish(Policy(name="other", number=2, rule=ListPrice()))
    (outcome,) = resolved(shop)
    same = ("user", "item", "market", "currency", "price", "list_price", "policy", "model", "preference", "intent",
            "catalogue_version", "propensity", "forced", "version")  # fmt: skip
    assert [getattr(outcome, name) for name in same] == [getattr(draw, name) for name in same]
    assert (outcome.model, outcome.policy) == ("the model of then", "list@1")


def test_the_bytes_of_a_pending_draw_are_those_of_its_schema():
    shop = a_shop(exposure="ids")
    shop.feed(shop.view(0), shop.purchase(1), shop.view(6, "rug"))
    pending = [shop.states[key] for key in sorted(shop.states) if key.startswith(PREFIX)]
    assert b"\n".join(pending).hex() == GOLDEN.read_text().strip(), "another layout needs another SCHEMA, and a reader"


def test_a_batch_that_crashes_changes_no_timer():
    shop = a_shop()
    shop.feed(shop.view(0))
    before = len(shop.timers), dict(shop.states)
    broken = shop.inbound(shop.view(90, user="bob"))
    broken.event = "no event at all"
    with pytest.raises(EventCrash):
        shop.feed(shop.view(45, user="cyd"), broken)
    assert (len(shop.timers), shop.states) == before


def test_a_pending_draw_that_is_lost_or_damaged_says_what_to_do():
    shop = a_shop()
    shop.feed(shop.view(0))
    (key,) = [key for key in shop.states if key.startswith(PREFIX)]
    value = shop.states[key]
    with pytest.raises(DamagedDraw, match="not in the store: wipe the data directory"):
        decode_pending(None)
    with pytest.raises(DamagedDraw, match=r"cannot be read .* wipe the data directory"):
        decode_pending(value[:-3])
    del shop.states[key]
    with pytest.raises(DamagedDraw):  # no crash of the event, which is not to blame
        shop.feed(shop.view(45, user="bob"))
    with pytest.raises(BadSettings, match="schema 7, this release reads 1: it was written by a newer"):
        decode_pending(value[:1] + b"\x07" + value[2:])
