"""The replay of a log: the same intake, merge and engine as a worker's, with files in front and a callback behind.

Some or all partitions in one pass; they know nothing of each other. Three orders: a plain log is merged by contracts.merge,
a topic being idle for a partition when the log has no more of it, and catalogue and policies are read whole before the
first event, as a worker does that finds everything in Kafka; or, on request, its records come as they arrived, so that
nothing which arrived later is known to an earlier decision. A recorded log is replayed in the order in which the live
worker applied it, each record with the model in force and the catalogue and policies that the worker had seen by then.
Any batch size gives the same records.

Memory: what backtest.states and backtest.feed keep, and the catalogue. Does not write files of results.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Literal

from msgspec import Struct

from backtest.feed import Feed, References, Seen, WhatIf
from backtest.orders import Arrived, Batches, Merged
from backtest.partition import Partition
from contracts.errors import BadInput
from contracts.intake import Inbound
from contracts.log import Log
from contracts.log_rows import AppliedRow
from contracts.policies import Policy, PolicyBook
from features.vectors import TokenEncoder
from pricing.engine import Step
from pricing.menus import MenuShelf
from pricing.targets import Targets

BATCH_MAX = 2_048
STATES_BYTES = 1 << 30
SAVE_EVERY = 50_000
"""Records of a partition between two saves of a resumable replay."""

WHAT_IF = "what-if/"
"""In front of the name of a policy under which nobody was priced, wherever it is written."""

Publish = Callable[[int, Step], None]
"""Called with a partition and what its next batch led to."""
Note = Callable[[int], bytes]
"""Called with a partition that is about to be saved, after all its steps were published; returns what to save along."""
Order = Literal["merged", "arrival"]


class How(Struct, frozen=True, kw_only=True):
    """How a log is replayed."""

    batch_max: int = BATCH_MAX
    """Most records per step of the engine; changes no byte."""
    partitions: tuple[int, ...] | None = None
    """None: all of them."""
    order: Order = "merged"
    """Of a log that was not recorded from workers."""
    as_of: float = inf
    """Time in ms: what arrived later, or is of a later event time, is not there."""
    what_if: Policy | None = None
    """Prices in place of what the log's policies say, but for its kill switch; there are no outcomes, for nobody saw these
    prices."""
    targets: tuple[Policy, ...] | None = None
    """Asked about every draw; None: nobody wants to know of draws."""
    states_bytes: int = STATES_BYTES
    """What states may take in memory, of all partitions together, about."""
    work: Path | None = None
    """Directory of what does not fit, and of what a resumable replay saves; None: a temporary one."""
    resumable: bool = False
    one_model: bool = False
    """The one model given speaks for every record of a recorded log, whatever was in force: for what it foretells, since
    prices are then not those that were recorded."""


class Replay:
    """One replay of `log`; `run` it once."""

    def __init__(
        self,
        log: Log,
        batch_max: int = BATCH_MAX,
        models: Mapping[str, TokenEncoder] = MappingProxyType({}),
        how: How | None = None,
    ) -> None:
        """Prepare; reads catalogue and policies, and what an earlier run saved.

        Args:
            log: an opened log.
            batch_max: as in How, which is left out then.
            models: encoders by digest. A recorded log names the model of every record; any other one takes one model
                for all of them, or none.
            how: everything else.

        Raises:
            BadInput: a batch of less than 1; more than one model for a log that does not say which is in force when;
                nothing of the catalogue was known at `as_of`.
        """
        self._how = how = How(batch_max=batch_max) if how is None else how
        if how.batch_max < 1:
            raise BadInput(f"A batch of {how.batch_max} records: use at least 1")
        if len(models) > 1 and (how.one_model or not log.recorded):
            raise BadInput(f"{len(models)} models for a log that was not recorded from workers: name one, or none")
        self._models = models
        self._log = log
        self._temporary = None if how.work else TemporaryDirectory(prefix="pricetide-", ignore_cleanup_errors=True)
        work = how.work or Path(self._temporary.name)  # type: ignore[union-attr]  # one of the two is there
        topology = log.manifest.topology
        numbers = range(topology.partitions) if how.partitions is None else how.partitions
        references = References(log, how.as_of)
        if how.as_of < inf and log.manifest.tables["catalogue"].rows and not references.items:
            raise BadInput(
                f"{log.directory}: nothing of the catalogue had arrived by {how.as_of:.0f}: name a later time"
            )
        self._known = references.ends
        menus, targets = MenuShelf(), None if how.targets is None else Targets(how.targets)
        together = None if log.recorded or how.order == "arrival" else self._seen(references)
        self._partitions = {}
        for number in numbers:
            seen = together or self._seen(references)
            one = Partition(log, number, seen, menus, work / f"states-{number:04d}", how.states_bytes // len(numbers))
            one.targets, one.outcomes = targets, how.what_if is None
            self._partitions[number] = one
        if together is not None:
            together.advance(inf, inf)
        consumed = {number: one.consumed for number, one in self._partitions.items()}
        self._feed = Feed(log, work, list(numbers), consumed, how.as_of)
        self._sources = len(topology.sources)
        if not log.recorded:
            for encoder in models.values():
                for one in self._partitions.values():
                    one.use(encoder)

    def _seen(self, references: References) -> Seen:
        policy = self._how.what_if
        book = PolicyBook() if policy is None else WhatIf(policy, WHAT_IF + policy.name)
        return Seen(references, book, self._log.manifest.semantics.currency)

    def run(self, publish: Publish, note: Note = lambda _partition: b"") -> None:
        """Replay everything; `publish` gets each partition's steps in order, from where an earlier run was saved.

        Raises:
            BadInput: the log is damaged, a recorded log does not hold what was applied, or names a model that is not
                among those given.
        """
        try:
            if self._log.recorded:
                self._run_recorded(publish, note)
            else:
                self._run_rounds(publish, note)
            if self._how.resumable:
                for partition in self._partitions.values():
                    partition.save(note(partition.number))
        finally:
            self.close()

    def close(self) -> None:
        """Let go of files and temporary directories; `run` does."""
        self._pending = sum(len(partition.timers) for partition in self._partitions.values())
        self._feed.close()
        for partition in self._partitions.values():
            partition.states.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def noted(self, partition: int) -> bytes | None:
        """Return what was saved along with `partition` by an earlier run; None if none did."""
        return self._partitions[partition].noted

    @property
    def not_applied(self) -> int:
        """Records of the log that the replay has not reached: those that a recorded worker never applied."""
        return self._feed.left()

    @property
    def unknown(self) -> int:
        """Records that were passed over because nobody knew of them at `as_of`."""
        return self._feed.unknown

    @property
    def pending(self) -> int:
        """Draws whose window the log does not see the end of."""
        return sum(len(partition.timers) for partition in self._partitions.values())

    @property
    def refused_references(self) -> int:
        """Records of catalogue and policies that no worker would use."""
        return max(partition.seen.refused for partition in self._partitions.values())

    def _publish(self, partition: Partition, batch: list[Inbound], publish: Publish, note: Note) -> None:
        publish(partition.number, partition.apply(batch))
        due = self._how.resumable and partition.unsaved >= SAVE_EVERY
        if due or partition.states.full:
            partition.save(note(partition.number))

    def _run_rounds(self, publish: Publish, note: Note) -> None:
        going = [(partition, self._batches(partition)) for partition in self._partitions.values()]
        while going:
            still = []
            for partition, batches in going:
                batch = batches.take(self._how.batch_max)
                if batch:
                    self._publish(partition, batch, publish, note)
                    still.append((partition, batches))
            going = still

    def _batches(self, partition: Partition) -> Batches:
        if self._how.order == "merged":
            return Merged(self._feed, partition.number, self._sources)
        return Arrived(self._feed, partition.number, self._sources, partition.seen)

    def _run_recorded(self, publish: Publish, note: Note) -> None:
        waiting: dict[int, list[AppliedRow]] = defaultdict(list)
        versions = {number: partition.state.applied for number, partition in self._partitions.items()}
        ended: set[int] = set()
        for rows in self._log.applied():
            for row in rows:
                number = row.partition
                if number not in versions or number in ended or row.version <= versions[number]:
                    continue  # not ours, or saved, or one of several decisions of a version: a withdrawal of consent
                if row.version != versions[number] + 1:
                    raise BadInput(
                        f"Partition {number}: version {row.version} follows {versions[number]}. The log must hold the "
                        "applied order from its first record: record it again, from the beginning"
                    )
                if row.catalogue_seen > self._known[0] or row.policies_seen > self._known[1]:
                    ended.add(number)
                    self._apply_recorded(waiting.pop(number, []), publish, note)
                    continue
                versions[number] = row.version
                run = waiting[number]
                if run and (len(run) == self._how.batch_max or _seen(run[0]) != _seen(row)):
                    if not self._apply_recorded(run, publish, note):
                        ended.add(number)
                    run.clear()
                run.append(row)
        for number, run in waiting.items():
            if number not in ended:
                self._apply_recorded(run, publish, note)

    def _apply_recorded(self, run: list[AppliedRow], publish: Publish, note: Note) -> bool:
        """Apply the records of `run`; return False if one was not known yet, where the partition ends."""
        if not run:
            return True
        partition = self._partitions[run[0].partition]
        partition.seen.advance(run[0].catalogue_seen, run[0].policies_seen)
        partition.use(self._model_of(run[0]))
        batch: list[Inbound] = []
        for row in run:
            record = self._feed.next(row.source, row.partition)
            if record is None or record.offset != row.offset:
                if self._feed.unknown_of(row.partition):
                    break
                topic = self._log.manifest.topology.sources[row.source]
                found = "none" if record is None else f"offset {record.offset}"
                raise BadInput(
                    f"{topic}, partition {row.partition}: offset {row.offset} was applied next, the log has {found}. "
                    "Record the topics again, from their beginning"
                )
            if row.outcome == "dead_letter:crashed":
                partition.isolated[row.source, row.offset] = "isolated by the recorded worker"
            batch.append(record)
        if batch:
            self._publish(partition, batch, publish, note)
        return len(batch) == len(run)

    def _model_of(self, row: AppliedRow) -> TokenEncoder | None:
        if self._how.one_model:
            return next(iter(self._models.values()), None)
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
