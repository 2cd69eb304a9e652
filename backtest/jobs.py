"""A backtest as jobs: each replays some partitions in a process of its own, writes their pieces, and says what it counted.

Partitions share nothing, so any number of processes gives the same pieces, but for where one ends and the next begins. Not
here: what becomes of the pieces (backtest.outputs), who starts jobs (backtest.run).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from backtest.draw_rows import DrawRows, DrawState
from backtest.logged_draws import draw_columns
from backtest.models import RESIDENT_USERS_MAX, open_models
from backtest.outputs import DeadLetters, Pieces, Published, Rolling
from backtest.replay import How, Replay
from backtest.summary import Tally
from backtest.tables import BARE, DECISIONS, OUTCOMES, PRICES, Table
from backtest.user_digests import digest_partition
from contracts.log import Log, open_log
from pricing.engine import Step
from pricing.garbage import collected_seldom

TABLES: dict[str, Table] = {
    "prices": PRICES,
    "decisions": DECISIONS,
    "outcomes": OUTCOMES,
    "shadow_decisions": DECISIONS,
}
"""What can be asked for of what is published."""
DRAWS = "draws"
DEAD = "dead"

Applied = Callable[[int, int], None]
"""Called with a partition, and its records applied so far."""


class Job(Struct, frozen=True, kw_only=True):
    """What one process does."""

    directory: Path
    """Of the log, which was verified."""
    how: How
    """With the partitions, and a directory to work in."""
    models: tuple[Path, ...]
    asked: frozenset[str]
    """Of TABLES, DRAWS and DEAD."""
    jobs: int = 1
    """That run at once, this one included."""


class Done(Struct, kw_only=True):
    """What one partition, or several, came to."""

    tally: Tally
    draws: list[DrawState]
    applied: int = 0
    """In this run; an earlier one may have applied others."""
    pending: int = 0
    not_applied: int = 0
    unknown: int = 0
    refused_references: int = 0


class _Note(Struct):
    """What is saved along with a partition."""

    tally: Tally
    draws: DrawState
    next_piece: dict[str, int]


class _Output:
    """The tally and the pieces of one partition."""

    def __init__(self, job: Job, log: Log, partition: int, saved: bytes | None) -> None:
        work = job.how.work
        assert work is not None
        note = msgspec.msgpack.decode(saved, type=_Note) if saved else _Note(Tally(), DrawState(), {})
        self.tally, self._next = note.tally, note.next_piece
        self.partition = partition
        self._topics = log.manifest.topology.sources
        self.applied = self.tally.events
        self._published = {"prices": Published(work, "prices", partition, BARE, self._at("prices"))}
        for name, table in TABLES.items():
            if name in job.asked:
                self._published[name] = Published(work, name, partition, table, self._at(name))
        self.rows: DrawRows | None = None
        self._all: dict[str, Rolling] = dict(self._published)
        if DEAD in job.asked:
            self._dead = self._all[DEAD] = DeadLetters(work, partition, self._topics, self._at(DEAD))
        if DRAWS in job.asked:
            self.rows = DrawRows(log, partition, note.draws)
            columns = draw_columns([policy.name for policy in job.how.targets or ()])
            self._draws = self._all[DRAWS] = Pieces(work, DRAWS, partition, columns, self._at(DRAWS))

    def _at(self, name: str) -> int:
        return self._next.get(name, 0)

    def publish(self, step: Step) -> None:
        """Count a step, and write what was asked for of it."""
        self.tally.add(step, step.partition.applied - self.applied, self._topics, self.partition)
        self.applied = step.partition.applied
        tables = (step.prices, step.decisions, step.outcomes, step.shadows)
        for name, records in zip(TABLES, tables, strict=True):
            if records and name in self._published:
                self._published[name].append(records)
        if DEAD in self._all:
            self._dead.append(step.dead)
        if self.rows is not None and (rows := self.rows.of(step)):
            self._draws.append(list(zip(*rows, strict=True)))

    def note(self) -> bytes:
        """Finish the pieces; return what to save."""
        draws = DrawState() if self.rows is None else self.rows.state
        return msgspec.msgpack.encode(_Note(self.tally, draws, {name: one.roll() for name, one in self._all.items()}))


@collected_seldom()
def run_job(job: Job, told: Applied) -> Done:
    """Replay the partitions of `job`.

    Raises:
        BadInput, BadSettings: as of Replay and open_models.
    """
    log = open_log(job.directory, verify=False)
    how = job.how
    assert how.work is not None
    done, outputs = _replayed(job, log, told)
    # the replay is gone, with its states, menus and models: what follows uses the memory that it had
    for number, output in outputs.items():
        digest_partition(how.work, "prices", number)
        if output.rows is not None:
            output.rows.finish(how.as_of)
            done.draws.append(output.rows.state)
        done.tally.join(output.tally)
    return done


def _replayed(job: Job, log: Log, told: Applied) -> tuple[Done, dict[int, _Output]]:
    """Replay; return what is known then, and by partition what came out, all of it written."""
    how = job.how
    models = open_models(job.models, log.manifest.semantics, max(RESIDENT_USERS_MAX // job.jobs, 1))
    replay = Replay(log, models=models, how=how)
    numbers: Sequence[int] = how.partitions or range(log.manifest.topology.partitions)
    outputs = {number: _Output(job, log, number, replay.noted(number)) for number in numbers}
    before = sum(output.applied for output in outputs.values())

    def publish(partition: int, step: Step) -> None:
        outputs[partition].publish(step)
        told(partition, outputs[partition].applied)

    replay.run(publish, lambda partition: outputs[partition].note())
    for output in outputs.values():
        output.note()
    done = Done(tally=Tally(), draws=[], applied=sum(output.applied for output in outputs.values()) - before)
    done.pending, done.not_applied, done.unknown = replay.pending, replay.not_applied, replay.unknown
    done.refused_references = replay.refused_references
    return done, outputs
