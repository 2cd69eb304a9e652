"""What a worker says, and the code it ends with, when settings, topics, positions or its directory do not fit.

Every row: how a set-up that worked is broken, the exit code, and the sentence; for the last ones also the command that
the sentence names, after which a worker goes on.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import COMMAND, HANGS_S, Deployment, as_arguments, difference, expected
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata
from rocksdict import Options, Rdict

from backtest.shoppers import generate_log
from streams.broker import administering, producing
from streams.topics import create_topics, plan
from streams.worker_commands import require_partitions

CONFIG, RETRY = 78, 75


def command(deployment: Deployment, *words: str, check: bool = True) -> str:
    arguments = [str(COMMAND), *words, *as_arguments(deployment.flags)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def refused(deployment: Deployment, code: int, sentence: str, **flags: object) -> None:
    worker = deployment.worker("refused", **flags)
    assert worker.wait() == code, worker.said()
    last_word = worker.said().strip().splitlines()[-1]
    assert last_word.startswith("pricetide: ")
    assert sentence in last_word
    assert "Traceback" not in worker.said()


# -- settings, before anything is opened -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"semantics.consent_default": None}, "set semantics.consent_default to true or false"),
        ({"semantics.state_ttl_ms": 1_000}, "state_ttl_ms must cover the longest window"),
        ({"semantics.currency": "dollars"}, "currency"),
        ({"semantics.epooch": 1}, "epooch"),
        ({"topics.vieuws": "views"}, "topics.vieuws"),
        ({"batch_max": 0}, "batch_max"),
        ({"session_timeout_ms": "soon"}, "session_timeout_ms"),
        ({"kafka.security_protocol": "SASL_SSL"}, "sasl_username is required"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_a_sentence(tmp_path, flags, sentence):
    with Deployment("127.0.0.1:1", "none-", tmp_path) as deployment:
        deployment.flags = {name: value for name, value in (deployment.flags | flags).items() if value is not None}
        refused(deployment, CONFIG, sentence)


def test_a_broker_that_does_not_answer_is_worth_another_try(tmp_path, free_port):
    with Deployment(f"127.0.0.1:{free_port()}", "none-", tmp_path, kafka__request_timeout_ms=1_000) as deployment:
        refused(deployment, RETRY, "No usable answer from Kafka at 127.0.0.1:")


# -- topics ------------------------------------------------------------------------------------------------------------


def test_missing_topics_are_named(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path) as deployment:
        refused(deployment, CONFIG, "There is no topic ")
        deployment.create()
        with administering(deployment.settings) as admin:
            admin.delete_topics([deployment.settings.topics.decisions])
        refused(deployment, CONFIG, f"There is no topic '{unique}decisions' at ")


def test_unequal_partition_counts_are_named(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path, partitions=2) as deployment:
        deployment.create()
        with administering(deployment.settings) as admin:
            admin.create_partitions({deployment.settings.topics.clicks: 3})
        refused(deployment, CONFIG, f"Topic {unique}clicks has 3 partitions, the settings say 2")


def test_a_catalogue_with_records_that_no_worker_reads_is_named(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path, partitions=1) as deployment:
        deployment.create()
        catalogue = deployment.settings.topics.catalogue
        with administering(deployment.settings) as admin:
            admin.create_partitions({catalogue: 2})
        require_partitions(deployment.settings)
        deadline = time.monotonic() + 30
        while True:  # the broker tells of a new partition when it has got round to it
            with producing(deployment.settings) as producer:
                if 1 in producer.partitions_for(catalogue):
                    producer.send(catalogue, b"{}", b"k", partition=1).get(timeout=30)
                    break
            assert time.monotonic() < deadline, "the new partition was not made"
        refused(
            deployment, CONFIG, f"Topic {catalogue} has 2 partitions, and records on partition 1, which no worker reads"
        )


def test_a_taken_port_is_named(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path) as deployment, socket.socket() as taken:
        deployment.create()
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused(deployment, CONFIG, "port", port=taken.getsockname()[1])


# -- state that no longer fits -----------------------------------------------------------------------------------------


def recreate(deployment: Deployment, topic: str) -> None:
    settings = deployment.settings
    with administering(settings) as admin:
        admin.delete_topics([topic])
        while topic in admin.list_topics():
            time.sleep(0.1)
    create_topics(settings)


def grow(deployment: Deployment) -> None:
    with administering(deployment.settings) as admin:
        admin.create_partitions({topic.name: 2 for topic in plan(deployment.settings) if topic.partitions == 1
                                 and topic.role not in ("catalogue", "policies")})  # fmt: skip
    deployment.flags["topics.partitions"] = 2


def reset_offsets(deployment: Deployment) -> None:
    settings = deployment.settings
    places = [TopicPartition(source, 0) for source in deployment.topology.sources]
    with administering(settings) as admin:
        admin.alter_group_offsets(settings.group, {place: OffsetAndMetadata(1, "", -1) for place in places})


def lose_events(deployment: Deployment) -> None:
    """Retention takes events that came while no worker ran."""
    topic = TopicPartition(deployment.settings.topics.views, 0)
    deployment.produce(deployment.directory / "log")
    with administering(deployment.settings) as admin:
        admin.delete_records({topic: -1})


BREAKS: dict[str, tuple[Callable[[Deployment], None], str]] = {
    "another partition count": (grow, "the state was built from"),
    "a recreated input topic": (lambda d: recreate(d, d.settings.topics.views), "it was recreated. Raise semantics.epoch"),
    "a recreated changelog": (lambda d: recreate(d, d.settings.topics.changelog), "the changelog has no state"),
    "offsets that were reset": (reset_offsets, "Run `pricetide offsets repair`"),
    "events that retention removed": (lose_events, "retention removed events that were never applied"),
    "an epoch that went back": (lambda d: d.flags.update({"semantics.epoch": 0}), "the state is of epoch 1"),
    "other input topics": (lambda d: d.flags.update({"topics.clicks": d.flags["topics.views"]}), "the state was built from"),
}  # fmt: skip


@pytest.fixture
def worked(kafka, unique, tmp_path):
    """A deployment whose worker has done its work and gone."""
    with Deployment(kafka, unique, tmp_path, partitions=1, semantics__epoch=1) as deployment:
        generate_log(tmp_path / "log", 20, 200, 3, deployment.topology)
        deployment.create().produce(tmp_path / "log")
        worker = deployment.worker()
        deployment.wait_until_applied()
        assert worker.terminate() == 0
        yield deployment


@pytest.mark.parametrize("broken", BREAKS)
def test_state_that_no_longer_fits_stops_the_worker(worked, broken):
    break_it, sentence = BREAKS[broken]
    break_it(worked)
    refused(worked, CONFIG, sentence)
    if "offsets repair" in sentence:
        command(worked, "offsets", "repair")
    elif "retention" in sentence:
        assert "skips" in command(worked, "offsets", "skip")
        command(worked, "offsets", "skip", "--yes")
    elif "epoch by one" in sentence or "recreated." in sentence:
        worked.flags["semantics.epoch"] = 2
    else:
        return
    worked.produce(worked.directory / "log")
    worked.worker("mended")
    worked.wait_until_applied()


def test_a_data_directory_in_use_by_another_process_is_named(worked):
    path: Path = worked.workers[0].data_dir / "state" / worked.settings.group / "0"
    held = Rdict(str(path), Options(raw_mode=True))
    worker = worked.worker()
    assert worker.wait() == CONFIG, worker.said()
    assert "is locked by another process: give each worker a --data-dir of its own" in worker.said()
    held.close()


def test_a_data_directory_of_another_cluster_is_rebuilt_from_the_changelog(worked, unique, tmp_path):
    """Its positions are beyond the changelog's end: it must not be believed."""
    other = Deployment(
        worked.flags["kafka.bootstrap_servers"], f"{unique}other-", tmp_path, partitions=1, group="one-name"
    )
    foreign = worked.workers[0].data_dir / "state"
    with other.create():
        (foreign / worked.settings.group).rename(foreign / "one-name")
        generate_log(tmp_path / "other", 10, 50, 4, other.topology)
        other.produce(tmp_path / "other")
        other.worker()
        other.wait_until_applied()
        assert difference(expected(tmp_path / "other"), other.published()) == ""
