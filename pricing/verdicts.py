"""The second pass of the engine over a batch: turn by turn, the price and the records that leave the house.

Reads what the first pass (pricing.run) noted, and changes the users' offers and draws, which that pass left alone. Not here:
what a single offer means (pricing.offers), what becomes of draws (pricing.outcomes), the bytes of records (pricing.records).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.intake import Inbound
from contracts.policies import PolicyBook
from contracts.semantics import Semantics
from features.state import Offer
from features.vectors import Taste
from pricing import erasure, reasons
from pricing.menus import MenuBook, PricedItem
from pricing.offers import Verdict, close_all, prescribe, respond
from pricing.outcomes import Outcomes
from pricing.records import Place, Recorder
from pricing.run import Asked, Turn, Withdrawn
from pricing.shadow import Shadow
from pricing.targets import Drawn, TargetDraw, Targets

GONE = -1
"""Catalogue version of an item that is no longer fit to be priced; its open offers can still be withdrawn."""


def bare_item(item: str, valid_from_ms: int, currency: str, list_price: int) -> CatalogueItem:
    """Return an item of which nothing is known but its list price."""
    return CatalogueItem(
        item=item,
        valid_from_ms=valid_from_ms,
        title="",
        category="",
        brand="",
        currency=currency,
        list_price=list_price,
    )


class Court:
    """Gives the verdicts of one step."""

    def __init__(
        self,
        semantics: Semantics,
        places: list[Place],
        menus: MenuBook,
        recorder: Recorder,
        catalogue: Catalogue,
        tastes: Sequence[Taste],
        fallback: bool,
        draws: Outcomes | None,
        shadow: Shadow | None = None,
        targets: Targets | None = None,
    ) -> None:
        """Begin.

        Args:
            semantics: limits and thresholds.
            places: of the sources.
            menus: of the policy that prices, the same as in the first pass.
            recorder: where the records go.
            catalogue: read only.
            tastes: what the model makes of the batch's tokens; none without a model.
            fallback: the policy prices in place of the current one, which was made for another model.
            draws: goes along, turn by turn; None where there are no outcomes.
            shadow: decides every draw once more, for nobody.
            targets: are asked about every draw; None: nobody is.
        """
        self._semantics = semantics
        self._places = places
        self._menus = menus
        self._recorder = recorder
        self._catalogue = catalogue
        self._tastes = tastes
        self._fallback = fallback
        self._draws = draws
        self._shadow = shadow
        self._targets = targets
        self._drawn: list[Drawn] = []
        self._verdicts: list[Verdict] = []
        self._outcomes: list[str] = []

    def judge(self, turn: Turn) -> None:
        """Write the records of the next turn."""
        if isinstance(turn, Asked):
            self._price(turn)
        elif isinstance(turn, Withdrawn):
            self._withdraw(turn)
        else:
            self._unpriced(turn.outcome, turn.user, turn.inbound, turn.version)
            if self._draws is not None:
                self._draws.unpriced(turn)

    def _price(self, turn: Asked) -> None:
        ask, preference = turn.ask, None
        if self._tastes:
            ask.taste = self._tastes[turn.token]
            preference = ask.taste.preference
        before = None if self._shadow is None else turn.offers.get(turn.priced.item.item)  # a draw replaces it
        if turn.rule is None:
            verdict = respond(turn.offers, turn.priced, ask, self._semantics.offers_max)
            fallback = self._fallback if turn.treatment is None else turn.treatment.fallback
            if fallback and verdict.status == "drawn":
                verdict.reasons = (reasons.MODEL_MISMATCH, *verdict.reasons)
        else:
            verdict = prescribe(turn.offers, turn.priced, ask.market, turn.rule)
        self._verdicts.append(verdict)
        self._recorder.decided(
            verdict, turn.priced, turn.inbound, ask.decision_id, turn.sequence, turn.version, preference, turn.treatment
        )
        if self._shadow is not None and verdict.status == "drawn":
            last_price = turn.priced.list_price if before is None else before.price
            self._shadow.decide(turn, verdict.price, last_price, preference)
        if self._draws is not None:
            self._draws.priced(turn, verdict, preference)
        if self._targets is not None and verdict.status == "drawn":
            self._drawn.append(Drawn(turn, verdict))

    def _withdraw(self, turn: Withdrawn) -> None:
        """Return every open offer to the list price, by item id."""
        inbound = turn.inbound
        withdrawn = close_all(turn.offers, inbound.order_ms)
        for item, offer in withdrawn:
            priced = self._for_withdrawal(item, offer, inbound.order_ms)
            verdict = prescribe(turn.offers, priced, offer.market, "withdrawal")
            decision_id = self._places[inbound.source].id_of(inbound.offset, item)
            self._verdicts.append(verdict)
            self._recorder.decided(verdict, priced, inbound, decision_id, turn.sequence, turn.version, None)
        if turn.erase:
            self._unpriced(erasure.OUTCOME, None, inbound, turn.version)
        elif not withdrawn:
            self._unpriced("consent", turn.user, inbound, turn.version)
        if self._draws is not None:
            self._draws.withdrawn(turn)

    def _for_withdrawal(self, item: str, offer: Offer, now_ms: int) -> PricedItem:
        """Return the item to withdraw an offer of: as the catalogue has it now, or at the draw if that was later.

        An item that has left the catalogue since, or is refused now, goes back to the list price that the offer was
        made against, with no bounds of its own.
        """
        found = self._catalogue.at(item, max(now_ms, offer.drawn_ms))
        if found is not None:
            priced = self._menus.of(found[0], found[1], offer.market)
            if priced.refused_by is None:
                return priced
        bare = bare_item(item, offer.drawn_ms, self._semantics.currency, offer.list_price)
        return self._menus.priced(GONE, bare, may_raise=False)

    def _unpriced(self, outcome: str, user: str | None, inbound: Inbound, version: int) -> None:
        self._outcomes.append(outcome)
        self._recorder.applied(outcome, user, inbound, version)

    def wished(self, policies: PolicyBook) -> list[TargetDraw]:
        """Return what the targets would have drawn from at every draw of the step; nothing without targets."""
        return [] if self._targets is None else self._targets.of(self._drawn, policies)

    def counted(self) -> Counter[str]:
        """Return the counts of the turns, as `Step.counts` names them."""
        counts = Counter({f"outcome:{outcome}": times for outcome, times in Counter(self._outcomes).items()})
        for name in ("status", "binding_rule", "intent"):
            for value, times in Counter(map(attrgetter(name), self._verdicts)).items():
                if value is not None:
                    counts[f"{name}:{value}"] = times
        for rails, times in Counter(map(attrgetter("trail.rails"), self._verdicts)).items():
            for rail in rails:
                counts[f"rail:{rail}"] += times
        if self._shadow is not None:
            counts.update(self._shadow.counts)
        return counts
