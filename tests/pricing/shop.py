"""A small shop for the tests of the engine: one item, one partition, and what was published, decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.decisions import Applied, Decision, decode_decision
from contracts.events import Click, Consent, Event, Purchase, View
from contracts.intake import Inbound, refuse
from contracts.learned import Learned, digest_of, payload_of
from contracts.policies import (
    CurrentPolicy,
    KillSwitch,
    Policy,
    PolicyBook,
    Rails,
    SessionIntent,
    encode_policy,
    policy_key,
)
from contracts.prices import PriceUpdate, decode_price
from contracts.semantics import Semantics, Topology
from features.state import UserState, decode_state
from features.vectors import TokenEncoder
from pricing.choosers import Knowledge
from pricing.engine import Engine, PartitionState, Step
from pricing.timers import Timers

START_MS = 1_572_566_400_000
MINUTE_MS = 60_000
DWELL_MS = 30 * MINUTE_MS
RANKS: dict[type, int] = {Consent: 0, View: 1, Click: 2, Purchase: 3}
POLICY = Policy(name="steady", number=1, rule=SessionIntent(explore=0.0), rails=Rails(charm_endings=()))
"""No exploration and no charm endings: prices that a reader can compute in the head."""


def item(name: str = "lamp", list_price: int = 10_000, **more: Any) -> CatalogueItem:
    base = {"valid_from_ms": 0, "title": name, "category": "light", "brand": "lux", "currency": "USD"}
    return CatalogueItem(**{**base, "item": name, "list_price": list_price, **more})


class Shop:
    """Runs an engine over events, one batch per call, and keeps states and pending draws as a store would."""

    def __init__(self, *items: CatalogueItem, policy: Policy = POLICY, consent_default: bool = True, **semantics: Any):
        self.semantics = Semantics(consent_default=consent_default, **semantics)
        self.engine = Engine(self.semantics, Topology(partitions=1), 0)
        self.catalogue, self.policies = Catalogue(), PolicyBook()
        self.partition = PartitionState()
        self.states: dict[bytes, bytes] = {}
        self.timers = Timers()
        self.offsets = [0, 0, 0, 0]
        self.events = 0
        self.last: Step | None = None
        self.encoder: TokenEncoder | None = None
        for one in items or (item(),):
            self.stock(one)
        self.publish(policy)

    def stock(self, one: CatalogueItem) -> None:
        self.catalogue.add(self.catalogue.seen, one)

    def publish(self, policy: Policy) -> None:
        self.policies.apply(self.policies.seen, policy_key(policy), encode_policy(policy))
        self.policies.current = policy

    def adopt(self, policy: Policy) -> None:
        """Publish the policy, and point at it, as an operator does."""
        for record in (policy, CurrentPolicy(name=policy.name, number=policy.number)):
            self.policies.apply(self.policies.seen, policy_key(record), encode_policy(record))

    def teach(self, knowledge: Knowledge, discount_weight: float = 0.0, policy: Policy | None = None) -> Learned:
        """Publish `knowledge` as the next version of what `policy`, or else the current one, has learned."""
        policy = policy or self.policies.current
        before = self.policies.knowledge_of(policy)
        assert knowledge is not None
        record = Learned(
            name=policy.name,
            number=policy.number,
            version=1 if before is None else before.version + 1,
            feature_version=1,
            payload=payload_of(knowledge.encode()),
            digest=digest_of(knowledge.encode(), discount_weight),
            outcomes=knowledge.outcomes,
            left={},
            discount_weight=discount_weight,
            positions=(0,),
            begins=(0,),
            resolved_ms=0,
        )
        self.policies.apply(self.policies.seen, policy_key(record), encode_policy(record))
        return record

    def kill_switch(self, on: bool) -> None:
        switch = KillSwitch(on=on)
        self.policies.apply(self.policies.seen, policy_key(switch), encode_policy(switch))

    def inbound(self, event: Event) -> Inbound:
        rank = RANKS[type(event)]
        self.offsets[rank] += 1
        at = event.event_time_ms
        return Inbound(at, rank, self.offsets[rank] - 1, event, None, event.user.encode(), None, at)

    def broken(self, code: str) -> Inbound:
        self.offsets[1] += 1
        return Inbound(-1, 1, self.offsets[1] - 1, None, refuse(code, "It is broken"), b"ann", b"{", START_MS)

    def feed(self, *events: Event | Inbound, **more: Any) -> list[Decision | Applied]:
        """Apply the events as one batch; return its decisions."""
        batch = [event if isinstance(event, Inbound) else self.inbound(event) for event in events]
        self.last = self.engine.step(
            batch,
            self.states.get,
            self.partition,
            self.catalogue,
            self.policies,
            encoder=self.encoder,
            timers=self.timers,
            **more,
        )
        self.states |= self.last.states
        for key, value in (self.last.pending | self.last.erased).items():
            if value is None:
                self.states.pop(key, None)
            else:
                self.states[key] = value
        self.timers.apply(self.last.timers)
        self.partition = self.last.partition
        return [decode_decision(value) for _, value in self.last.decisions]

    def one(self, event: Event) -> Any:
        """Apply one event; return its one decision."""
        (decision,) = self.feed(event)
        return decision

    def prices(self) -> list[PriceUpdate]:
        """The price updates of the last batch."""
        assert self.last is not None
        return [decode_price(value) for _, value in self.last.prices]

    def state(self, user: str = "ann") -> UserState:
        return decode_state(self.states.get(user.encode()))

    def _shop_event(self, kind: type, minute: float, what: str, more: dict[str, Any]) -> Any:
        self.events += 1
        base = {"event_id": f"e{self.events}", "user": "ann", "price": 10_000, "currency": "USD"}
        return kind(**{**base, "item": what, "event_time_ms": START_MS + int(minute * MINUTE_MS), **more})

    def view(self, minute: float = 0, what: str = "lamp", **more: Any) -> View:
        return self._shop_event(View, minute, what, more)

    def click(self, minute: float = 0, what: str = "lamp", **more: Any) -> Click:
        return self._shop_event(Click, minute, what, more)

    def purchase(self, minute: float = 0, what: str = "lamp", **more: Any) -> Purchase:
        return self._shop_event(Purchase, minute, what, more)

    def consent(self, granted: bool, minute: float = 0, user: str = "ann", erase: bool = False) -> Consent:
        return Consent(user=user, granted=granted, event_time_ms=START_MS + int(minute * MINUTE_MS), erase=erase)


def rails_of(decision: Decision) -> Sequence[str]:
    return [step.rail for step in decision.trail]
