"""A decision again, from its record: the engine's own functions on what the record names, so that the bytes can be compared.

A record names all that it was made of: versions of policy and catalogue, the digest of what was learned, the experiment, the
draw that it holds. Whoever has those (`Background`) can have the decision again; `lacking` says what is missing. What only
the user's state knew is taken from the record: the level of intent, the features, the churn hazard, that an earlier offer had
ended. Not here: finding a record or its background (the shells), its numbers for people (pricing.explanation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from contracts.catalogue import CatalogueItem
from contracts.decisions import Decision, encode_decision
from contracts.learned import Learned
from contracts.policies import Policy
from contracts.rules import LearningRule
from features.state import Offer
from pricing import reasons
from pricing.choosers import Sight
from pricing.contexts import Scene
from pricing.draws import uniforms
from pricing.lattice import charm_drops
from pricing.learned import Known, LearnedDraw, known_of
from pricing.menus import Menu, MenuBook, PricedItem
from pricing.offers import PRESCRIBED, Ask, Choice, Offers, Verdict, prescribe, respond
from pricing.rails import step_limit
from pricing.verdicts import GONE, bare_item

_RULES: dict[tuple[str, ...], str] = {codes: rule for rule, codes in PRESCRIBED.items()}
_PREFIXES = (reasons.MODEL_MISMATCH, reasons.OFFER_ENDED)
_NO_RAILS = {"dwell", *PRESCRIBED}

Missing = tuple[str, str]
"""What is not at hand: a code, which pricing.sentences has in words, and the name of it."""


class Background(Struct, frozen=True, kw_only=True):
    """What a record names, as far as it is at hand; None: it is not."""

    policy: Policy | None = None
    """The version that priced."""
    item: CatalogueItem | None = None
    """The item as of the record's catalogue version."""
    known: Known | None = None
    """What the policy had learned: of the digest `learned`."""
    holdout: float | None = None
    """Share of the experiment's users who are held out."""
    draw: Decision | None = None
    """The draw that a held price re-issues."""


class Recomputed(Struct, frozen=True):
    """A decision, made again."""

    decision: Decision
    value: bytes
    """Of the record that it should have led to."""
    prices: tuple[int, ...]
    """Feasible, ascending."""
    probabilities: tuple[float, ...] | None
    """Of each of them, where the decision is a draw."""


def lacking(decision: Decision, background: Background) -> list[Missing]:
    """Return what `recompute` needs and is not at hand; empty if nothing."""
    found: list[Missing] = []
    if background.policy is None:
        found.append(("policy", decision.policy))
    if background.item is None and decision.catalogue_version != GONE:
        found.append(("catalogue", str(decision.catalogue_version)))
    if decision.learned is not None and background.known is None:
        found.append(("learned", decision.learned[:12]))
    if decision.experiment is not None and decision.status == "drawn" and background.holdout is None:
        found.append(("experiment", decision.experiment))
    if decision.status == "list" and decision.reasons not in _RULES:
        found.append(("release", ", ".join(decision.reasons)))
    if decision.status == "held" and background.draw is None:
        found.append(("draw", decision.draw_id or ""))
    return found


def known_by(policy: Policy | None, digest: str | None, learned: Learned | None = None) -> Known | None:
    """Return what `policy` knew at a decision that names `digest`; None: it learns nothing, or it is not at hand.

    Args:
        policy: the version that priced, None if it is not at hand.
        digest: of the decision, None of a policy that does not learn.
        learned: the version of that digest, None if there is none: then it may be what the policy knows before all outcomes.

    Raises:
        BadReference: `learned` is not what such a policy can have learned.
    """
    if policy is None or digest is None or not isinstance(policy.rule, LearningRule):
        return None
    known = known_of(policy, learned)
    return known if known.digest == digest else None


def feasible_prices(decision: Decision, policy: Policy | None) -> tuple[int, ...] | None:
    """Return the prices that the policy could have chosen from, ascending.

    As recorded, else those that the trail leaves, in which the step that prescribes or holds a price is no rail; None where
    charm endings bind and `policy` is not known.
    """
    if decision.feasible is not None:
        return decision.feasible
    endings: Sequence[int] = ()
    if any(step.rail == "charm" for step in decision.trail):
        if policy is None:
            return None
        endings = policy.rails.charm_endings
    rails = [step for step in decision.trail if step.rail not in _NO_RAILS]
    low = max((step.low for step in rails if step.low is not None), default=0)
    high = min((step.high for step in rails if step.high is not None), default=max(decision.lattice))
    drops = charm_drops(tuple(endings))
    return tuple(
        price
        for price in decision.lattice
        if price == decision.list_price or (low <= price <= high and not drops[price % 100])
    )


def recompute(decision: Decision, background: Background) -> Recomputed:
    """Make `decision` again; nothing may be `lacking`."""
    policy = background.policy
    assert policy is not None
    priced = _priced(decision, background.item, MenuBook(policy))
    menu, last_price = _menu(decision, priced)
    verdict = _verdict(decision, background, priced, last_price)
    codes = (*[code for code in decision.reasons if code in _PREFIXES], *verdict.reasons)
    learned: tuple[object, ...] = verdict.learned or (None,) * len(LearnedDraw._fields)
    again = replace(
        decision,
        currency=priced.item.currency, price=verdict.price, list_price=priced.list_price, multiplier=verdict.multiplier,
        valid_until_ms=verdict.valid_until_ms, reasons=codes, status=verdict.status, draw_id=verdict.draw_id,
        lattice=priced.lattice, trail=verdict.trail.steps, binding_rule=verdict.binding_rule, forced=verdict.forced,
        propensity=verdict.propensity, intent=verdict.intent, policy=policy.version,
        **_choice(decision, menu, verdict), **dict(zip(LearnedDraw._fields, learned, strict=True)),
    )  # fmt: skip
    chances = None if verdict.chances is None else verdict.chances.probabilities
    return Recomputed(again, encode_decision(again), menu.prices, chances)


def _choice(decision: Decision, menu: Menu, verdict: Verdict) -> dict[str, object]:
    """Return the fields that say what was drawn from; of a record of before `feasible`, those that it has."""
    choice, chances = verdict.choice, verdict.chances
    values: tuple[object, ...] = (None,) * len(Choice._fields)
    if choice and chances is not None:
        values = menu.prices, chances.probabilities, choice.u, choice.explored
    fields = dict(zip(Choice._fields, values, strict=True))
    if decision.feasible is not None:
        return fields
    return {name: None if getattr(decision, name) is None else value for name, value in fields.items()}


def _priced(decision: Decision, item: CatalogueItem | None, menus: MenuBook) -> PricedItem:
    if item is not None:
        return menus.of(decision.catalogue_version, item, decision.market)
    bare = bare_item(decision.item, decision.valid_from_ms, decision.currency, decision.list_price)
    return menus.priced(GONE, bare, may_raise=False)


def _verdict(decision: Decision, background: Background, priced: PricedItem, last_price: int) -> Verdict:
    """Ask the engine's own functions, with an offer that stands for what the user's state held."""
    policy, item, draw = priced.policy, decision.item, background.draw
    if decision.status == "list":
        return prescribe({item: _closed(decision, last_price)}, priced, decision.market, _RULES[decision.reasons])
    ask = Ask(decision.event_time_ms, decision.market, decision.decision_id, 0.0, decision.intent or 0, 0)
    if decision.status == "held":
        assert draw is not None
        held = Offer(
            draw.price, draw.list_price, draw.multiplier, draw.propensity, draw.decision_id, draw.valid_from_ms,
            draw.valid_until_ms or 0, True, draw.intent or 0, draw.market,
        )  # fmt: skip
        return respond({item: held}, priced, ask, 2)
    ask.u = uniforms(policy.seed, [decision.decision_id])[0]
    ask.holdout, ask.held_out = background.holdout or 0.0, decision.held_out
    if isinstance(policy.rule, LearningRule):
        ask.sight, ask.churn = _sight(decision, policy, background.known), decision.churn
    offers: Offers = {item: _closed(decision, last_price)}
    return respond(offers, priced, ask, 2)


def _closed(decision: Decision, price: int) -> Offer:
    """Return an offer that has ended, so that `price` is the user's last one."""
    return Offer(price, decision.list_price, 1000, 1.0, "", 0, 0, False, 0, decision.market)


def _sight(decision: Decision, policy: Policy, known: Known | None) -> Sight:
    """Return what the policy saw, from the features on the record; of a forced price, which saw none, the prior."""
    rule = policy.rule
    assert isinstance(rule, LearningRule)
    chooser, knowledge, digest, weight = known_of(policy, None) if known is None else known
    x = np.eye(1, rule.features.width)[0] if decision.features is None else np.array(decision.features)
    row = chooser.project(Scene(x[None], np.array([decision.intent or 0], dtype=np.int64)))
    return Sight(chooser, row, x, knowledge, digest, weight)


def _menu(decision: Decision, priced: PricedItem) -> tuple[Menu, int]:
    """Return the menu and the user's last price, or one that stands for it where the step limit did not bind."""
    limit = step_limit(priced.list_price, priced.policy.rails)
    for step in decision.trail:
        if step.rail == "step" and step.low is not None:
            return priced.menu(step.low + limit), step.low + limit
    others = [price for price in priced.lattice if price != priced.list_price]
    last_price = others[0] + limit if others else priced.list_price
    return priced.menu(last_price), last_price
