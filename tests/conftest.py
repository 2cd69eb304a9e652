"""What tests share: a real Kafka, names nobody else uses, the public REES46 log, and hypothesis profiles.

The broker is the one of PRICETIDE_TEST_KAFKA, else a container, else Java and Maven (deploy/kafka-local); without any
of them the tests that need it fail: a skipped guarantee is no guarantee. Each run has its own broker: runs may overlap.
A parallel run (`pytest -n 2`, as `make test` does) has one broker for all its processes.
"""

from __future__ import annotations

import gc
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from random import SystemRandom

import pytest
from hypothesis import HealthCheck, settings

from tests import once
from tests.browser import NO_BROWSER, find_browser

ROOT = Path(__file__).resolve().parents[1]
KAFKA_IMAGE = "apache/kafka:4.1.1"
BROKER_VARIABLE = "PRICETIDE_TEST_KAFKA"
NO_BROKER = (
    "These tests need an Apache Kafka: set PRICETIDE_TEST_KAFKA=host:port, or start Docker, or install a Java runtime "
    "(17 or newer) and Maven (Debian: apt-get install openjdk-17-jre-headless maven)"
)
NO_LOG = (
    "The REES46 log is missing: put the folder rees46_nov (one Parquet file) into data/ of the repository, "
    "or set PRICETIDE_DATA to the folder that holds it"
)
NO_OPEN_BANDIT = (
    "The Open Bandit files are missing: put the folder obd of github.com/st-tech/zr-obp (random and bts, men) with the prior "
    "prior_bts.yaml of its folder obp/policy/conf into data/ of the repository, or set PRICETIDE_DATA to the folder that holds it"
)

# One thread each, set before anything imports numpy or torch: there is a process per core already.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


_PARALLEL_RUN = pytest.StashKey[ExitStack]()
_SHARED = pytest.StashKey[tempfile.TemporaryDirectory[str] | None]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin what the processes of a run share: a folder, and in a parallel run the broker; they find both by variables."""
    config.stash[_SHARED] = once.begin()
    if not config.getoption("numprocesses", None) or os.environ.get(BROKER_VARIABLE) or config.option.collectonly:
        return
    held = config.stash[_PARALLEL_RUN] = ExitStack()
    try:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="pricetide-kafka-")))
        os.environ[BROKER_VARIABLE] = held.enter_context(broker(directory))
    except pytest.fail.Exception:  # the tests that need one will say so
        held.close()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the broker of a parallel run, and remove what its processes shared."""
    gc.unfreeze()  # or libraries find at the end of the process that it has leaked them
    if _PARALLEL_RUN in config.stash:
        config.stash[_PARALLEL_RUN].close()
    if (shared := config.stash.get(_SHARED, None)) is not None:
        shared.cleanup()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from walking over what the imports make, while they make it and from then on.

    That is 700,000 objects, which live as long as the process: a collection takes most of a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they ask for, so that `-m 'not kafka'` and `-m 'not data'` select by need.

    Those of the longest backtest come first: two processes begin far apart, so none waits until the other has made it.
    """
    items.sort(key=lambda item: "rees46_backtest" not in getattr(item, "fixturenames", ()))
    for item in items:
        needs = getattr(item, "fixturenames", ())
        for fixture, marker in (
            ("kafka", "kafka"),
            ("rees46", "data"),
            ("open_bandit", "data"),
            ("chromium", "browser"),
        ):
            if fixture in needs:
                item.add_marker(marker)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real Apache Kafka; topics are made by the tests, automatic creation is off."""
    given = os.environ.get(BROKER_VARIABLE)
    if given:
        yield given
        return
    with broker(tmp_path_factory.mktemp("kafka")) as servers:
        yield servers


@contextmanager
def broker(directory: Path) -> Iterator[str]:
    """Yield the bootstrap servers of a new broker, which keeps its log in `directory` unless it runs in a container."""
    if _docker_answers():
        yield from _kafka_in_docker()
    elif shutil.which("java") and shutil.which("mvn"):
        yield from _kafka_on_java(directory)
    else:
        pytest.fail(NO_BROKER)


@pytest.fixture
def unique() -> str:
    """A prefix for topics, groups and transactional ids that no other test or run uses."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture(scope="session")
def rees46() -> Path:
    """Path of the Parquet file of the public REES46 log (events of one November night, 241,663 rows)."""
    return _data("rees46_nov/*.parquet", NO_LOG)


@pytest.fixture(scope="session")
def open_bandit() -> Path:
    """Folder of the small Open Bandit data set, men's campaign: 10,000 draws of each of two policies (arXiv 2008.07146)."""
    return _data("obd/prior_bts.yaml", NO_OPEN_BANDIT).parent


def _data(pattern: str, missing: str) -> Path:
    """Return the first file like `pattern` in a folder of data."""
    given = os.environ.get("PRICETIDE_DATA")
    for folder in [Path(given)] if given else [ROOT / "data", *sorted(ROOT.parent.glob("*/data"))]:
        for file in sorted(folder.glob(pattern)):
            return file
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium; see tests.browser."""
    found = find_browser()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(NO_BROWSER)
        pytest.skip(NO_BROWSER)
    return found


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that finds a TCP port nobody listens on."""
    return _free_port


def _free_port() -> int:
    """Look below the ports that the system gives to clients: one of these would be somebody's before it is listened on."""
    while True:
        port = SystemRandom().randrange(20_000, 32_768)
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _docker_answers() -> bool:
    if not shutil.which("docker"):
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _kafka_in_docker() -> Iterator[str]:
    port = _free_port()
    environment = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }
    flags = [flag for name, value in environment.items() for flag in ("--env", f"{name}={value}")]
    started = subprocess.run(
        ["docker", "run", "--detach", "--rm", "--publish", f"127.0.0.1:{port}:{port}", *flags, KAFKA_IMAGE],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if started.returncode:
        pytest.fail(f"Docker could not start {KAFKA_IMAGE}: {started.stderr.strip()}")
    container = started.stdout.strip()
    try:
        _wait_until_up(container)
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run(["docker", "rm", "--force", container], capture_output=True, timeout=60, check=False)


def _wait_until_up(container: str, limit_s: float = 90) -> None:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True, timeout=30, check=False)
        if "Kafka Server started" in logs.stdout + logs.stderr:
            return
        time.sleep(0.5)
    pytest.fail(f"The Kafka container is not up after {limit_s:.0f} s; its last lines: {logs.stdout[-2000:]}")


def _kafka_on_java(state: Path) -> Iterator[str]:
    script = [str(ROOT / "deploy/kafka-local/kafka-local.sh")]
    environment = os.environ | {
        "KAFKA_STATE": str(state),
        "KAFKA_PORT": str(_free_port()),
        "KAFKA_CONTROLLER_PORT": str(_free_port()),
        "KAFKA_HEAP": "768m",
    }
    try:
        started = subprocess.run(
            [*script, "start"], env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if started.returncode:
            pytest.fail(f"No Kafka: {started.stderr.strip()}. {NO_BROKER}")
        yield started.stdout.strip()
    finally:
        subprocess.run([*script, "wipe"], env=environment, capture_output=True, timeout=60, check=False)
