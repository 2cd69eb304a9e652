"""One run of the engine over a batch: the states at work, and what each kind of record does.

Lives as long as its batch. Not here: the loop over the batch (pricing.engine), the bytes of records (pricing.records).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from operator import attrgetter

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.errors import BadEvent
from contracts.events import Click, Consent, Purchase, ShopEvent, View
from contracts.intake import Inbound
from contracts.semantics import Semantics
from features.fold import Folded, fold, fold_consent
from features.state import Offer, UserState, decode_state, encode_state, expired_state
from pricing.menus import MenuBook, PricedItem
from pricing.offers import Ask, Verdict, close_all, prescribe, respond
from pricing.records import Place, Recorder

GONE = -1
"""Catalogue version of an item that is no longer fit to be priced; its open offers can still be withdrawn."""

_REPEATED, _IMPLAUSIBLE = Folded.REPEATED, Folded.IMPLAUSIBLE  # enum look-ups cost more
_EVENT_COUNTS = {View: "event:view", Click: "event:click", Purchase: "event:purchase", Consent: "event:consent"}


class Run:
    """The working set of one step; its public numbers go on from the step before."""

    def __init__(
        self,
        semantics: Semantics,
        places: list[Place],
        menus: MenuBook,
        recorder: Recorder,
        catalogue: Catalogue,
        kill_switch: bool,
    ) -> None:
        self._semantics = semantics
        self._places = places
        self._menus = menus
        self._recorder = recorder
        self._catalogue = catalogue
        self._kill_switch = kill_switch
        self._states: dict[bytes, UserState] = {}
        self._changed: dict[bytes, UserState] = {}
        self._counts: dict[str, int] = {}
        self._verdicts: list[Verdict] = []
        self.applied = 0
        self.watermark_ms = 0
        self.dead: list[tuple[Inbound, BadEvent]] = []

    def bury(self, inbound: Inbound, error: BadEvent) -> None:
        """Apply a dead letter: it has a version and a record of its own, and changes nothing else."""
        self.applied += 1
        self.dead.append((inbound, error))
        self._count("event:dead_letter")
        self._unpriced(f"dead_letter:{error.code}", None, inbound)

    def state_of(self, inbound: Inbound, load: Callable[[bytes], bytes | None]) -> UserState:
        """Return the state of the record's user; of one left behind by state_ttl_ms, its consent."""
        key = inbound.key or b""
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = decode_state(load(key))
        if state.last_ms < self.watermark_ms - self._semantics.state_ttl_ms and state.sequence:
            state = self._states[key] = expired_state(state)
            self._count("expired")
        return state

    def apply(self, inbound: Inbound, state: UserState, decision_id: str, u: float) -> None:
        """Apply a record that holds an event of the user with `state`."""
        event = inbound.event
        assert event is not None
        self.applied += 1
        self._count(_EVENT_COUNTS[type(event)])
        if isinstance(event, Consent):
            changed = self._consent(event, inbound, state)
        else:
            changed = self._shop_event(event, inbound, state, decision_id, u)
        if changed:
            self._changed[inbound.key or b""] = state
        self.watermark_ms = max(self.watermark_ms, event.event_time_ms)

    def _shop_event(self, event: ShopEvent, inbound: Inbound, state: UserState, decision_id: str, u: float) -> bool:
        """Fold the event, then price its item; return whether the state has changed."""
        found = self._catalogue.at(event.item, event.event_time_ms)
        folded = fold(state, event, None if found is None else found[1], self._semantics)
        if folded is _REPEATED:
            self._unpriced("repeated", event.user, inbound)
            return False
        if folded is _IMPLAUSIBLE:
            self._count("implausible")
        if found is None:
            self._unpriced("unknown_item", event.user, inbound)
            return True
        priced = self._menus.of(found[0], found[1], event.market)
        if priced.refused_by is not None:
            self._unpriced("refused_item", event.user, inbound)
            return True
        rule = self._prescription(event, state)
        if rule is None:
            ask = Ask(event.event_time_ms, event.market, decision_id, u)
            verdict = respond(state, priced, ask, self._semantics.offers_max)
        else:
            verdict = prescribe(state, priced, event.market, rule)
        self._decide(verdict, priced, inbound, state, decision_id)
        return True

    def _prescription(self, event: ShopEvent, state: UserState) -> str | None:
        """Return what prescribes the list price, or None if the price may be personal."""
        if isinstance(event, Purchase):
            return "purchase"
        consent = self._semantics.consent_default if state.consent is None else state.consent
        if not consent:
            return "consent"
        return "kill_switch" if self._kill_switch else None

    def _consent(self, event: Consent, inbound: Inbound, state: UserState) -> bool:
        """Fold a consent; a withdrawal returns every open offer to the list price, by item id."""
        withdrawn = close_all(state, event.event_time_ms) if fold_consent(state, event) else []
        for item, offer in withdrawn:
            priced = self._for_withdrawal(item, offer, event.event_time_ms)
            verdict = prescribe(state, priced, offer.market, "withdrawal")
            decision_id = self._places[inbound.source].id_of(inbound.offset, item)
            self._decide(verdict, priced, inbound, state, decision_id)
        if not withdrawn:
            self._unpriced("consent", event.user, inbound)
        return True

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
        bare = CatalogueItem(
            item=item,
            valid_from_ms=offer.drawn_ms,
            title="",
            category="",
            brand="",
            currency=self._semantics.currency,
            list_price=offer.list_price,
        )
        return PricedItem(GONE, bare, self._menus.policy, may_raise=False)

    def _decide(
        self, verdict: Verdict, priced: PricedItem, inbound: Inbound, state: UserState, decision_id: str
    ) -> None:
        self._verdicts.append(verdict)
        self._recorder.decided(verdict, priced, inbound, decision_id, state.sequence, self.applied)

    def _unpriced(self, outcome: str, user: str | None, inbound: Inbound) -> None:
        self._count(f"outcome:{outcome}")
        self._recorder.applied(outcome, user, inbound, self.applied)

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1

    def encoded(self) -> dict[bytes, bytes]:
        """Return the new states of the users that have changed."""
        return {key: encode_state(state) for key, state in self._changed.items()}

    def counted(self) -> dict[str, int]:
        """Return the counts of the run, as `Step.counts` names them."""
        counts = Counter(self._counts)
        for name in ("status", "binding_rule", "intent"):
            for value, times in Counter(map(attrgetter(name), self._verdicts)).items():
                if value is not None:
                    counts[f"{name}:{value}"] = times
        for rails, times in Counter(map(attrgetter("trail.rails"), self._verdicts)).items():
            for rail in rails:
                counts[f"rail:{rail}"] += times
        return dict(counts)
