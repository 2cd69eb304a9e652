"""Draws and holds: what one event means for the user's offer of one item. Reads and changes a user's offers, nothing else.

What a decision needs besides, an `Ask` holds as of its event, so that prices may be decided after a whole batch has been
folded. A view or click without an open offer is a draw, and opens one; while it is open and allowed, its price is held; consent
and kill switch prescribe the list price and close it; a purchase closes it. Not here: probabilities and rails
(pricing.menus), records (pricing.records).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import msgspec
from msgspec import Struct

from contracts.prices import Status
from contracts.rules import LearningRule
from features.churn import Tiles, hazard_of
from features.state import Offer
from features.vectors import Taste
from pricing import reasons
from pricing.choosers import Sight
from pricing.learned import LearnedDraw, record_of
from pricing.menus import Chances, PricedItem, Trail

PRESCRIBED = {
    "consent": reasons.NO_CONSENT,
    "kill_switch": reasons.KILL_SWITCH,
    "purchase": reasons.PURCHASED,
    "withdrawal": reasons.CONSENT_WITHDRAWN,
    "offers_max": reasons.OFFERS_FULL,
}
"""What prescribes the list price, and the reasons that go with it."""


Offers = dict[str, Offer]
"""A user's offers by item, drawn longest ago first."""


class Ask(Struct, gc=False):
    """The event that asks for a price, and what was known when it was applied."""

    now_ms: int
    """The event's time."""
    market: str | None
    decision_id: str
    u: float
    """The decision's uniform number in [0, 1), in case it is a draw."""
    intent: int
    """The session's level of intent for the item, this event included."""
    last_ms: int
    """The user's highest event time, this event's included."""
    holdout: float = 0.0
    """Chance of a user of this experiment to be held out, and to pay list price."""
    held_out: bool = False
    """This one is."""
    taste: Taste | None = None
    """What the model makes of user and item; None without a model."""
    sight: Sight | None = None
    """What a learning policy sees of the draw, if it is to be one; None for a policy that does not learn."""
    tiles: Tiles | None = None
    """Of the user's state, this event included; None where a decision is made again from its record."""
    churn: float | None = None
    """The churn hazard on that record."""


class Choice(NamedTuple):
    """What a decision says of a draw that had a choice: these of its fields, in their order."""

    feasible: msgspec.Raw
    probabilities: msgspec.Raw
    u: float
    explored: bool


class Verdict(Struct, gc=False):
    """A price and why. Money in minor units, times in ms of event time; fields as in contracts.decisions."""

    price: int
    multiplier: int
    market: str | None
    valid_until_ms: int | None
    reasons: tuple[str, ...]
    status: Status
    draw_id: str | None
    trail: Trail
    binding_rule: str | None
    forced: bool
    propensity: float
    intent: int | None
    choice: Choice | tuple[()] = ()
    """Empty unless the price was drawn among several."""
    learned: LearnedDraw | tuple[()] = ()
    """Empty unless a learning policy did so."""
    chances: Chances | None = None
    """What a draw drew from; None for every other price."""
    last_price: int = 0
    """Of a draw: the user's last price of the item, from which the step limit counts."""


def is_open(offer: Offer, now_ms: int) -> bool:
    """Return whether `offer` stands at event time `now_ms`. A late event, of before the draw, finds it open, too."""
    return offer.open and now_ms < offer.valid_until_ms


def respond(offers: Offers, priced: PricedItem, ask: Ask, offers_max: int) -> Verdict:
    """Return the price of an item that may be priced personally: held if an offer is open, else drawn.

    Args:
        offers: of the user; a draw replaces the one of the item.
        priced: the item.
        ask: the view or click.
        offers_max: most offers remembered; when so many are open, the list price is prescribed instead of a draw.
    """
    offer = offers.get(priced.item.item)
    if offer is None:
        if len(offers) >= offers_max and not _make_room(offers, ask.last_ms, offers_max):
            return prescribe(offers, priced, ask.market, "offers_max")
        return draw(offers, priced, ask, priced.list_price)
    if not is_open(offer, ask.now_ms):
        return draw(offers, priced, ask, offer.price)
    if offer.list_price == priced.list_price and priced.allows(offer.price):
        return _hold(offer, priced, ask.market)
    verdict = draw(offers, priced, ask, offer.price)
    verdict.reasons = (reasons.OFFER_ENDED, *verdict.reasons)
    return verdict


def _make_room(offers: Offers, now_ms: int, offers_max: int) -> bool:
    """Forget the offers drawn longest ago that are not open, down to one below `offers_max`; False if all are open.

    An open offer is never forgotten: its price is with the shopper, and a withdrawal of consent must find it.
    """
    ended = [item for item, offer in offers.items() if not is_open(offer, now_ms)]
    for item in ended[: len(offers) - offers_max + 1]:
        del offers[item]
    return len(offers) < offers_max


def draw(offers: Offers, priced: PricedItem, ask: Ask, last_price: int) -> Verdict:
    """Draw a price and open an offer at it, behind all others in the order of draws.

    Args:
        offers: of the user; the item's is replaced.
        priced: the item.
        ask: the view or click.
        last_price: of the item for this user; the list price if there was none.
    """
    item = priced.item.item
    menu = priced.menu(last_price)
    sight = ask.sight
    chances = menu.chances(ask.intent) if sight is None else menu.chances_of(sight)
    arm = menu.prices.index(priced.list_price) if ask.held_out else bisect_right(chances.cumulative, ask.u)
    price, propensity = menu.prices[arm], chances.probabilities[arm]
    forced = len(menu.prices) == 1
    if ask.holdout and not forced:
        # the chance that this price leaves the house, over the lot of the user and the draw
        propensity = (1.0 - ask.holdout) * propensity + (ask.holdout if price == priced.list_price else 0.0)
    multiplier = priced.multipliers[price]
    until_ms = ask.now_ms + priced.policy.rails.dwell_ms
    offers.pop(item, None)
    offers[item] = Offer(
        price,
        priced.list_price,
        multiplier,
        propensity,
        ask.decision_id,
        ask.now_ms,
        until_ms,
        True,
        ask.intent,
        ask.market,
    )
    why, binding = chances.aimed if arm == chances.target else chances.explored, chances.binding_rule
    if ask.held_out and not forced:
        why, binding = reasons.HELD_OUT, "holdout"
    return Verdict(
        price,
        multiplier,
        ask.market,
        until_ms,
        why,
        "drawn",
        ask.decision_id,
        menu.trail,
        binding,
        forced,
        propensity,
        ask.intent,
        () if forced else Choice(chances.prices_json, chances.probabilities_json, ask.u, arm != chances.target),
        () if sight is None or forced else record_of(sight, priced, _churn(ask, priced)),
        chances,
        last_price,
    )


def _churn(ask: Ask, priced: PricedItem) -> float | None:
    """Return the user's churn hazard, by what the policy, which learns, says of the horizon."""
    rule = priced.policy.rule
    assert isinstance(rule, LearningRule)
    return ask.churn if ask.tiles is None else hazard_of(rule.churn, ask.tiles, ask.last_ms)


def _hold(offer: Offer, priced: PricedItem, market: str | None) -> Verdict:
    trail = priced.menu(offer.price).pinned("dwell", offer.price)
    return Verdict(
        offer.price,
        priced.multipliers[offer.price],
        market,
        offer.valid_until_ms,
        reasons.HELD,
        "held",
        offer.draw_id,
        trail,
        "dwell",
        False,
        offer.propensity,
        offer.intent,
    )


def prescribe(offers: Offers, priced: PricedItem, market: str | None, rule: str) -> Verdict:
    """Return the list price, prescribed by one of PRESCRIBED, and close the offer of the item if there is one."""
    offer = offers.get(priced.item.item)
    list_price = priced.list_price
    last_price = list_price
    if offer is not None:
        offer.open = False
        last_price = offer.price
    binding = "consent" if rule == "withdrawal" else rule
    trail = priced.menu(last_price).pinned(binding, list_price)
    return Verdict(list_price, 1000, market, None, PRESCRIBED[rule], "list", None, trail, binding, True, 1.0, None)


def close_all(offers: Offers, now_ms: int) -> list[tuple[str, Offer]]:
    """Close every offer; return those that were open at event time `now_ms`, by item id."""
    were_open = [(item, offer) for item, offer in sorted(offers.items()) if is_open(offer, now_ms)]
    for offer in offers.values():
        offer.open = False
    return were_open
