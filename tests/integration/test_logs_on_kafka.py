"""A log goes into Kafka and comes back the same; the applied order comes with it, or not at all."""

from __future__ import annotations

import time
from collections import defaultdict

import msgspec
import pytest
from click.testing import CliRunner

from backtest.shoppers import generate_log
from contracts.decisions import Applied, Source, decision_key, encode_decision
from contracts.digest import PublishedDigest
from contracts.errors import BadInput, BadSettings
from contracts.log import Manifest, catalogue_records, open_log, policy_records, records
from contracts.semantics import Topology
from pricetide import command_line
from streams.broker import committed_records, producing
from streams.produce import check_partitions, check_target, produce
from streams.record import record_log, wait_until_idle
from streams.topics import create_topics

PARTITIONS = 2


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A generated log with bad records in it."""
    directory = tmp_path_factory.mktemp("logs") / "shoppers"
    generate_log(directory, 60, 1_500, 7, Topology(partitions=PARTITIONS), "jsonl")
    return open_log(directory)


def manifest_of(settings) -> Manifest:
    return Manifest(
        semantics=settings.engine_semantics, topology=settings.topics.topology, source="test", offers="not_shown"
    )


def by_place(log) -> dict[tuple[int, int], list]:
    """Return the records of a log by source and partition, in their order there."""
    places = defaultdict(list)
    for record in records(log):
        places[record.source, record.partition].append(record)
    return places


def publish_order(settings, log, versions) -> None:
    """Publish `applied` decisions of partition 0: version n is of its n-th record in the log."""
    sources = settings.topics.topology.sources
    applied = [record for record in records(log) if record.partition == 0]
    with producing(settings) as producer:
        for number, version in enumerate(versions):
            record = applied[version - 1]
            decision = Applied(
                decision_id=str(number), user="u", version=version, outcome="unknown_item", policies_seen=2,
                catalogue_seen=5, source=Source(sources[record.source], 0, record.offset),
            )  # fmt: skip
            key, value = decision_key("u", str(number)), encode_decision(decision)
            producer.send(settings.topics.decisions, value, key, partition=0).get(timeout=30)


def test_what_was_produced_is_recorded_byte_for_byte(deploy, log, tmp_path):
    settings = deploy()
    create_topics(settings)
    assert len(check_target(settings, log)) == 1, "the topics have other names than the log's, and are empty"
    told = []
    assert produce(settings, log, progress=told.append) == sum(told) == sum(map(sum, log.manifest.records.values()))
    record_log(settings, tmp_path / "captured", manifest_of(settings))
    captured = open_log(tmp_path / "captured")
    assert by_place(captured) == by_place(log)
    assert list(catalogue_records(captured)) == list(catalogue_records(log))
    assert list(policy_records(captured)) == list(policy_records(log))


def test_a_log_reaches_the_topics_that_the_settings_name(deploy, log):
    settings = deploy()
    create_topics(settings)
    produce(settings, log)
    landed = defaultdict(int)
    for record in committed_records(settings, settings.topics.topology.sources):
        landed[record.topic, record.partition] += 1
        assert dict(record.headers)["schema-version"] == b"1"
        assert record.timestamp > 1_600_000_000_000, "stamped with the time of sending, for retention's sake"
    kinds = dict(zip(log.manifest.topology.sources, settings.topics.topology.sources, strict=True))
    for topic, counts in log.manifest.records.items():
        assert [landed[kinds[topic], partition] for partition in range(PARTITIONS)] == counts


def test_at_a_speed_it_takes_its_time(deploy, log):
    settings = deploy()
    create_topics(settings)
    arrivals = [record.arrival_ms for record in records(log)]
    seconds = (arrivals[-1] - arrivals[0]) / 1000
    begun = time.monotonic()
    produce(settings, log, speed=seconds / 1.5)
    assert time.monotonic() - begun >= 1.5


def test_topics_of_another_partition_count_are_refused(deploy, log):
    settings = deploy(**{"topics.partitions": 3})
    with pytest.raises(BadSettings, match="give --partitions 2"):
        check_partitions(settings, log)
    create_topics(settings)
    with pytest.raises(BadSettings, match=r"has 3 partitions, the log at .* was made for 2"):
        check_target(settings, log)


def test_another_mapping_of_kinds_to_topics_is_refused(deploy, log, unique):
    settings = deploy(**{"topics.clicks": f"{unique}views"})
    create_topics(settings)
    with pytest.raises(BadSettings, match="let the same kinds share a topic"):
        check_target(settings, log)


def test_topics_that_hold_something_are_warned_of(deploy, log, flags):
    settings = deploy()
    run = CliRunner()
    arguments = ["produce", str(log.directory), "--topics-create", *flags(settings)]
    first = run.invoke(command_line, arguments)
    assert (first.exit_code, "not empty" in first.stderr) == (0, False)
    assert first.stdout.startswith(f"produced {sum(map(sum, log.manifest.records.values()))} records")
    assert "not empty" in run.invoke(command_line, arguments).stderr


def test_the_applied_order_is_captured_with_what_the_worker_had_seen(deploy, log, tmp_path):
    settings = deploy()
    create_topics(settings)
    produce(settings, log)
    publish_order(settings, log, [1, 2, 2, 3])  # two decisions of one event, as a withdrawal makes them
    wait_until_idle(settings, 0.2)
    record_log(settings, tmp_path / "captured", manifest_of(settings), file_format="jsonl")
    captured = open_log(tmp_path / "captured")
    rows = [row for chunk in captured.applied() for row in chunk]
    assert [(row.version, row.partition, row.policies_seen, row.catalogue_seen) for row in rows] == [
        (1, 0, 2, 5), (2, 0, 2, 5), (3, 0, 2, 5)
    ]  # fmt: skip
    assert captured.recorded


@pytest.mark.parametrize(("versions", "sentence"), [([2, 3], "from version 0 to 2"), ([1, 3], "from version 1 to 3")])
def test_an_order_with_a_hole_is_refused_and_the_rest_can_still_be_had(deploy, log, tmp_path, versions, sentence):
    settings = deploy()
    create_topics(settings)
    produce(settings, log)
    publish_order(settings, log, versions)
    with pytest.raises(BadInput, match=f"{sentence}.*--no-applied"):
        record_log(settings, tmp_path / "captured", manifest_of(settings))
    with pytest.raises(BadInput, match="interrupted"):
        open_log(tmp_path / "captured")
    record_log(settings, tmp_path / "captured", manifest_of(settings), applied=False)
    assert not open_log(tmp_path / "captured").recorded


def test_an_order_of_records_that_are_not_on_the_topic_is_refused(deploy, log, tmp_path):
    settings = deploy()
    create_topics(settings)
    publish_order(settings, log, [1])
    with pytest.raises(BadInput, match="is not on the topic"):
        record_log(settings, tmp_path / "captured", manifest_of(settings))


def test_the_digest_of_a_topic_is_the_digest_of_its_records(deploy, flags, tmp_path):
    settings = deploy()
    create_topics(settings)
    published = [
        (b'["%b","i"]' % user, msgspec.json.encode({"user": user.decode(), "item": "i", "version": version}))
        for version, user in enumerate([b"u", b"v", b"u"], 1)
    ]
    with producing(settings) as producer:
        for key, value in published:
            partition = 0 if b'"u"' in key else 1
            producer.send(settings.topics.price_updates, value, key, partition=partition).get(timeout=30)
    run = CliRunner()
    topic = run.invoke(command_line, ["digest", "--topic", *flags(settings)])
    digest = PublishedDigest()
    for key, value in published:
        digest.add(key, value)
    assert topic.output == f"{digest.hexdigest()}  3 records\n"
    file = tmp_path / "prices.jsonl"
    file.write_bytes(b"\n".join(msgspec.json.encode({"key": key, "record": value}) for key, value in published))
    assert run.invoke(command_line, ["digest", str(file)]).output == topic.output
    assert run.invoke(command_line, ["digest", *flags(settings)]).exit_code == 2
