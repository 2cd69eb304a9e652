"""`pricetide demo`: a real worker on an embedded broker and a generated shop, watched in the terminal until it is done.

The broker is librdkafka's mock cluster, inside this process. It is for the demo only: transactions are accepted, but it
fences nobody, shows uncommitted records to everybody, forgets the offsets in a transaction, compacts nothing, and keeps
5 MB a partition. Exactly-once is proved on Apache Kafka (tests/faults), not here. Shopper log, worker and producer are the
project's own commands, each in a process of its own, as anybody would run them. Not here: what is shown (streams.live_view).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import click
from rich.console import Console
from rich.live import Live

from contracts.errors import BadSettings, BrokenInvariant
from contracts.log import Log, open_log
from streams.live_view import Watch
from streams.settings import TopicSettings

MODEL = Path(__file__).with_name("demo_model")
"""A small artifact; its manifest says what it learned from: a generated log of the same shop, with other shoppers' events."""
PARTITIONS = 4
"""What the mock cluster gives every topic."""
EVENTS_MAX = 40_000
"""The mock keeps 5 MB a partition, and nobody should miss one."""
TICK_MS = 50
"""A fetch from the mock brings one batch a partition, however much waits: so few batches, in which many events lie."""
READY_S_MAX = 60.0
STRAGGLERS_S_MAX = 60.0
STOP_S_MAX = 60.0
REFRESH_S = 0.25
LINE_S = 2.0


@click.command()
@click.option("--events", type=click.IntRange(100, EVENTS_MAX), default=8_000, show_default=True)
@click.option("--users", type=click.IntRange(1, 10_000), default=1_500, show_default=True)
@click.option(
    "--seconds", type=click.IntRange(1, 600), default=25, show_default=True, help="How long the shop is open."
)
@click.option("--seed", type=int, default=7, show_default=True, help="Of the shoppers.")
def demo(events: int, users: int, seconds: int, seed: int) -> None:
    """Watch a worker price a generated shop for half a minute: no Docker, Java, GPU or Kafka needed."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="pricetide-demo-") as place, mock_broker() as broker:
        stage = Stage(Path(place), broker)
        try:
            _play(stage, console, events, users, seconds, seed)
        finally:
            stage.clear()


@contextmanager
def mock_broker() -> Iterator[str]:
    """Yield the address of librdkafka's mock cluster with every topic in it; it lives as long as its producer does.

    Raises:
        BadSettings: confluent-kafka, which brings librdkafka, is not installed.
    """
    try:
        from confluent_kafka import Producer
    except ImportError:
        raise BadSettings(
            "The demo's broker comes with confluent-kafka, which is not installed: run `make demo`, or "
            "pip install 'pricetide[demo]'"
        ) from None
    host = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 3})
    address = next(f"{broker.host}:{broker.port}" for broker in host.list_topics(timeout=10).brokers.values())
    topics = TopicSettings()
    for topic in (*topics.topology.sources, *topics.outputs, topics.changelog, topics.catalogue, topics.policies):
        host.list_topics(topic, timeout=10)  # asking for a topic makes it
    yield address
    host.flush(0)  # the last use of `host`: until here it must not be collected


class Stage:
    """The processes of the demo, their settings, and the folder that they write to."""

    def __init__(self, place: Path, broker: str) -> None:
        self.place = place
        self.broker = broker
        self.port = _free_port()
        self._running: list[subprocess.Popen[bytes]] = []
        # Nothing that is set for a real cluster may reach the demo.
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PRICETIDE_")} | {
            "PRICETIDE_KAFKA__BOOTSTRAP_SERVERS": broker,
            "PRICETIDE_KAFKA__BROKER_VERSION": "2.0",
            "PRICETIDE_KAFKA__CHECK_CRCS": "false",
            "PRICETIDE_KAFKA__FETCH_MAX_WAIT_MS": "10",
            "PRICETIDE_TOPICS__PARTITIONS": str(PARTITIONS),
            "PRICETIDE_SEMANTICS__CONSENT_DEFAULT": "false",
            "PRICETIDE_DATA_DIR": str(place / "state"),
            "PRICETIDE_ENCODER__MODEL": str(MODEL),
            "PRICETIDE_PORT": str(self.port),
        }

    def start(self, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `pricetide COMMAND`, its output in a file of its own."""
        program = "from pricetide import main; main()"
        with self._output(command).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", program, command, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is ours to pass on, in order
            )
        self._running.append(process)
        return process

    def require(self, command: str, process: subprocess.Popen[bytes], code: int | None) -> None:
        """Raise BrokenInvariant with the last words of a process unless it ended with `code` (None: still runs)."""
        if process.poll() != code:
            words = self._output(command).read_text(errors="replace")[-2_000:]
            raise BrokenInvariant(
                f"`pricetide {command}` ended with {process.poll()}, expected {code} (None: it runs). Its last words:\n{words}"
            )

    def finish(self, command: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a process to end well; `require` raises if it does not, or not in STOP_S_MAX."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S_MAX)
        self.require(command, process, 0)

    def clear(self) -> None:
        """End what still runs."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _output(self, command: str) -> Path:
        return self.place / f"{command}.out"


def _play(stage: Stage, console: Console, events: int, users: int, seconds: int, seed: int) -> None:
    console.print(
        f"{users:,} shoppers, {events:,} events, one worker with a user transformer; the broker is a mock, for the demo only"
    )
    worker = stage.start("worker")
    log = _generate(stage, events, users, seed)
    _until(lambda: _ready(stage, worker), READY_S_MAX, "The worker did not become ready")
    total = sum(sum(counts) for counts in log.manifest.records.values())
    with Watch(stage.broker, stage.port, total) as watch:
        producer = stage.start(
            "produce", str(log.directory), "--speed", f"{_span_s(log) / seconds:.3f}", "--tick-ms", str(TICK_MS)
        )
        _show(stage, console, watch, {"worker": worker, "produce": producer}, seconds)
        stage.finish("produce", producer)
        watch.read_metrics()
        worker.send_signal(signal.SIGTERM)
        stage.finish("worker", worker)
        console.print(watch.summary())


def _generate(stage: Stage, events: int, users: int, seed: int) -> Log:
    directory = stage.place / "log"
    process = stage.start(
        "generate", "--out", str(directory), "--users", str(users), "--events", str(events), "--seed", str(seed),
        "--format", "jsonl",
    )  # fmt: skip
    stage.finish("generate", process)
    return open_log(directory)


def _span_s(log: Log) -> float:
    """Return the seconds from the first to the last arrival."""
    first = last = 0
    for row in log.rows():
        first, last = first or row.arrival_ms, row.arrival_ms
    return max(1.0, (last - first) / 1000)


def _ready(stage: Stage, worker: subprocess.Popen[bytes]) -> bool:
    stage.require("worker", worker, None)
    try:
        with urlopen(f"http://127.0.0.1:{stage.port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _until(done: Callable[[], bool], limit_s: float, otherwise: str) -> None:
    ends = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > ends:
            raise BrokenInvariant(f"{otherwise} in {limit_s:.0f} s: run again, and report it if it happens twice")
        time.sleep(0.1)


def _show(
    stage: Stage, console: Console, watch: Watch, processes: dict[str, subprocess.Popen[Any]], seconds: int
) -> None:
    """Show the watch until every record is applied: a live view in a terminal, a line now and then elsewhere."""
    ends = time.monotonic() + seconds + STRAGGLERS_S_MAX
    live = Live(watch.render(), console=console, auto_refresh=False, transient=True) if console.is_terminal else None
    with live or console.capture():
        shown = 0.0
        while not watch.complete:
            stage.require("worker", processes["worker"], None)
            if processes["produce"].poll() is not None:
                stage.require("produce", processes["produce"], 0)
            if time.monotonic() > ends:
                raise BrokenInvariant(f"The worker is not done: {watch.line()}")
            watch.poll(REFRESH_S)
            if live is not None:
                live.update(watch.render(), refresh=True)
            elif time.monotonic() - shown > LINE_S:
                shown = time.monotonic()
                print(watch.line(), flush=True)  # noqa: T201 - the plain form of the live view


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
