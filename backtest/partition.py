"""What one partition of a worker holds, offline: engine, states, pending draws, its own state, what crashed; and how it is saved
so that a killed replay can go on. Not here: which records it gets, and when (backtest.replay).
"""

from __future__ import annotations

import traceback
from pathlib import Path

import msgspec
from msgspec import Struct

from backtest.feed import Seen
from backtest.states import States
from contracts.intake import Inbound
from contracts.log import Log
from features.vectors import TokenEncoder
from pricing.engine import Engine, EventCrash, PartitionState, Step
from pricing.menus import MenuShelf
from pricing.targets import Targets
from pricing.timers import Timers


class _Saved(Struct, array_like=True):
    consumed: list[int]
    applied: int
    watermark_ms: int
    isolated: list[tuple[int, int, str]]
    note: bytes


_decode = msgspec.msgpack.Decoder(_Saved).decode


class Partition:
    """One partition at work."""

    def __init__(self, log: Log, number: int, seen: Seen, menus: MenuShelf, path: Path, states_bytes: int) -> None:
        """Begin, or go on from what is saved.

        Args:
            log: an opened log.
            number: of the partition.
            seen: catalogue and policies as it knows them.
            menus: may be shared.
            path: where its states are saved, and were by an earlier run.
            states_bytes: what its states may take in memory, about.
        """
        manifest = log.manifest
        self.number = number
        self.seen = seen
        self.targets: Targets | None = None
        self.outcomes = True
        """Whether draws have outcomes."""
        self.isolated: dict[tuple[int, int], str] = {}
        self.consumed = [0] * len(manifest.topology.sources)
        """Records applied, by topic."""
        self.unsaved = 0
        """Records applied since the last save."""
        self.noted: bytes | None = None
        """What an earlier run saved along."""
        self.state = PartitionState()
        self.states = States(path, states_bytes)
        self._encoder: TokenEncoder | None = None
        self._engine = Engine(manifest.semantics, manifest.topology, number, menus)
        saved = self.states.note
        if saved is not None:
            self._restore(_decode(saved))
        self.timers = Timers(self.states.timers())

    def _restore(self, saved: _Saved) -> None:
        self.consumed = saved.consumed
        self.state = PartitionState(saved.applied, saved.watermark_ms)
        self.isolated = {(source, offset): text for source, offset, text in saved.isolated}
        self.noted = saved.note

    def save(self, note: bytes) -> None:
        """Save everything, and `note` with it, at once."""
        isolated = [(source, offset, text) for (source, offset), text in self.isolated.items()]
        saved = _Saved(self.consumed, self.state.applied, self.state.watermark_ms, isolated, note)
        self.states.save(msgspec.msgpack.encode(saved))
        self.unsaved = 0

    def use(self, encoder: TokenEncoder | None) -> None:
        """Take `encoder` from the next batch on; the one before forgets the users, as that of a worker does.

        If it came back with what it knew, it could take a user who has expired meanwhile for the one it remembers.
        """
        if self._encoder is not None and self._encoder is not encoder:
            self._encoder.release(self._engine)
        self._encoder = encoder

    def apply(self, batch: list[Inbound]) -> Step:
        """Apply a batch; a record that crashes the engine is isolated, as workers do after some attempts."""
        while True:
            try:
                step = self._engine.step(
                    batch,
                    self.states.get,
                    self.state,
                    self.seen.catalogue,
                    self.seen.policies,
                    self.isolated,
                    self._encoder,
                    timers=self.timers if self.outcomes else None,
                    targets=self.targets,
                )
            except EventCrash as crash:
                place = (crash.source, crash.offset)
                if place in self.isolated:
                    raise
                self.isolated[place] = "".join(traceback.format_exception_only(crash.__cause__)).strip()
                continue
            self._store(batch, step)
            return step

    def _store(self, batch: list[Inbound], step: Step) -> None:
        self.states.update(step.states)
        self.states.update(step.pending)
        self.states.update(step.erased)
        self.timers.apply(step.timers)
        self.state = step.partition
        consumed = self.consumed
        for inbound in batch:
            consumed[inbound.source] += 1
        self.unsaved += len(batch)
