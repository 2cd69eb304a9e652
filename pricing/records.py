"""From a verdict to the two records that leave the house: a price update and its decision; and records without a price.

One `Recorder` per batch: it holds what all records of a batch are stamped with. Not here: who reads them (contracts).
"""

from __future__ import annotations

from contracts.decisions import Applied, Decision, Source, decision_key, encode_decision
from contracts.events import Consent
from contracts.ids import DecisionIds
from contracts.intake import Inbound
from contracts.prices import PriceUpdate, encode_price, price_key
from contracts.semantics import Semantics, Topology
from pricing.menus import PricedItem
from pricing.offers import Verdict

Record = tuple[bytes, bytes]
"""Key and value."""


class Place:
    """Where the records of one source stand, and the ids of their decisions."""

    __slots__ = ("id_of", "partition", "topic")

    def __init__(self, semantics: Semantics, topology: Topology, partition: int, source: int) -> None:
        self.topic = topology.sources[source]
        self.partition = partition
        self.id_of = DecisionIds(semantics.epoch, self.topic, partition).of

    def at(self, offset: int) -> Source:
        """Return the position as decisions carry it."""
        return Source(self.topic, self.partition, offset)


class Recorder:
    """Writes the records of one batch, in applied order."""

    __slots__ = ("_catalogue_seen", "_places", "_policies_seen", "_policy", "decisions", "prices")

    def __init__(self, places: list[Place], policy: str, policies_seen: int, catalogue_seen: int) -> None:
        self._places = places
        self._policy = policy
        self._policies_seen = policies_seen
        self._catalogue_seen = catalogue_seen
        self.prices: list[Record] = []
        self.decisions: list[Record] = []

    def decided(
        self, verdict: Verdict, priced: PricedItem, inbound: Inbound, decision_id: str, sequence: int, version: int
    ) -> None:
        """Write the price update and the decision of one verdict.

        Args:
            verdict: the price and why.
            priced: the item.
            inbound: the record that led to it; holds an event.
            decision_id: of this decision.
            sequence: the user's count of applied events, this one included.
            version: the partition's count of applied records, this one included.
        """
        event = inbound.event
        assert event is not None
        user, item = event.user, priced.item
        update = PriceUpdate(
            decision_id=decision_id,
            user=user,
            item=item.item,
            market=verdict.market,
            currency=item.currency,
            price=verdict.price,
            list_price=priced.list_price,
            valid_from_ms=event.event_time_ms,
            valid_until_ms=verdict.valid_until_ms,
            version=version,
            reasons=verdict.reasons,
            status=verdict.status,
            draw_id=verdict.draw_id,
        )
        self.prices.append((price_key(user, item.item), encode_price(update)))
        decision = self._decision(update, verdict, priced, inbound, sequence)
        self.decisions.append((decision_key(user, decision_id), encode_decision(decision)))

    def _decision(
        self, update: PriceUpdate, verdict: Verdict, priced: PricedItem, inbound: Inbound, sequence: int
    ) -> Decision:
        event = inbound.event
        shop = None if event is None or isinstance(event, Consent) else event
        return Decision(
            decision_id=update.decision_id,
            event_id=None if shop is None else shop.event_id,
            user=update.user,
            item=update.item,
            market=update.market,
            currency=update.currency,
            price=update.price,
            list_price=update.list_price,
            multiplier=verdict.multiplier,
            valid_from_ms=update.valid_from_ms,
            valid_until_ms=update.valid_until_ms,
            version=update.version,
            reasons=update.reasons,
            status=update.status,
            draw_id=update.draw_id,
            lattice=priced.lattice,
            trail=verdict.trail,
            binding_rule=verdict.binding_rule,
            forced=verdict.forced,
            propensity=verdict.propensity,
            intent=verdict.intent,
            policy=self._policy,
            policies_seen=self._policies_seen,
            catalogue_version=priced.version,
            catalogue_seen=self._catalogue_seen,
            model=None,
            sequence=sequence,
            event_time_ms=update.valid_from_ms,
            source=self._places[inbound.source].at(inbound.offset),
            shown=None if shop is None else shop.decision_id,
        )

    def applied(self, outcome: str, user: str | None, inbound: Inbound, version: int) -> None:
        """Write that a record was applied and led to no price."""
        place = self._places[inbound.source]
        record = Applied(
            decision_id=place.id_of(inbound.offset, ""),
            user=user,
            version=version,
            outcome=outcome,
            policies_seen=self._policies_seen,
            catalogue_seen=self._catalogue_seen,
            source=place.at(inbound.offset),
        )
        self.decisions.append((decision_key(user, record.decision_id), encode_decision(record)))
