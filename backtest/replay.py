"""The replay of a log: the same intake, merge and engine as a worker's, with files in front and a callback behind.

All partitions in one pass. Two orders: a plain log is merged by contracts.merge, a topic being idle for a partition
when the log has no more of it, and catalogue and policies are read whole before the first event, as a worker does
that finds everything in Kafka. A recorded log is replayed in the order in which the live worker applied it, each record
with the model in force and the catalogue and policies that the worker had seen by then. Any batch size gives the same
records.

Memory: the states of the users, the pending draws, the catalogue, and what contracts and backtest.feed buffer. Does not
write files.
"""

from __future__ import annotations

import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType

from backtest.feed import Feed, References, Seen
from contracts.errors import BadInput
from contracts.intake import Inbound
from contracts.log import Log
from contracts.log_rows import AppliedRow
from contracts.merge import Merge
from features.vectors import TokenEncoder
from pricing.engine import Engine, EventCrash, PartitionState, Step
from pricing.menus import MenuShelf
from pricing.timers import Timers

BATCH_MAX = 2_048

Publish = Callable[[int, Step], None]
"""Called with a partition and what its next batch led to."""


class _Partition:
    """What one partition of a worker holds: engine, states, pending draws, the partition's own state, what crashed."""

    def __init__(self, log: Log, partition: int, seen: Seen, menus: MenuShelf) -> None:
        manifest = log.manifest
        self.number = partition
        self.seen = seen
        self.isolated: dict[tuple[int, int], str] = {}
        self._encoder: TokenEncoder | None = None
        self._engine = Engine(manifest.semantics, manifest.topology, partition, menus)
        self._states: dict[bytes, bytes] = {}
        self._state = PartitionState()
        self.timers = Timers()

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
                    self._states.get,
                    self._state,
                    self.seen.catalogue,
                    self.seen.policies,
                    self.isolated,
                    self._encoder,
                    timers=self.timers,
                )
            except EventCrash as crash:
                place = (crash.source, crash.offset)
                if place in self.isolated:
                    raise
                self.isolated[place] = "".join(traceback.format_exception_only(crash.__cause__)).strip()
                continue
            self._store(step)
            return step

    def _store(self, step: Step) -> None:
        states = self._states
        states.update(step.states)
        for key, value in (step.pending | step.erased).items():
            if value is None:
                states.pop(key, None)  # who is forgotten may never have had a state
            else:
                states[key] = value
        self.timers.apply(step.timers)
        self._state = step.partition


class Replay:
    """One replay of `log`; `run` it once."""

    def __init__(
        self, log: Log, batch_max: int = BATCH_MAX, models: Mapping[str, TokenEncoder] = MappingProxyType({})
    ) -> None:
        """Prepare; reads catalogue and policies.

        Args:
            log: an opened log.
            batch_max: most records per step of the engine; changes no byte.
            models: encoders by digest. A recorded log names the model of every record; any other one takes one model
                for all of them, or none.

        Raises:
            BadInput: batch_max < 1, or more than one model for a log that does not say which is in force when.
        """
        if batch_max < 1:
            raise BadInput(f"A batch of {batch_max} records: use at least 1")
        if len(models) > 1 and not log.recorded:
            raise BadInput(f"{len(models)} models for a log that was not recorded from workers: name one, or none")
        self._models = models
        self._log = log
        self._batch_max = batch_max
        self._feed = Feed(log)
        self._sources = len(log.manifest.topology.sources)
        references = References(log)
        partitions = range(log.manifest.topology.partitions)
        menus = MenuShelf()
        if log.recorded:
            self._partitions = [_Partition(log, partition, Seen(references), menus) for partition in partitions]
        else:
            seen = Seen(references)
            seen.advance(inf, inf)
            self._partitions = [_Partition(log, partition, seen, menus) for partition in partitions]
            for encoder in models.values():
                for one in self._partitions:
                    one.use(encoder)

    def run(self, publish: Publish) -> None:
        """Replay everything; `publish` gets each partition's steps in order.

        Raises:
            BadInput: the log is damaged, a recorded log does not hold what was applied, or names a model that is not
                among those given.
        """
        if self._log.recorded:
            self._run_recorded(publish)
        else:
            self._run_merged(publish)

    @property
    def not_applied(self) -> int:
        """Records of the log that the replay has not reached: those that a recorded worker never applied."""
        return self._feed.left()

    @property
    def pending(self) -> int:
        """Draws whose window the log does not see the end of."""
        return sum(len(partition.timers) for partition in self._partitions)

    @property
    def refused_references(self) -> int:
        """Records of catalogue and policies that no worker would use."""
        return max(partition.seen.refused for partition in self._partitions)

    def _run_merged(self, publish: Publish) -> None:
        merges = [(partition, Merge[Inbound](self._sources)) for partition in self._partitions]
        while merges:
            going = []
            for partition, merge in merges:
                batch = self._next_batch(partition.number, merge)
                if batch:
                    publish(partition.number, partition.apply(batch))
                    going.append((partition, merge))
            merges = going

    def _next_batch(self, partition: int, merge: Merge[Inbound]) -> list[Inbound]:
        batch: list[Inbound] = []
        while len(batch) < self._batch_max:
            idle = []
            for source in merge.empty_sources():
                merge.push(source, self._feed.pull(source, partition))
                if not merge.buffered(source):
                    idle.append(source)
            taken = merge.take(self._batch_max - len(batch), idle)
            if not taken:
                break
            batch += taken
        return batch

    def _run_recorded(self, publish: Publish) -> None:
        waiting: dict[int, list[AppliedRow]] = defaultdict(list)
        versions = [0] * len(self._partitions)
        for rows in self._log.applied():
            for row in rows:
                if row.version == versions[row.partition]:
                    continue  # a withdrawal of consent leads to several decisions of one version
                if row.version != versions[row.partition] + 1:
                    raise BadInput(
                        f"Partition {row.partition}: version {row.version} follows {versions[row.partition]}. The log "
                        "must hold the applied order from its first record: record it again, from the beginning"
                    )
                versions[row.partition] = row.version
                run = waiting[row.partition]
                if run and (len(run) == self._batch_max or _seen(run[0]) != _seen(row)):
                    self._apply_recorded(run, publish)
                    run.clear()
                run.append(row)
        for run in waiting.values():
            self._apply_recorded(run, publish)

    def _apply_recorded(self, run: list[AppliedRow], publish: Publish) -> None:
        partition = self._partitions[run[0].partition]
        partition.seen.advance(run[0].catalogue_seen, run[0].policies_seen)
        partition.use(self._model_of(run[0]))
        batch: list[Inbound] = []
        for row in run:
            record = self._feed.next(row.source, row.partition)
            if record is None or record.offset != row.offset:
                topic = self._log.manifest.topology.sources[row.source]
                found = "none" if record is None else f"offset {record.offset}"
                raise BadInput(
                    f"{topic}, partition {row.partition}: offset {row.offset} was applied next, the log has {found}. "
                    "Record the topics again, from their beginning"
                )
            if row.outcome == "dead_letter:crashed":
                partition.isolated[row.source, row.offset] = "isolated by the recorded worker"
            batch.append(record)
        publish(partition.number, partition.apply(batch))

    def _model_of(self, row: AppliedRow) -> TokenEncoder | None:
        if row.model is None:
            return None
        encoder = self._models.get(row.model)
        if encoder is None:
            raise BadInput(
                f"Partition {row.partition}, version {row.version} was decided with model {row.model}; given are "
                f"{', '.join(self._models) or 'none'}. Name the directory of its artifact with --model, too"
            )
        return encoder


def _seen(row: AppliedRow) -> tuple[int, int, str | None]:
    return row.catalogue_seen, row.policies_seen, row.model
