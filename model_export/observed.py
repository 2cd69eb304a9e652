"""One pass over a log for evaluation: per event who, what, when, the rolling features, and what a model makes of it.

Events stand user by user, each user's in the order applied (next_item.Interactions). Memory: about 0.5 KB per event.
Not here: what is concluded from them (next_item, propensity).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.log import Log
from features.tokens import KINDS
from features.vectors import TokenAsk, TokenEncoder
from model_export.applied import Applied, applied_events
from model_export.next_item import Interactions, interactions_of
from model_export.propensity import ROLLING, rolling_features

_ASKS_AT_A_TIME = 2_048

Progress = Callable[[int, int | None], None]
"""Called with events done and records in all."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The events of a log, n of them."""

    interactions: Interactions
    kind: NDArray[np.int8]
    """(n,): index into features.tokens.KINDS."""
    rolling: NDArray[np.float32]
    """(n, len(ROLLING))."""
    vectors: NDArray[np.float32] | None
    """(n, v): the model's vector of the user after the event."""
    logits: NDArray[np.float32] | None
    """(n,): the model's purchase logit of the event's item at its list price."""


class _Reading:
    """What a model says of each event, asked in batches as a worker asks."""

    def __init__(self, encoder: TokenEncoder) -> None:
        self._encoder = encoder
        self._asks: list[TokenAsk] = []
        self._partition = 0
        self.vectors: list[NDArray[np.float32]] = []
        self.logits: list[NDArray[np.float32]] = []

    def add(self, applied: Applied) -> None:
        """Ask for the token of `applied`, sooner or later."""
        if applied.partition != self._partition or len(self._asks) == _ASKS_AT_A_TIME:
            self.flush()
            self._partition = applied.partition
        user = applied.event.user.encode()
        self._asks.append(TokenAsk(user, applied.position, applied.history, applied.token, applied.signals))

    def flush(self) -> None:
        """Ask for what waits."""
        if self._asks:
            encoded = self._encoder.encode(self._partition, self._asks)
            self.vectors.append(np.array(encoded.vectors))
            self.logits.append(np.array(encoded.logits))
            self._asks = []


def observe(
    log: Log, catalogue: Catalogue, encoder: TokenEncoder | None = None, progress: Progress = lambda done, total: None
) -> Observed:
    """Apply the whole of `log`, and ask `encoder`, if there is one, about every event."""
    reading = _Reading(encoder) if encoder is not None else None
    total = sum(map(sum, log.manifest.records.values()))
    events: list[tuple[str, str, int]] = []
    kinds: list[int] = []
    rolling: list[NDArray[np.float32]] = []
    for applied in applied_events(log, catalogue):
        event = applied.event
        events.append((event.user, event.item, event.event_time_ms))
        kinds.append(KINDS.index(applied.kind))
        rolling.append(np.array(rolling_features(applied), dtype=np.float32))
        if reading is not None:
            reading.add(applied)
        if len(events) % _ASKS_AT_A_TIME == 0:
            progress(len(events), total)
    interactions, order = interactions_of(events)
    if reading is not None:
        reading.flush()
    return Observed(
        interactions=interactions,
        kind=np.array(kinds, dtype=np.int8)[order],
        rolling=np.array(rolling, dtype=np.float32).reshape(-1, len(ROLLING))[order],
        vectors=np.concatenate(reading.vectors)[order] if reading is not None else None,
        logits=np.concatenate(reading.logits)[order] if reading is not None else None,
    )
