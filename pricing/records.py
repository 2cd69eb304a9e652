"""From a verdict to the two records that leave the house: a price update and its decision; and records without a price.

One `Recorder` per batch: it holds what all records of a batch are stamped with. Not here: who reads them (contracts).
"""

from __future__ import annotations

from typing import Any

import msgspec

from contracts.decisions import Applied, Decision, Source, decision_key, encode_decision
from contracts.events import Consent
from contracts.ids import DecisionIds
from contracts.intake import Inbound
from contracts.prices import PriceUpdate, price_key
from contracts.semantics import Semantics, Topology
from pricing.menus import PricedItem
from pricing.offers import Verdict
from pricing.treatments import NO_STAMP, Treatment

Record = tuple[bytes, bytes]
"""Key and value."""

# Messages for writing: the fields of the contracts in the same order, so the same bytes (a test holds them equal), but
# positional and untyped. Thirty keyword arguments cost ten times as much, and lattice and trail are JSON already.
_PriceRow = msgspec.defstruct("_PriceRow", [(name, Any) for name in PriceUpdate.__struct_fields__], gc=False)
_FIELDS = Decision.__struct_fields__
_REQUIRED = len(_FIELDS) - len(Decision.__struct_defaults__)
_DecisionRow = msgspec.defstruct(
    "_DecisionRow",
    [(name, Any) for name in _FIELDS[:_REQUIRED]]
    + [(name, Any, default) for name, default in zip(_FIELDS[_REQUIRED:], Decision.__struct_defaults__, strict=True)],
    tag_field="record",
    tag="decision",
    omit_defaults=True,
    gc=False,
)
_to_json = msgspec.json.Encoder().encode


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

    __slots__ = ("_catalogue_seen", "_model", "_places", "_policies_seen", "_policy", "decisions", "prices", "shadows")

    def __init__(
        self, places: list[Place], policy: str, model: str | None, policies_seen: int, catalogue_seen: int
    ) -> None:
        self._places = places
        self._policy = policy
        self._model = model
        self._policies_seen = policies_seen
        self._catalogue_seen = catalogue_seen
        self.prices: list[Record] = []
        self.decisions: list[Record] = []
        self.shadows: list[Record] = []

    def decided(
        self,
        verdict: Verdict,
        priced: PricedItem,
        inbound: Inbound,
        decision_id: str,
        sequence: int,
        version: int,
        preference: float | None = None,
        treatment: Treatment | None = None,
    ) -> None:
        """Write the price update and the decision of one verdict.

        Args:
            verdict: the price and why.
            priced: the item.
            inbound: the record that led to it; holds an event.
            decision_id: of this decision.
            sequence: the user's count of applied events, this one included.
            version: the partition's count of applied records, this one included.
            preference: the model's, None without one.
            treatment: the user's in an experiment.
        """
        event = inbound.event
        assert event is not None
        self.prices.append(_price_record(verdict, priced, decision_id, event.user, event.event_time_ms, version))
        self.decisions.append(
            self._decision(verdict, priced, inbound, decision_id, sequence, version, preference, treatment)
        )

    def shadowed(
        self,
        verdict: Verdict,
        priced: PricedItem,
        inbound: Inbound,
        decision_id: str,
        sequence: int,
        version: int,
        preference: float | None,
        treatment: Treatment,
    ) -> None:
        """Write what a shadow decides of a draw, and no price; arguments as of `decided`, `treatment` the shadow's."""
        self.shadows.append(
            self._decision(verdict, priced, inbound, decision_id, sequence, version, preference, treatment)
        )

    def _decision(
        self,
        verdict: Verdict,
        priced: PricedItem,
        inbound: Inbound,
        decision_id: str,
        sequence: int,
        version: int,
        preference: float | None,
        treatment: Treatment | None,
    ) -> Record:
        event = inbound.event
        assert event is not None
        event_id, shown = (None, None) if isinstance(event, Consent) else (event.event_id, event.decision_id)
        place = self._places[inbound.source]
        user, item, now_ms = event.user, priced.item, event.event_time_ms
        policy, stamp = (self._policy, NO_STAMP) if treatment is None else (treatment.policy, treatment.stamp)
        decision = _DecisionRow(
            decision_id,
            event_id,
            user,
            item.item,
            verdict.market,
            item.currency,
            verdict.price,
            priced.list_price,
            verdict.multiplier,
            now_ms,
            verdict.valid_until_ms,
            version,
            verdict.reasons,
            verdict.status,
            verdict.draw_id,
            priced.lattice_json,
            verdict.trail.json,
            verdict.binding_rule,
            verdict.forced,
            verdict.propensity,
            verdict.intent,
            policy,
            self._policies_seen,
            priced.version,
            self._catalogue_seen,
            self._model,
            sequence, now_ms,
            (place.topic, place.partition, inbound.offset),
            shown, preference, *stamp, *verdict.choice, *verdict.learned,
        )  # fmt: skip
        return decision_key(user, decision_id), _to_json(decision)

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
            model=self._model,
        )
        self.decisions.append((decision_key(user, record.decision_id), encode_decision(record)))


def _price_record(
    verdict: Verdict, priced: PricedItem, decision_id: str, user: str, now_ms: int, version: int
) -> Record:
    item = priced.item
    update = _PriceRow(
        decision_id,
        user,
        item.item,
        verdict.market,
        item.currency,
        verdict.price,
        priced.list_price,
        now_ms,
        verdict.valid_until_ms,
        version,
        verdict.reasons,
        verdict.status,
        verdict.draw_id,
    )
    return price_key(user, item.item), _to_json(update)
