"""The demo as a newcomer runs it, smaller: real processes on the mock broker, no terminal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from contracts.errors import BadSettings, BrokenInvariant
from streams.demo import PARTITIONS, Stage, mock_broker
from streams.live_view import Watch
from streams.settings import TopicSettings

EVENTS = 400


def run(arguments: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pricetide import main; main()", "demo", *arguments],
        env={
            "TMPDIR": str(place),
            "PRICETIDE_KAFKA__BOOTSTRAP_SERVERS": "a-real-cluster:9092",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_ends_by_itself_with_a_summary_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(["--events", str(EVENTS), "--users", "80", "--seconds", "3"], tmp_path)
    assert done.returncode == 0, done.stderr
    figures = dict(row.strip("│ ").split("│") for row in done.stdout.splitlines() if row.count("│") == 3)
    count = {name.strip(): figure.strip() for name, figure in figures.items()}
    applied = sum(int(count[f"{kind}s applied"]) for kind in ("view", "click", "purchase"))
    assert applied + int(count["bad records, to the dead letters"]) == EVENTS
    assert int(count["price updates"]) == sum(
        int(count[word]) for word in ("drawn anew", "open offers, held", "list price")
    )
    assert int(count["price updates"]) >= applied  # withdrawals of consent add some
    assert 0 < int(count["users in state, as last counted"]) <= 80
    assert count["records still waiting"] == "0"
    assert " ms / " in count["event to price at a reader, p50 / p99"]
    assert not list(tmp_path.iterdir())


def test_the_demo_says_which_package_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(BadSettings, match="make demo"), mock_broker():
        pass


def test_the_mock_broker_has_every_topic_with_the_partitions_of_the_settings() -> None:
    topics = TopicSettings()
    with mock_broker() as address:
        consumer = Consumer({"bootstrap.servers": address, "group.id": "test"})
        found = consumer.list_topics(timeout=10).topics
        consumer.close()
    assert topics.partitions == PARTITIONS
    assert {topics.changelog, topics.catalogue, topics.policies, *topics.topology.sources} < set(found)
    assert {len(topic.partitions) for topic in found.values()} == {PARTITIONS}


def test_a_process_that_fails_ends_the_demo_with_its_last_words(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "127.0.0.1:1")
    with pytest.raises(BrokenInvariant, match="no-such-log"):
        stage.finish("produce", stage.start("produce", str(tmp_path / "no-such-log")))


def test_a_watch_shows_figures_before_there_are_any() -> None:
    with mock_broker() as address, Watch(address, port=1, total=10) as watch:
        watch.poll(0.05)
        assert not watch.complete
        assert "0 of 10 events" in watch.line()
