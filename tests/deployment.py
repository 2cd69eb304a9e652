"""A deployment for one test: topics of its own, workers as processes, and what a reader of committed records sees.

And the oracle: `expected` replays a log through the pure engine, `Deployment.published` reads what workers committed, and
`difference` says in words where the two part. Not here: pytest (the chaos command uses this, too).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from kafka.admin import MemberToRemove, OffsetSpec
from kafka.errors import RetriableError

from backtest.replay import Replay
from contracts.decisions import decode_decision
from contracts.log import Manifest, open_log
from contracts.semantics import Topology
from features.artifact import load_artifact
from features.encoder import Encoder
from pricing.engine import Step
from pricing.erasure import PREFIX as ERASURES
from pricing.erasure import decode_erasure, encode_erasure, erasure_key
from pricing.pending import ERASED, decode_pending, encode_pending, user_key_of
from pricing.timers import PREFIX, key_of, timer_of
from streams.broker import administering, committed_records, partitions_of
from streams.dead_letters import read_dead_letter
from streams.ledger import LEDGER_KEY, MARKER_KEY
from streams.produce import produce
from streams.record import record_log
from streams.settings import Settings, load_settings
from streams.topics import create_topics, plan

COMMAND = Path(sys.executable).with_name("pricetide")
ENCODER_USERS = 300
HANGS_S = 120
"""How long something may take that takes a second: a slow machine is no failure."""
TIMER_BYTES = len(key_of((0, 0)))
Pair = tuple[bytes, bytes]


class Outcome(NamedTuple):
    """What came of a log, by partition, in the order of publication; and the users' states in the end."""

    prices: list[list[Pair]]
    decisions: list[list[Pair]]
    outcomes: list[list[Pair]]
    shadows: list[list[Pair]]
    dead: list[list[tuple[str, int, str]]]
    """Source topic, offset, code."""
    states: dict[bytes, bytes]
    """And pending draws, and erasures as if all were carried out."""


def expected(directory: Path, batch_max: int = 2_048, models: Iterable[Path] = ()) -> Outcome:
    """Return what the log in `directory` must lead to, by the pure engine and the artifacts in `models`."""
    log = open_log(directory)
    topology = log.manifest.topology
    outcome = Outcome(*([[] for _ in range(topology.partitions)] for _ in range(5)), {})  # type: ignore[arg-type]

    def publish(partition: int, step: Step) -> None:
        outcome.prices[partition] += step.prices
        outcome.decisions[partition] += step.decisions
        outcome.outcomes[partition] += step.outcomes
        outcome.shadows[partition] += step.shadows
        outcome.dead[partition] += [(topology.sources[one.source], one.offset, bad.code) for one, bad in step.dead]
        outcome.states.update(step.states)
        for key, value in step.pending.items():
            if value is None:
                del outcome.states[partition_key(partition, key)]
            else:
                outcome.states[partition_key(partition, key)] = value
        for key, value in step.erased.items():
            if value is None:
                outcome.states.pop(key, None)
            else:
                outcome.states[key] = value

    encoders = [Encoder(load_artifact(model), ENCODER_USERS) for model in models]
    replay = Replay(log, batch_max, {encoder.digest: encoder for encoder in encoders})
    replay.run(publish)
    assert replay.not_applied == 0, f"{replay.not_applied} records of the log were never applied"
    return outcome._replace(states=carried_out(outcome.states))


def carried_out(states: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return `states` as they are when every partition's owner has carried out its erasures."""
    done = {key: msgspec.structs.replace(decode_erasure(value), done=True)
            for key, value in states.items() if key.startswith(ERASURES)}  # fmt: skip
    left = states | {key: encode_erasure(erasure) for key, erasure in done.items()}
    for key, value in states.items():
        if key.startswith(PREFIX):
            erasure = done.get(erasure_key(user_key_of(decode_pending(value))))
            if erasure is not None and timer_of(key[:TIMER_BYTES])[1] <= erasure.version:
                left[key] = encode_pending(ERASED)
    return left


def partition_key(partition: int, key: bytes) -> bytes:
    """Return `key`, or with its partition if it is that of a pending draw: two partitions may have equal ones."""
    return b"%b of %d" % (key, partition) if key.startswith(PREFIX) else key


def difference(wanted: Outcome, found: Outcome) -> str:
    """Return where two outcomes part, in words; empty when they are equal byte for byte."""
    for name in ("prices", "decisions", "outcomes", "shadows", "dead"):
        for partition, (ours, theirs) in enumerate(zip(getattr(wanted, name), getattr(found, name), strict=True)):
            if ours != theirs:
                return f"{name} of partition {partition}: {_first_difference(ours, theirs)}"
    for user in sorted(wanted.states.keys() | found.states.keys()):
        if wanted.states.get(user) != found.states.get(user):
            return f"the state of {user!r} differs: {wanted.states.get(user)!r} and {found.states.get(user)!r}"
    return ""


def _first_difference(ours: list[Any], theirs: list[Any]) -> str:
    at = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    missing, extra = len(set(ours) - set(theirs)), len(set(theirs) - set(ours))
    return (
        f"{len(ours)} wanted, {len(theirs)} found, {missing} missing, {extra} never wanted, "
        f"{len(theirs) - len(set(theirs))} more than once; first at {at}: {ours[at : at + 1]} and {theirs[at : at + 1]}"
    )


def broken_order(outcome: Outcome, topology: Topology) -> str:
    """Return what is wrong with the applied order on the record, in words; empty when nothing is.

    Versions count 1, 2, 3, ... per partition, and every topic's offsets 0, 1, 2, ...: nothing left out, twice or out of order.
    """
    for partition, pairs in enumerate(outcome.decisions):
        version, positions = 0, dict.fromkeys(topology.sources, 0)
        for _, value in pairs:
            record = decode_decision(value)
            if record.version == version:
                continue  # a withdrawal of consent leads to several decisions of one version
            if record.version != version + 1:
                return f"partition {partition}: version {record.version} follows {version}"
            if record.source.offset != positions[record.source.topic]:
                where = f"partition {partition}, version {record.version}, {record.source.topic}"
                return f"{where}: offset {record.source.offset}, {positions[record.source.topic]} was next"
            version, positions[record.source.topic] = record.version, record.source.offset + 1
    return ""


class Deployment:
    """Topics, a group and data directories that no other test uses. `stop` ends every process that it started."""

    def __init__(self, kafka: str, prefix: str, directory: Path, partitions: int = 4, **flags: object) -> None:
        """Prepare settings; touches no broker. `flags` are further settings, dots written as `__`."""
        self.directory = directory
        names = ("consents", "views", "clicks", "purchases", "price_updates", "decisions", "outcomes", "shadow_decisions",
                 "dead_letters", "changelog")  # fmt: skip
        self.flags: dict[str, Any] = {
            "kafka.bootstrap_servers": kafka,
            "group": f"{prefix}group",
            "topics.partitions": partitions,
            "port": 0,
            "session_timeout_ms": 6_000,
            "semantics.consent_default": False,
        }
        self.flags |= {f"topics.{name}": f"{prefix}{name}" for name in (*names, "catalogue", "policies")}
        self.flags |= {name.replace("__", "."): value for name, value in flags.items()}
        self.workers: list[WorkerProcess] = []
        self.learners: list[WorkerProcess] = []

    @property
    def settings(self) -> Settings:
        """The settings that workers get."""
        return load_settings(None, **self.flags)

    @property
    def topology(self) -> Topology:
        """The input topics."""
        return self.settings.topics.topology

    def create(self) -> Deployment:
        """Create the topics."""
        create_topics(self.settings)
        return self

    def delete(self) -> None:
        """Delete the topics."""
        with administering(self.settings) as admin:
            admin.delete_topics([topic.name for topic in plan(self.settings)])

    def produce(self, directory: Path, seconds: float | None = None) -> None:
        """Put a log into the topics: as fast as it goes, or by its arrivals, squeezed into `seconds`."""
        log = open_log(directory)
        speed = None
        if seconds is not None:  # the manifest's times are those of events, bad ones from the future among them
            arrivals = [row.arrival_ms for row in log.rows()]
            speed = (max(arrivals) - min(arrivals)) / 1000 / seconds
        produce(self.settings, log, speed=speed)

    def worker(self, name: str = "a", script: Iterable[str] = (COMMAND.as_posix(),), **flags: object) -> WorkerProcess:
        """Start a worker; `name` names its data directory, `flags` are settings of its own."""
        given = self.flags | {"data_dir": self.directory / name}
        given |= {key.replace("__", "."): value for key, value in flags.items()}
        process = WorkerProcess(name, self.directory, [*script, "worker", *as_arguments(given)])
        self.workers.append(process)
        return process

    def learner(self, name: str = "learner", **flags: object) -> WorkerProcess:
        """Start a learner; `flags` are settings of its own."""
        given = self.flags | {"data_dir": self.directory / name}
        given |= {key.replace("__", "."): value for key, value in flags.items()}
        process = WorkerProcess(name, self.directory, [COMMAND.as_posix(), "learn", *as_arguments(given)])
        self.learners.append(process)
        return process

    def stop(self) -> None:
        """End every worker and learner that still runs, by force if need be."""
        running = [one for one in (*self.workers, *self.learners) if one.process.poll() is None]
        for worker in running:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.terminate()
        for worker in running:
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- what readers see ------------------------------------------------------------------------------------------

    def backlog(self) -> dict[int, int]:
        """Return how many records of each partition the group has not committed yet."""
        with administering(self.settings) as admin:
            return backlog(self.positions(admin), self.ends(admin))

    def positions(self, admin: Any) -> dict[Any, int]:
        """Return the group's committed offsets of the inputs."""
        group = self.settings.group
        try:
            return {place: at.offset for place, at in admin.list_group_offsets({group: None})[group].items()}
        except RetriableError:
            return {}  # a new broker makes its offsets topic when the first group asks

    def ends(self, admin: Any) -> dict[Any, int]:
        """Return the end offsets of the inputs."""
        topology = self.topology
        places = partitions_of(dict.fromkeys(topology.sources, topology.partitions))
        answers = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        return {place: answer.offset for place, answer in answers.items()}

    def wait_until_applied(self, limit_s: float = 60) -> None:
        """Wait until every record of the inputs is committed; fail with what the workers said if that takes too long."""
        ends_at = time.monotonic() + limit_s
        with administering(self.settings) as admin:
            while any(left := backlog(self.positions(admin), self.ends(admin)).values()):
                running = [worker for worker in self.workers if worker.process.poll() is None]
                if not running or time.monotonic() > ends_at:
                    said = "\n".join(f"-- {w.name}, {w.process.returncode}\n{w.said()[-3000:]}" for w in self.workers)
                    raise AssertionError(f"after {limit_s} s {list(left)} records wait, {len(running)} run:\n{said}")
                time.sleep(0.1)

    def wait_until_begun(self, limit_s: float = HANGS_S) -> None:
        """Wait until a record of the inputs is committed."""
        ends_at = time.monotonic() + limit_s
        with administering(self.settings) as admin:
            while not any(self.positions(admin).values()):
                assert time.monotonic() < ends_at, f"after {limit_s} s nothing is committed"
                time.sleep(0.1)

    def forget_dead_members(self) -> None:
        """Have the group forget its members now, all of them dead, instead of after their session timeout."""
        with administering(self.settings) as admin:
            members = admin.describe_groups([self.settings.group])[self.settings.group]["members"]
            gone = [MemberToRemove(member_id=member["member_id"]) for member in members]
            if gone:
                admin.remove_group_members(self.settings.group, gone)

    def committed(self, topic: str) -> list[list[Any]]:
        """Return the committed records of a topic, by partition, in offset order."""
        found: list[list[Any]] = [[] for _ in range(self.topology.partitions)]
        for record in committed_records(self.settings, [topic]):
            found[record.partition].append(record)
        return found

    def published(self) -> Outcome:
        """Return what a reader of committed records sees, what erasures take back included until it is compacted away."""
        topics = self.settings.topics
        states: dict[bytes, bytes] = {}
        for partition, records in enumerate(self.committed(topics.changelog)):
            kept = [one for one in records if one.key not in (LEDGER_KEY, MARKER_KEY)]
            states.update((partition_key(partition, one.key), one.value) for one in kept)
        dead = []
        for records in self.committed(topics.dead_letters):
            letters = [read_dead_letter(one.key, one.value, one.headers, "") for one in records]
            dead.append([(letter.topic, letter.offset, letter.code) for letter in letters if letter is not None])
        prices, decisions, outcomes, shadows = (
            [[(one.key, one.value) for one in records if one.value is not None] for records in self.committed(topic)]
            for topic in (topics.price_updates, topics.decisions, topics.outcomes, topics.shadow_decisions)
        )
        left = {user: state for user, state in states.items() if state is not None}
        return Outcome(prices, decisions, outcomes, shadows, dead, carried_out(left))

    def record(self, directory: Path, offers: Literal["shown", "not_shown"] = "not_shown") -> Path:
        """Capture what lies in Kafka, with the applied order, into a log at `directory`, and return that."""
        settings = self.settings
        manifest = Manifest(
            semantics=settings.engine_semantics, topology=self.topology, source="captured by a test", offers=offers
        )
        record_log(settings, directory, manifest)
        return directory


def backlog(positions: dict[Any, int], ends: dict[Any, int]) -> dict[int, int]:
    """Return, per partition, how many records lie between positions and ends."""
    left: dict[int, int] = {}
    for place, end in ends.items():
        left[place.partition] = left.get(place.partition, 0) + end - positions.get(place, 0)
    return left


def as_arguments(flags: dict[str, Any]) -> list[str]:
    return [part for name, value in flags.items() for part in ("--set", f"{name}={value}")]


class WorkerProcess:
    """A worker as a supervisor sees it: a process, a data directory, and what it says."""

    def __init__(self, name: str, directory: Path, command: list[str]) -> None:
        self.name = name
        self.data_dir = directory / name
        self.log = directory / f"{name}.log"
        directory.mkdir(parents=True, exist_ok=True)
        self._begins = self.log.stat().st_size if self.log.exists() else 0
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PRICETIDE_")}
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=directory)

    def said(self) -> str:
        """Return its output so far."""
        return self.log.read_bytes()[self._begins :].decode(errors="replace")

    def wait(self, limit_s: float = HANGS_S) -> int:
        """Wait for its end and return its exit code; negative is a signal."""
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {limit_s} s:\n{self.said()[-3000:]}") from None

    def wait_until_said(self, pattern: str, limit_s: float = HANGS_S) -> str:
        """Wait until its output matches and return the match."""
        ends_at = time.monotonic() + limit_s
        while not (found := re.search(pattern, self.said())):
            assert self.process.poll() is None, f"{self.name} ended with {self.process.returncode}:\n{self.said()}"
            assert time.monotonic() < ends_at, f"{self.name} never said {pattern!r}:\n{self.said()[-3000:]}"
            time.sleep(0.05)
        return found.group()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(HANGS_S)

    def terminate(self, limit_s: float = HANGS_S) -> int:
        """SIGTERM, as a supervisor does; return the exit code."""
        self.process.terminate()
        return self.wait(limit_s)

    def wipe(self) -> None:
        """Lose the data directory."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
