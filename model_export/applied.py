"""The events of a recorded log as the engine applies them: refused, merged, folded, with the state that each one leaves.

The same Intake, Merge and fold as in a worker, so a token or a window here is the token or window that serving makes. Not
a replay: nothing is priced (backtest.replay). Memory holds the log's records of one pass; a log that does not fit is too
large to train on in one process, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.errors import REFUSED
from contracts.events import Consent, ShopEvent
from contracts.intake import Inbound, Intake
from contracts.log import Log, catalogue_records, records
from contracts.merge import Merge
from contracts.semantics import Semantics
from features.fold import Folded, fold, fold_consent
from features.signals import Signals, signals_of
from features.state import UserState, expired_state
from features.tokens import HEADER_BYTES, Kind, tokens


class Applied(NamedTuple):
    """One event that was applied. Repeated events, consents and refused records are none."""

    partition: int
    event: ShopEvent
    item: CatalogueItem | None
    """The catalogue's version in force at the event's time, None if it has none."""
    state: UserState
    """After the event. Changes with the user's next one: read it now, or copy."""
    history: bytes
    """The user's tokens before the event (features.tokens)."""
    position: int
    """Tokens of the user before the event: the place of this one, from 0."""
    token: bytes
    """The event's own token."""
    before_ms: int | None
    """Event time of the user's event before, in the order applied; None for a first one."""

    @property
    def kind(self) -> Kind:
        """The kind of the event's token."""
        return next(tokens(self.token)).kind

    @property
    def signals(self) -> Signals:
        """The signals as of the event, while `state` is as it left it."""
        return signals_of(self.state, self.event.item, self.item)


def catalogue_of(log: Log) -> Catalogue:
    """Return the whole catalogue of `log`; records that are no items are left out, as a worker leaves them out."""
    catalogue = Catalogue(log.manifest.semantics.currency)
    for record in catalogue_records(log):
        try:
            catalogue.apply(record.offset, record.key, record.value)
        except REFUSED:
            continue
    return catalogue


def applied_events(log: Log, catalogue: Catalogue) -> Iterator[Applied]:
    """Yield the events of `log` partition by partition, each partition in the order that a worker applies it."""
    topology, semantics = log.manifest.topology, log.manifest.semantics
    intakes = [Intake(semantics, topology, partition) for partition in range(topology.partitions)]
    merges = [Merge[Inbound](len(topology.sources)) for _ in intakes]
    for record in records(log):
        inbound = intakes[record.partition].read(
            record.source, record.offset, record.key, record.value, record.arrival_ms
        )
        merges[record.partition].push(record.source, [inbound])
    everything_is_here = range(len(topology.sources))
    for partition, merge in enumerate(merges):
        yield from _folded(partition, merge.take(merge.size, idle=everything_is_here), catalogue, semantics)


def _folded(partition: int, inbounds: list[Inbound], catalogue: Catalogue, semantics: Semantics) -> Iterator[Applied]:
    states: dict[str, UserState] = {}
    times: dict[str, int] = {}
    watermark_ms = 0
    for inbound in inbounds:
        event = inbound.event
        if event is None:
            continue
        state = states.setdefault(event.user, UserState())
        if state.last_ms < watermark_ms - semantics.state_ttl_ms:
            state = states[event.user] = expired_state(state)
            times.pop(event.user, None)
        watermark_ms = max(watermark_ms, event.event_time_ms)
        if isinstance(event, Consent):
            fold_consent(state, event)
            continue
        found = catalogue.at(event.item, event.event_time_ms)
        item = found[1] if found is not None else None
        history, position = state.history, state.tokens
        if fold(state, event, item, semantics) is not Folded.REPEATED:
            token = state.history[-HEADER_BYTES - len(event.item.encode()) :]
            yield Applied(partition, event, item, state, history, position, token, times.get(event.user))
            times[event.user] = event.event_time_ms
