"""Where benchmarks run: a broker, logs, and deployments with topics of their own; a log produced, a program let loose on it.

The broker is the one that was asked for, else the project's own local one (deploy/kafka-local), with fresh data, ended
and wiped afterwards. What two benchmarks need is made once. Not here: what came out (benchmarks.published).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import RetriableError
from msgspec import Struct

from benchmarks import logs
from benchmarks.process import Program, cpu_seconds
from contracts.errors import BadSettings, BrokerUnavailable
from contracts.log import Log
from streams.broker import administering, partition_counts, partitions_of
from streams.produce import produce
from streams.settings import KafkaSettings, Settings, TopicSettings
from streams.topics import create_topics, plan

ROOT = Path(__file__).resolve().parents[1]
PRICETIDE = str(Path(sys.executable).with_name("pricetide"))
QUICK_ROWS = 30_000
POLL_S = 0.25
JOB_S_MAX = 1_200
READY_S_MAX = 60
BROKER_HEAP = "1g"


class Deployment(Struct, kw_only=True):
    """Topics and a group of their own, and the log that lies in the input topics."""

    settings: Settings
    log: Log
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """The settings as the environment variables of a worker."""
        values = self.settings.model_dump(mode="json", exclude_defaults=True)
        return {
            f"PRICETIDE_{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for name, value in values.items()
        }

    @property
    def events(self) -> int:
        """Records in the input topics."""
        return sum(map(sum, self.log.manifest.records.values()))


class Job(Struct, kw_only=True):
    """How a program worked off a deployment's log."""

    deployment: Deployment
    seconds: float
    """From the start of the process until the group has committed everything."""
    cpu_us: float
    """CPU time of the process per event, from its first progress to its end; 0 where the system does not tell."""
    broker_cpu_us: float
    metrics: dict[str, float]
    """Samples of /metrics at the end, by name with labels; empty for a program without it."""


class Lab:
    """A broker and a directory to work in; `open_lab` makes one."""

    def __init__(self, bootstrap: str, broker: str, broker_pid: int | None, work: Path, quick: bool) -> None:
        self.bootstrap = bootstrap
        self.broker = broker
        """Which one it is, in words."""
        self.work = work
        self.quick = quick
        self.broker_pid = broker_pid

    @cached_property
    def log(self) -> Log:
        """The log to measure with: four input topics, and no outcomes kept, which is a row of its own in the report."""
        return logs.with_window(logs.source_log(self.work, QUICK_ROWS if self.quick else None), 0)

    @property
    def measured_on(self) -> str | None:
        """Where the log comes from; None if nobody has asked for it."""
        return self.log.manifest.source if "log" in vars(self) else None

    @cached_property
    def one_topic_log(self) -> Log:
        """The same events on one input topic."""
        return logs.rewritten(self.log, self.work / "log-one-topic", logs.one_topic(self.log.manifest.topology))

    @cached_property
    def cold(self) -> Job:
        """What one worker did with `log` when the broker had not worked yet; asked for first, it warms it for all others.

        A broker's JVM compiles its code while it works, on the cores that the worker needs, once in its life. That is no
        property of a worker, so nothing is judged by this job.
        """
        return self.work_off(self.deploy(self.log))

    @cached_property
    def worked_off(self) -> Job:
        """What one worker did with `log`, the broker being warm."""
        self.cold  # noqa: B018 - for what it does to the broker
        return self.work_off(self.deploy(self.log))

    def deploy(self, log: Log, fill: bool = True, **settings: Any) -> Deployment:  # noqa: ANN401 - fields of Settings
        """Make topics for `log` and put it into Kafka; `fill=False` leaves that to the caller."""
        prefix = f"bench-{uuid.uuid4().hex[:8]}-"
        log = logs.renamed(log, prefix)
        topology = log.manifest.topology
        names = {name: prefix + name.replace("_", "-") for name in ("price_updates", "dead_letters")}
        names |= {
            name: prefix + name
            for name in ("decisions", "outcomes", "shadow_decisions", "changelog", "catalogue", "policies")
        }
        directory = self.work / prefix
        directory.mkdir()
        made = Settings(
            kafka=KafkaSettings(bootstrap_servers=self.bootstrap),
            topics=TopicSettings.model_validate(msgspec.to_builtins(topology) | names),
            semantics=msgspec.to_builtins(log.manifest.semantics),
            group=prefix + "group",
            data_dir=directory / "data",
            port=free_port(),
            log_level="warning",
            **settings,
        )
        create_topics(made)
        deployment = Deployment(settings=made, log=log, directory=directory)
        if fill:
            self.fill(deployment)
        return deployment

    def fill(self, deployment: Deployment) -> None:
        """Put the deployment's log into Kafka."""
        produce(deployment.settings, deployment.log)

    def work_off(self, deployment: Deployment) -> Job:
        """Let one worker work off what lies in the input topics."""
        port = deployment.settings.port
        return self.watch(deployment, [PRICETIDE, "worker"], lambda: scrape(port))

    def watch(self, deployment: Deployment, command: list[str], finish: Callable[[], dict[str, float]] = dict) -> Job:
        """Run `command` until the group's offsets are the ends of the inputs; it is asked nothing meanwhile.

        Args:
            deployment: whose inputs are to be worked off.
            command: a program that commits offsets in the deployment's group.
            finish: called when the job is done and the program still runs; gives its metrics.
        """
        begun = time.monotonic()
        first: tuple[int, float, float] | None = None
        with Program(command, deployment.environment, deployment.directory / "program.log") as program:
            with _positions(deployment) as applied:
                while True:
                    done = applied()
                    now = (done, cpu_seconds(program.pid), cpu_seconds(self.broker_pid))
                    if done >= deployment.events:
                        break
                    if done and first is None:
                        first = now
                    program.require_alive()
                    if time.monotonic() - begun > JOB_S_MAX:
                        raise BrokerUnavailable(f"{done} of {deployment.events} events in {JOB_S_MAX} s: see {command}")
                    time.sleep(POLL_S)
            seconds = time.monotonic() - begun
            metrics = finish()
        events, cpu, broker_cpu = (b - a for a, b in zip(first or now, now, strict=True))
        per_event = 1e6 / events if events else 0.0
        return Job(
            deployment=deployment,
            seconds=seconds,
            cpu_us=cpu * per_event,
            broker_cpu_us=broker_cpu * per_event,
            metrics=metrics,
        )

    @contextmanager
    def worker(self, deployment: Deployment) -> Iterator[Program]:
        """Run a worker for the length of a block, which begins when it is ready."""
        log = deployment.directory / "program.log"
        with Program([PRICETIDE, "worker"], deployment.environment, log) as program:
            url = f"http://127.0.0.1:{deployment.settings.port}/readyz"
            ends = time.monotonic() + READY_S_MAX
            while not _answers(url):
                program.require_alive()
                if time.monotonic() > ends:
                    raise BrokerUnavailable(f"The worker is not ready after {READY_S_MAX} s: see {log}")
                time.sleep(POLL_S)
            yield program

    def discard(self, deployment: Deployment) -> None:
        """Delete the topics of a deployment: the disk is not endless."""
        with administering(deployment.settings) as admin:
            admin.delete_topics([topic.name for topic in plan(deployment.settings)])


@contextmanager
def _positions(deployment: Deployment) -> Iterator[Callable[[], int]]:
    """Yield a function that returns how many records the group has committed."""
    settings = deployment.settings
    sources = settings.topics.topology.sources
    with administering(settings) as admin:
        places = partitions_of(partition_counts(admin, sources))
        ends = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        missing = deployment.events - sum(answer.offset for answer in ends.values())
        assert missing == 0, f"{missing} records of the log are not in Kafka"

        def applied() -> int:
            try:
                answer: dict[TopicPartition, Any] = admin.list_group_offsets(settings.group)[settings.group]
            except RetriableError:  # a fresh broker is still making its offsets topic
                return 0
            return sum(max(0, found.offset) for place, found in answer.items() if place.topic in sources)

        yield applied


def scrape(port: int) -> dict[str, float]:
    """Return the samples of a worker's /metrics page by name with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """Return a TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def open_lab(kafka: str | None, work: Path, quick: bool) -> Iterator[Lab]:
    """Yield a lab on the broker `kafka`, or on a local one of its own, ended and wiped afterwards.

    Raises:
        BadSettings: no broker could be started; the message says what to install.
    """
    if kafka is not None:
        yield Lab(kafka, f"Kafka at {kafka}", None, work, quick)
        return
    script = str(ROOT / "deploy/kafka-local/kafka-local.sh")
    state = work / "kafka"
    environment = os.environ | {
        "KAFKA_STATE": str(state),
        "KAFKA_PORT": str(free_port()),
        "KAFKA_CONTROLLER_PORT": str(free_port()),
        "KAFKA_HEAP": BROKER_HEAP,
    }
    started = subprocess.run([script, "start"], env=environment, capture_output=True, text=True, check=False)
    if started.returncode:
        raise BadSettings(f"No Kafka: {started.stderr.strip()}. Or name one: --kafka HOST:PORT")
    try:
        pid = int((state / "pid").read_text())
        yield Lab(started.stdout.strip(), f"local Apache Kafka, heap {BROKER_HEAP}", pid, work, quick)
    finally:
        subprocess.run([script, "wipe"], env=environment, capture_output=True, check=False)
