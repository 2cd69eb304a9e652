"""The naive twin of the outcomes: recomputed from a whole history of records and decisions. Imports nothing of pricing or features.

A history is what was applied, in order: the event (None for a dead letter) and the decision records that it led to. The twin
takes draws and their ids from the decisions, and everything that becomes of them from the events.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from contracts.catalogue import CatalogueItem
from contracts.decisions import Applied, Decision
from contracts.events import Consent, Event, Purchase
from contracts.semantics import Semantics

DAY_MS = 86_400_000
IDS = 8

Applying = tuple[Event | None, list[Decision | Applied]]


@dataclass
class Draw:
    decision: Decision
    due: int
    ids: list[str]
    known: bool = True
    """Among the draws that are remembered of its user."""
    exposed: bool = False
    reasons: set[str] = field(default_factory=set)
    purchases: list[Purchase] = field(default_factory=list)
    next: Decision | None = None

    @property
    def start(self) -> int:
        return self.decision.event_time_ms


class User:
    def __init__(self) -> None:
        self.last_ms = 0
        self.implausible_ms = 0
        self.draws: list[Draw] = []


class Twin:
    """Goes through a history once, looking at everything so far at every step."""

    def __init__(self, semantics: Semantics, stock: dict[str, list[CatalogueItem]]) -> None:
        self.semantics = semantics
        self.stock = stock
        self.users: dict[str, User] = {}
        self.consents: dict[str, tuple[int, bool]] = {}
        self.unresolved: list[Draw] = []
        self.watermark = 0
        self.said: list[dict[str, object]] = []

    def go(self, history: list[Applying]) -> Twin:
        for event, records in history:
            if event is not None:
                self.record(event, records)
        return self

    def record(self, event: Event, records: list[Decision | Applied]) -> None:
        user = self.users.setdefault(event.user, User())
        if user.last_ms < self.watermark - self.semantics.state_ttl_ms:
            user = self.users[event.user] = User()
        if isinstance(event, Consent):
            user.last_ms = max(user.last_ms, event.event_time_ms)
            self.consent(user, event)
        elif not (isinstance(records[0], Applied) and records[0].outcome == "repeated"):
            user.last_ms = max(user.last_ms, event.event_time_ms)
            self.shop(user, event, records[0])
        self.watermark = max(self.watermark, event.event_time_ms)
        due = sorted((d for d in self.unresolved if d.due <= self.watermark), key=lambda d: (d.due, d.decision.version))
        for draw in due:
            self.unresolved.remove(draw)
            self.said.append(self.outcome(draw))

    def waiting(self, user: User) -> list[Draw]:
        """The user's remembered draws whose window the watermark has not reached, in the order of drawing."""
        return [draw for draw in user.draws if draw.known and draw.due > self.watermark]

    def consent(self, user: User, event: Consent) -> None:
        since, granted = self.consents.get(event.user, (0, True))
        if event.event_time_ms >= since:
            self.consents[event.user] = event.event_time_ms, event.granted
            if granted and not event.granted:
                for draw in self.waiting(user):
                    draw.reasons.add("consent")

    def shop(self, user: User, event: Event, record: Decision | Applied) -> None:
        far = self.semantics.price_deviation_max_permille / 1000
        versions = [one for one in self.stock.get(event.item, []) if one.valid_from_ms <= event.event_time_ms]
        if versions and not versions[-1].list_price / far <= event.price <= versions[-1].list_price * far:
            user.implausible_ms = max(user.implausible_ms, event.event_time_ms)
        suspect = user.implausible_ms and event.event_time_ms - user.implausible_ms < DAY_MS
        for draw in self.waiting(user):
            if suspect:
                draw.reasons.add("implausible")
        if isinstance(event, Purchase):
            self.purchase(user, event, record)
        elif event.decision_id is not None and self.semantics.exposure == "ids":
            for draw in self.waiting(user):
                if event.event_time_ms < draw.due and event.decision_id in draw.ids[-IDS:]:
                    draw.exposed = True
        if isinstance(record, Decision) and record.status == "drawn":
            self.draw(user, record, bool(suspect))
        elif isinstance(record, Decision) and record.status == "held":
            for draw in self.waiting(user):
                if draw.decision.decision_id == record.draw_id:
                    draw.ids.append(record.decision_id)

    def draw(self, user: User, decision: Decision, suspect: bool) -> None:
        if user.draws and user.draws[-1].due > max(self.watermark, decision.event_time_ms):
            user.draws[-1].next = decision
        waiting = self.waiting(user)
        for forgotten in waiting[: max(0, len(waiting) - self.semantics.offers_max + 1)]:
            forgotten.known = False
            forgotten.reasons.add("forgotten")
        due = decision.event_time_ms + self.semantics.outcome_window_ms
        draw = Draw(decision, due, [decision.decision_id], exposed=self.semantics.exposure == "all")
        draw.reasons |= {"forced"} if decision.forced else set()
        draw.reasons |= {"implausible"} if suspect else set()
        user.draws.append(draw)
        self.unresolved.append(draw)

    def purchase(self, user: User, event: Purchase, record: Decision | Applied) -> None:
        inside = [
            d for d in self.waiting(user) if d.decision.item == event.item and d.start <= event.event_time_ms < d.due
        ]
        inside.sort(key=lambda draw: (draw.start, draw.decision.version))
        paid = [draw for draw in inside if draw.decision.price == event.price]
        earlier = [draw for draw in user.draws if draw.decision.item == event.item]
        if paid:
            paid[-1].purchases.append(event)
        elif inside:
            self.said.append(unrewarded("price_mismatch", event, record, inside[-1]))
        elif earlier and earlier[-1].start <= event.event_time_ms:
            self.said.append(unrewarded("late", event, record, earlier[-1]))

    def outcome(self, draw: Draw) -> dict[str, object]:
        decision, bought, following = draw.decision, draw.purchases, draw.next
        same = ("user", "item", "market", "currency", "price", "list_price", "policy", "model", "catalogue_version",
                "intent", "propensity", "forced", "version")  # fmt: skip
        reasons = [name for name in ("implausible", "consent", "forced", "forgotten") if name in draw.reasons]
        versions = [one for one in self.stock[decision.item] if one.valid_from_ms <= draw.start]
        return {name: getattr(decision, name) for name in same} | {
            "record": "outcome",
            "draw_id": decision.decision_id,
            "cost": versions[-1].cost,
            "drawn_ms": draw.start,
            "resolved_ms": draw.due,
            "exposure": self.semantics.exposure,
            "exposed": draw.exposed,
            "learnable": not reasons,
            "unlearnable": reasons,
            "bought": rewarded_with(bought),
            "next": following
            and {
                "draw_id": following.decision_id,
                "item": following.item,
                "price": following.price,
                "drawn_ms": following.event_time_ms,
            },
        }


def rewarded_with(purchases: list[Purchase]) -> dict[str, object] | None:
    if not purchases:
        return None
    first = purchases[0]
    return {
        "quantity": sum(one.quantity for one in purchases),
        "price": first.price,
        "event_id": first.event_id,
        "event_time_ms": first.event_time_ms,
    }


def unrewarded(kind: str, event: Purchase, record: Decision | Applied, draw: Draw) -> dict[str, object]:
    return {
        "record": kind,
        "decision_id": record.decision_id,
        "user": event.user,
        "item": event.item,
        "purchase_id": event.event_id,
        "event_time_ms": event.event_time_ms,
        "price": event.price,
        "quantity": event.quantity,
        "draw_id": draw.decision.decision_id,
        "drawn_ms": draw.start,
        "drawn_price": draw.decision.price,
    }
