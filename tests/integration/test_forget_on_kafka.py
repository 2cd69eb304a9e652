"""A person is forgotten: on the topics, after compaction, and in the data directory nothing of theirs is left but a hash."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from deployment import Deployment, as_arguments
from kafka.admin import ConfigResource, ConfigResourceType
from msgspec.structs import replace

from backtest.shoppers import generate_log
from contracts.decisions import Decision, decode_decision
from contracts.events import View, encode_event
from contracts.ids import partition_of
from contracts.log import Log, open_log
from contracts.log_writer import LogWriter
from pricetide import command_line
from streams.broker import administering, committed_records, producing
from streams.forget_commands import forget
from streams.policy_changes import set_shadow

ANN = "zq-Ann-7f3d2b"
"""Like no other id, so that neither RocksDB's prefixes nor its compression can hide it."""
LIMIT_S = 60
QUICK = {
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.0",
    "min.compaction.lag.ms": "0",
    "delete.retention.ms": "0",
}


def log_with_ann(directory: Path, deployment: Deployment) -> Log:
    """Write a log in which the busiest user is ANN, one of whose views has no price."""
    generate_log(directory / "plain", 25, 1_200, 3, deployment.topology)
    log = open_log(directory / "plain")
    rows = list(log.rows())
    users = [row.user for row in rows]
    busiest = max(set(users), key=users.count)
    with LogWriter(directory / "log", replace(log.manifest, tables={}, records={})) as writer:
        for items in log.catalogue():
            writer.catalogue(items)
        rows = [replace(row, user=ANN) if row.user == busiest else row for row in rows]
        seen = next(row for row in rows if row.user == ANN and row.type == "view")
        writer.rows([*rows, replace(seen, price=0, arrival_ms=rows[-1].arrival_ms)])
    return open_log(directory / "log")


def files_with_ann(directory: Path) -> list[str]:
    found = []
    for path in sorted(directory.rglob("*")):
        try:
            content = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue  # RocksDB removes files while it runs
        if ANN.encode() in content:
            found.append(path.name)
    return found


def topics_with_ann(deployment: Deployment) -> dict[str, int]:
    topics = deployment.settings.topics
    found = {}
    for topic in (*topics.outputs, topics.changelog):
        records = list(committed_records(deployment.settings, [topic]))
        assert records, f"{topic} holds records of others"
        found[topic] = sum(ANN in str((one.key, one.value, one.headers)) for one in records)
    return found


def compact_quickly(deployment: Deployment) -> None:
    topics = deployment.settings.topics
    names = (*topics.outputs, topics.changelog)
    with administering(deployment.settings) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, QUICK) for name in names])


def view(user: str, item: str, event_id: str, at_ms: int, price: int = 999) -> View:
    return View(event_id=event_id, user=user, item=item, event_time_ms=at_ms, price=price, currency="USD")


def send(deployment: Deployment, views: list[View]) -> None:
    topics = deployment.settings.topics
    with producing(deployment.settings) as producer:
        for one in views:
            home = partition_of(one.user.encode(), topics.partitions)
            arrival = ("arrival_ms", b"%d" % one.event_time_ms)
            producer.send(topics.views, encode_event(one), one.user.encode(), headers=[arrival], partition=home)
    deployment.wait_until_applied(LIMIT_S)


def passer_by(deployment: Deployment) -> str:
    """Return a user on ANN's partition, whose events make the broker roll its segments."""
    count, home = deployment.topology.partitions, partition_of(ANN.encode(), deployment.topology.partitions)
    return next(name for n in range(100) if partition_of((name := f"p{n}").encode(), count) == home)


def last_decision_of_ann(deployment: Deployment) -> Decision:
    records = committed_records(deployment.settings, [deployment.settings.topics.decisions])
    decisions = [decode_decision(one.value) for one in records if one.value and ANN.encode() in one.key]
    assert isinstance(decisions[-1], Decision)
    return decisions[-1]


def test_a_person_is_forgotten_on_every_topic_and_in_the_data_directory_and_stays_without_consent(
    kafka, unique, tmp_path
):
    with Deployment(kafka, unique, tmp_path, partitions=2, semantics__consent_default=True) as deployment:
        deployment.create()
        log = log_with_ann(tmp_path, deployment)
        deployment.produce(tmp_path / "log")
        set_shadow(deployment.settings, "builtin")
        worker = deployment.worker()
        deployment.wait_until_applied(LIMIT_S)
        before = topics_with_ann(deployment)
        topics, data = deployment.settings.topics, tmp_path / "a" / "state"
        assert all(before[topic] for topic in (*topics.outputs, topics.changelog))
        assert files_with_ann(data)
        end_ms, flags = log.manifest.last_ms, as_arguments(deployment.flags)
        run = CliRunner()
        refused = run.invoke(command_line, ["users", "show", ANN, *flags])
        assert refused.exit_code == 0, "there is a state of Ann"
        done = run.invoke(forget, [ANN, "--yes", "--event-time-ms", str(end_ms), *flags])
        assert done.exit_code == 0, done.output
        assert "Carried out" in done.output
        compact_quickly(deployment)
        item = next(row.item for rows in log.catalogue() for row in rows)
        other, ends = passer_by(deployment), time.monotonic() + LIMIT_S
        for n in range(LIMIT_S):
            at_ms = end_ms + (n + 1) * 31 * 60_000  # the draw before has its outcome
            send(deployment, [view(other, item, f"later{n}", at_ms), view(other, item, f"bad{n}", at_ms, price=0)])
            left = topics_with_ann(deployment)
            if not any(left.values()):
                break
            assert time.monotonic() < ends, f"after {LIMIT_S} s of compaction: {left}"
            time.sleep(1)
        worker.wait_until_said("the store holds nothing of erased users")
        assert files_with_ann(data) == []
        report = run.invoke(forget, [ANN, "--check", "--json", *flags])
        assert report.exit_code == 0, report.output
        found = {topic["topic"]: topic for topic in json.loads(report.stdout)["topics"]}
        assert found[topics.views]["left"] > 0, "the inputs are the shop's, and go by retention"
        assert found[topics.decisions] == {
            "topic": topics.decisions, "compacted": True, "left": 0, "taken_back": 0, "since": 0, "elsewhere": 0,
        }  # fmt: skip
        send(deployment, [view(ANN, item, "back", end_ms + 90 * 86_400_000)])
        decision = last_decision_of_ann(deployment)
        assert (decision.price, decision.reasons) == (decision.list_price, ("no_consent",))
        assert decision.sequence == 1, "what was known before is not known any more"
        assert worker.terminate() == 0


@pytest.mark.parametrize("arguments", [["--check"], ["--yes", "--wait", "0.1"]])
def test_without_an_erasure_carried_out_the_command_says_so(kafka, unique, tmp_path, arguments):
    with Deployment(kafka, unique, tmp_path, partitions=1) as deployment:
        deployment.create()
        done = CliRunner().invoke(forget, [ANN, *arguments, *as_arguments(deployment.flags)])
        assert done.exit_code == 1
        assert "No erasure of" in done.output or "not carried out after 0.1 s" in done.output
