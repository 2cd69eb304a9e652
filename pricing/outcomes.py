"""Outcomes at work in one step: draws wait, are exposed and bought, and resolve by the partition's watermark.

The rules are those of contracts.outcomes; they are applied record by record, in the second pass of the engine, and see only
the record, its user's draws and offers, and the watermark before it: so no split into batches changes a byte. A pending draw
is opened from the store only when something happens to it. Not here: what a pending draw holds (pricing.pending), the
order of resolution (pricing.timers).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from contracts.decisions import decision_key
from contracts.events import Consent, Purchase
from contracts.ids import short_hash
from contracts.outcomes import LatePurchase, PriceMismatch, encode_outcome
from contracts.semantics import Semantics
from features.recent import holds, remember
from features.state import EXPOSURE_IDS_MAX, DrawRef
from pricing.erasure import decode_erasure, erasure_key
from pricing.offers import Offers, Verdict
from pricing.pending import (
    CONSENT,
    ERASED,
    EXPOSED,
    FORGOTTEN,
    IMPLAUSIBLE,
    Pending,
    decode_pending,
    draw_id_of,
    encode_pending,
    follow,
    outcome_of,
    pending_of,
    reward,
    user_key_of,
)
from pricing.records import Place, Record
from pricing.run import Asked, Unpriced, Withdrawn
from pricing.timers import StepTimers, Timer, TimerChange, Timers, key_of


class Outcomes:
    """The outcomes of one step."""

    def __init__(
        self,
        semantics: Semantics,
        places: list[Place],
        load: Callable[[bytes], bytes | None],
        timers: Timers,
        applied: int,
        watermark_ms: int,
        policy: str,
        model: str | None,
    ) -> None:
        """Begin.

        Args:
            semantics: the window, how exposure is known, how many draws of a user are remembered.
            places: of the sources.
            load: gives the stored record of a pending draw by key.
            timers: of the partition; read only.
            applied: the partition's count of applied records before the step.
            watermark_ms: highest event time applied before the step.
            policy: the version that prices outside of experiments.
            model: digest of the artifact in force.
        """
        self._window_ms = semantics.outcome_window_ms
        self._exposure = semantics.exposure
        self._stated = semantics.exposure == "ids"
        self._draws_max = semantics.offers_max
        self._places = places
        self._load = load
        self._timers = StepTimers(timers)
        self._applied = applied
        self._watermark_ms = watermark_ms
        self._policy = policy
        self._model = model
        self._open: dict[Timer, Pending] = {}
        self._resolved: list[Timer] = []
        self._erasures: dict[bytes, int] = {}
        self._kinds: list[str] = []
        self.records: list[Record] = []
        """In the order in which draws resolve and purchases come; the draws that a record resolves come after it."""

    def priced(self, turn: Asked, verdict: Verdict, preference: float | None) -> None:
        """Go past an event that led to a price."""
        draws, now_ms = turn.draws, turn.ask.now_ms
        if draws or verdict.binding_rule == "purchase":
            self._meet(draws, turn.offers, turn)
        if verdict.status == "drawn":
            self._draw(turn, verdict, preference)
        elif self._stated and verdict.status == "held":
            self._reissue(draws, turn)
        self._advance(now_ms)

    def unpriced(self, turn: Unpriced) -> None:
        """Go past a record that led to no price."""
        event = turn.inbound.event
        if event is None or turn.user is None:
            return  # a dead letter has no time
        if turn.draws is not None and turn.offers is not None:
            self._meet(turn.draws, turn.offers, turn)
        self._advance(event.event_time_ms)

    def withdrawn(self, turn: Withdrawn) -> None:
        """Go past a withdrawal of consent: nothing is learned from the user's pending draws any more, if any are left."""
        if turn.erase:
            self._erasures[turn.inbound.key or b""] = turn.version
            for ref in turn.draws:
                if ref.due_ms > self._watermark_ms:
                    self._open[ref.due_ms, ref.version] = ERASED
        else:
            self._mark(turn.draws, CONSENT)
        self._advance(turn.inbound.order_ms)

    def _advance(self, now_ms: int) -> None:
        """Move the watermark and resolve what is due."""
        if now_ms > self._watermark_ms:  # noqa: PLR1730  # max() costs four times as much, on every event
            self._watermark_ms = now_ms
        while self._timers.due_ms <= self._watermark_ms:
            timer = self._timers.take()
            pending = self._open.pop(timer, None)
            if pending is None:
                pending = decode_pending(self._load(key_of(timer)))
            self._resolved.append(timer)
            if not self._erased(timer, pending):
                self._kinds.append("bought" if pending.quantity else "not_bought")
                self.records.append((pending.key, outcome_of(pending)))

    def _erased(self, timer: Timer, pending: Pending) -> bool:
        """Whether the draw's user was forgotten after it. An erasure reaches the draws that the user's state remembered."""
        if not pending.marks & FORGOTTEN:
            return pending is ERASED or not pending.key
        user = user_key_of(pending)
        version = self._erasures.get(user)
        if version is None:
            value = self._load(erasure_key(user))
            version = 0 if value is None else decode_erasure(value).version
        return timer[1] <= version

    # -- what a draw meets until then ------------------------------------------------------------------------------

    def _meet(self, draws: list[DrawRef], offers: Offers, turn: Asked | Unpriced) -> None:
        """Tell a user's draws of an event of that user; forget those that have resolved."""
        event = turn.inbound.event
        assert event is not None
        assert not isinstance(event, Consent)  # says nothing of draws, but by a withdrawal
        while draws and draws[0].due_ms <= self._watermark_ms:
            del draws[0]
        if turn.suspect:
            self._mark(draws, IMPLAUSIBLE)
        if isinstance(event, Purchase):
            self._purchase(event, draws, offers, turn)
        elif self._stated and event.decision_id is not None and draws:
            self._expose(event.decision_id, event.event_time_ms, draws)

    def _record(self, timer: Timer) -> Pending:
        """Return a draw's record, to be read."""
        pending = self._open.get(timer)
        return decode_pending(self._load(key_of(timer))) if pending is None else pending

    def _pending(self, ref: DrawRef) -> Pending:
        """Return a draw's record, to be changed."""
        timer = ref.due_ms, ref.version
        pending = self._open.get(timer)
        if pending is None:
            pending = self._open[timer] = decode_pending(self._load(key_of(timer)))
        return pending

    def _mark(self, draws: list[DrawRef], mark: int) -> None:
        """Mark every pending draw, once."""
        for ref in draws:
            if ref.due_ms > self._watermark_ms and not ref.marks & mark:
                ref.marks |= mark
                self._pending(ref).marks |= mark

    def _expose(self, decision_id: str, now_ms: int, draws: list[DrawRef]) -> None:
        key = short_hash(decision_id)
        for ref in draws:
            if ref.due_ms > self._watermark_ms and now_ms < ref.due_ms and holds(ref.ids, key):
                self._mark([ref], EXPOSED)
                ref.ids = b""

    def _purchase(self, event: Purchase, draws: list[DrawRef], offers: Offers, turn: Asked | Unpriced) -> None:
        now_ms, paid, latest = event.event_time_ms, None, None
        for ref in draws:
            if (
                ref.item == event.item
                and ref.due_ms > self._watermark_ms
                and 0 < ref.due_ms - now_ms <= self._window_ms
            ):
                if latest is None or ref.due_ms >= latest.due_ms:
                    latest = ref
                if ref.price == event.price and (paid is None or ref.due_ms >= paid.due_ms):
                    paid = ref
        if paid is not None:
            reward(self._pending(paid), event)
        elif latest is not None:
            draw_id = draw_id_of(self._record((latest.due_ms, latest.version)))
            self._unrewarded(PriceMismatch, event, turn, draw_id, latest.due_ms - self._window_ms, latest.price)
        else:
            offer = offers.get(event.item)
            if offer is not None and offer.drawn_ms <= now_ms:
                self._unrewarded(LatePurchase, event, turn, offer.draw_id, offer.drawn_ms, offer.price)

    def _unrewarded(
        self,
        kind: type[PriceMismatch | LatePurchase],
        event: Purchase,
        turn: Asked | Unpriced,
        draw_id: str,
        drawn_ms: int,
        drawn_price: int,
    ) -> None:
        if isinstance(turn, Asked):
            decision_id = turn.ask.decision_id
        else:
            decision_id = self._places[turn.inbound.source].id_of(turn.inbound.offset, "")
        record = kind(
            decision_id=decision_id,
            user=event.user,
            item=event.item,
            purchase_id=event.event_id,
            event_time_ms=event.event_time_ms,
            price=event.price,
            quantity=event.quantity,
            draw_id=draw_id,
            drawn_ms=drawn_ms,
            drawn_price=drawn_price,
        )
        self._kinds.append("price_mismatch" if kind is PriceMismatch else "late")
        self.records.append((decision_key(event.user, decision_id), encode_outcome(record)))

    # -- draws -----------------------------------------------------------------------------------------------------

    def _draw(self, turn: Asked, verdict: Verdict, preference: float | None) -> None:
        """Let a draw wait."""
        draws, now_ms = turn.draws, turn.ask.now_ms
        timer = now_ms + self._window_ms, turn.version
        if draws and self._watermark_ms < draws[-1].due_ms > now_ms:
            follow(self._pending(draws[-1]), turn, verdict.price)
        if len(draws) >= self._draws_max:
            self._make_room(draws)
        pending = pending_of(turn, verdict, preference, self._policy, self._model, timer[0], self._exposure)
        if turn.suspect:
            pending.marks |= IMPLAUSIBLE
        self._open[timer] = pending
        self._timers.add(timer)
        ids = short_hash(turn.ask.decision_id) if self._stated else b""
        draws.append(DrawRef(turn.priced.item.item, timer[0], turn.version, verdict.price, pending.marks, ids))

    def _make_room(self, draws: list[DrawRef]) -> None:
        """Forget what has resolved, and if that is not enough the oldest draws, which nothing can be learned from then."""
        draws[:] = [ref for ref in draws if ref.due_ms > self._watermark_ms]
        spare = len(draws) - self._draws_max + 1
        if spare > 0:
            self._mark(draws[:spare], FORGOTTEN)
            del draws[:spare]

    def _reissue(self, draws: list[DrawRef], turn: Asked) -> None:
        """Let the id of a held price stand for its draw: the last of the item."""
        for ref in reversed(draws):
            if ref.item == turn.priced.item.item:
                if not ref.marks & EXPOSED and ref.due_ms > self._watermark_ms:
                    ref.ids = remember(ref.ids, short_hash(turn.ask.decision_id), EXPOSURE_IDS_MAX)
                return

    # -- what the step leads to ------------------------------------------------------------------------------------

    def changes(self) -> dict[bytes, bytes | None]:
        """Return the records of pending draws that change: new bytes, None for one that is to be deleted."""
        changes: dict[bytes, bytes | None] = {
            key_of(timer): encode_pending(pending) for timer, pending in self._open.items()
        }
        for timer in self._resolved:
            if timer[1] <= self._applied:  # else it was drawn in this step, and nobody has stored it
                changes[key_of(timer)] = None
        return changes

    def timer_change(self) -> TimerChange:
        """Return what the step does to the timers."""
        return self._timers.change()

    def counted(self) -> Counter[str]:
        """Return the counts as `Step.counts` names them."""
        return Counter({f"resolved:{kind}": times for kind, times in Counter(self._kinds).items()})
