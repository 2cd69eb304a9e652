"""The first pass of the engine over a batch: every record into the state of its user, in order, and what a price will need.

A record leaves a *turn*: what the second pass (pricing.verdicts) reads of it, as of the moment it was applied. Between
the two the model reads all tokens of the batch at once. So nothing here touches an offer or a draw, and nothing there
touches anything else of a state. Lives as long as its batch. Not here: the loop over the batch (pricing.engine).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from contracts.catalogue import Catalogue
from contracts.errors import BadEvent
from contracts.events import Click, Consent, Purchase, ShopEvent, View
from contracts.intake import Inbound
from contracts.semantics import Semantics
from features.churn import tiles_of
from features.fold import Folded, fold, fold_consent
from features.signals import signals_of
from features.state import DrawRef, UserState, decode_state, encode_state, expired_state
from features.tokens import newest
from features.vectors import TokenAsk
from features.windows import DAY_MS
from pricing.erasure import Erasure, encode_erasure, erasure_key, state_of_nobody
from pricing.menus import MenuBook, PricedItem
from pricing.offers import Ask, Offers
from pricing.policies import intent_level
from pricing.treatments import Treatment, Treatments

_REPEATED, _IMPLAUSIBLE = Folded.REPEATED, Folded.IMPLAUSIBLE  # enum look-ups cost more
_EVENT_COUNTS = {View: "event:view", Click: "event:click", Purchase: "event:purchase", Consent: "event:consent"}


class Unpriced(Struct, gc=False):
    """The turn of a record that leads to no price."""

    inbound: Inbound
    version: int
    """The partition's count of applied records, this one included."""
    outcome: str
    """As in contracts.decisions.Applied."""
    user: str | None
    """None for a dead letter, which has no event."""
    offers: Offers | None = None
    """As in Asked, and so are the two below; None where the record says nothing of draws."""
    draws: list[DrawRef] | None = None
    suspect: bool = False


class Asked(Struct, gc=False):
    """The turn of an event that asks for the price of its item."""

    inbound: Inbound
    version: int
    sequence: int
    """The user's count of applied events, this one included."""
    offers: Offers
    """Of the state that the event was folded into; as they are when the turn comes."""
    priced: PricedItem
    rule: str | None
    """What prescribes the list price (pricing.offers.PRESCRIBED), None where the price may be personal."""
    ask: Ask
    token: int
    """Place of the event's token in the batch."""
    draws: list[DrawRef]
    """Of the same state as `offers`."""
    suspect: bool
    """The user's traffic was implausible within a day, this event included: nothing is learned from it."""
    treatment: Treatment | None = None
    """The user's in an experiment."""


class Withdrawn(Struct, gc=False):
    """The turn of a consent that has just been withdrawn, or of a user who asks to be forgotten."""

    inbound: Inbound
    version: int
    sequence: int
    offers: Offers
    user: str
    draws: list[DrawRef]
    erase: bool = False
    """Nothing but an erasure is left; offers and draws are those that the user had."""


Turn = Unpriced | Asked | Withdrawn


class Run:
    """The states at work in one step; its public numbers go on from the step before."""

    def __init__(
        self,
        semantics: Semantics,
        menus: MenuBook,
        catalogue: Catalogue,
        kill_switch: bool,
        encoding: bool,
        treatments: Treatments | None = None,
    ) -> None:
        """Begin.

        Args:
            semantics: limits and thresholds.
            menus: of the policy that prices.
            catalogue: read only.
            kill_switch: everybody pays list price.
            encoding: collect the tokens for the model.
            treatments: of the users in experiments, if any run.
        """
        self._semantics = semantics
        self._menus = menus
        self._catalogue = catalogue
        self._kill_switch = kill_switch
        self._encoding = encoding
        self._treatments = treatments
        self._states: dict[bytes, UserState] = {}
        self._changed: dict[bytes, UserState] = {}
        self.applied = 0
        self.watermark_ms = 0
        self.turns: list[Turn] = []
        """Of every record applied, in order."""
        self.tokens: list[TokenAsk] = []
        """Of every event applied, in order; empty without a model."""
        self.dead: list[tuple[Inbound, BadEvent]] = []
        self.erasures: dict[bytes, Erasure] = {}
        """User key -> the last erasure that the batch asks for."""
        self._kinds: list[str] = []

    def bury(self, inbound: Inbound, error: BadEvent) -> None:
        """Apply a dead letter: it has a version and a record of its own, and changes nothing else."""
        self.applied += 1
        self.dead.append((inbound, error))
        self._kinds.append("event:dead_letter")
        self.turns.append(Unpriced(inbound, self.applied, f"dead_letter:{error.code}", None))

    def state_of(self, inbound: Inbound, load: Callable[[bytes], bytes | None]) -> UserState:
        """Return the state of the record's user; of one left behind by state_ttl_ms, its consent."""
        key = inbound.key or b""
        state = self._states.get(key)
        if state is None:
            value = load(key)
            known = decode_state(value) if value is not None else state_of_nobody(load(erasure_key(key)))
            state = self._states[key] = known
        if state.last_ms < self.watermark_ms - self._semantics.state_ttl_ms and state.sequence:
            state = self._states[key] = expired_state(state)
            self._kinds.append("expired")
        return state

    def apply(self, inbound: Inbound, state: UserState, decision_id: str, u: float) -> None:
        """Apply a record that holds an event of the user with `state`."""
        event = inbound.event
        assert event is not None
        self.applied += 1
        self._kinds.append(_EVENT_COUNTS[type(event)])
        if isinstance(event, Consent):
            turn = self._consent(event, inbound, state)
        else:
            turn = self._shop_event(event, inbound, state, decision_id, u)
        self.turns.append(turn)
        if event.event_time_ms > self.watermark_ms:  # noqa: PLR1730  # max() costs four times as much, on every event
            self.watermark_ms = event.event_time_ms

    def _shop_event(self, event: ShopEvent, inbound: Inbound, state: UserState, decision_id: str, u: float) -> Turn:
        """Fold the event; return what pricing its item will need."""
        found = self._catalogue.at(event.item, event.event_time_ms)
        position, history = state.tokens, state.history
        folded = fold(state, event, None if found is None else found[1], self._semantics)
        if folded is _REPEATED:
            return Unpriced(inbound, self.applied, "repeated", event.user)
        key = inbound.key or b""
        self._changed[key] = state
        if folded is _IMPLAUSIBLE:
            self._kinds.append("implausible")
        if self._encoding:
            signals = signals_of(state, event.item, None if found is None else found[1])
            self.tokens.append(TokenAsk(key, position, history, newest(state.history, event.item), signals))
        now_ms = event.event_time_ms
        suspect = state.implausible_ms > 0 and now_ms - state.implausible_ms < DAY_MS
        if found is None:
            return Unpriced(inbound, self.applied, "unknown_item", event.user, state.offers, state.draws, suspect)
        menus, treatment = self._menus, None
        consents = self._semantics.consent_default if state.consent is None else state.consent
        if consents and self._treatments is not None:
            treatment = self._treatments.of(event.user, now_ms)
            if treatment is not None:
                menus, u = treatment.menus, self._treatments.uniform(treatment, len(self.turns))
        priced = menus.of(found[0], found[1], event.market)
        if priced.refused_by is not None:
            return Unpriced(inbound, self.applied, "refused_item", event.user, state.offers, state.draws, suspect)
        intent = intent_level(state, event.item)
        ask = Ask(now_ms, event.market, decision_id, u, intent, state.last_ms)
        ask.tiles = tiles_of(state)
        if treatment is not None:
            ask.holdout, ask.held_out = treatment.holdout, treatment.held_out
        place = len(self.tokens) - 1
        return Asked(
            inbound,
            self.applied,
            state.sequence,
            state.offers,
            priced,
            self._prescription(event, consents),
            ask,
            place,
            state.draws,
            suspect,
            treatment,
        )

    def _prescription(self, event: ShopEvent, consents: bool) -> str | None:
        """Return what prescribes the list price, or None if the price may be personal."""
        if isinstance(event, Purchase):
            return "purchase"
        if not consents:
            return "consent"
        return "kill_switch" if self._kill_switch else None

    def _consent(self, event: Consent, inbound: Inbound, state: UserState) -> Turn:
        """Fold a consent."""
        withdrawn = fold_consent(state, event)
        if event.erase:
            return self._erase(event, inbound, state)
        self._changed[inbound.key or b""] = state
        if withdrawn:
            return Withdrawn(inbound, self.applied, state.sequence, state.offers, event.user, state.draws)
        return Unpriced(inbound, self.applied, "consent", event.user)

    def _erase(self, event: Consent, inbound: Inbound, state: UserState) -> Turn:
        """Forget the user; what the same batch says of them later begins anew, as it would in the next one."""
        key = inbound.key or b""
        erasure = self.erasures[key] = Erasure(self.applied, event.event_time_ms)
        self._states[key] = state_of_nobody(encode_erasure(erasure))
        self._changed.pop(key, None)
        return Withdrawn(inbound, self.applied, state.sequence, state.offers, event.user, state.draws, erase=True)

    def counted(self) -> Counter[str]:
        """Return the counts of the records, as `Step.counts` names them."""
        return Counter(self._kinds)

    def encoded(self) -> dict[bytes, bytes]:
        """Return the new states of the users that have changed, offers as they are now."""
        return {key: encode_state(state) for key, state in self._changed.items()}

    def erased(self) -> dict[bytes, bytes | None]:
        """Return the records of the erasures, and None for the states that they leave no state instead of."""
        erased: dict[bytes, bytes | None] = {key: None for key in self.erasures if key not in self._changed}
        return erased | {erasure_key(key): encode_erasure(erasure) for key, erasure in self.erasures.items()}
