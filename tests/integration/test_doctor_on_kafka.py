"""The doctor finds what stops a worker, and says what to do."""

from __future__ import annotations

import json

from click.testing import CliRunner
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from pricetide import command_line
from streams.broker import administering, producing
from streams.doctor import examine
from streams.ledger import LEDGER_KEY, Ledger, encode_ledger
from streams.topics import create_topics


def wrong(settings):
    return {finding.subject: finding for finding in examine(settings) if finding.level == "wrong"}


def commit(settings, offsets: dict[tuple[str, int], int]) -> None:
    with administering(settings) as admin:
        admin.alter_group_offsets(
            settings.group,
            {TopicPartition(*place): OffsetAndMetadata(offset, "", -1) for place, offset in offsets.items()},
        )


def send(settings, topic: str, key: bytes, value: bytes) -> None:
    with producing(settings) as producer:
        producer.send(topic, key=key, value=value, partition=0).get(timeout=30)


def test_a_new_deployment_is_well(deploy, flags):
    settings = deploy()
    create_topics(settings)
    assert wrong(settings) == {}
    assert CliRunner().invoke(command_line, ["doctor", *flags(settings)]).exit_code == 0


def test_missing_topics_do_not_hide_the_rest(deploy, flags):
    settings = deploy()
    outcome = CliRunner().invoke(command_line, ["doctor", "--json", *flags(settings)])
    assert outcome.exit_code == 1
    found = {finding["subject"]: finding["level"] for finding in json.loads(outcome.stdout)}
    assert found[settings.topics.views] == "wrong"
    assert found["broker"] == found["transactions"] == "ok"


def test_offsets_beyond_the_end_mean_a_recreated_topic(deploy):
    settings = deploy()
    create_topics(settings)
    commit(settings, {(settings.topics.views, 0): 17})
    finding = wrong(settings)[f"group {settings.group}"]
    assert "ends at 0: the topic was recreated" in finding.message
    assert "semantics.epoch" in finding.remedy


def test_state_beyond_the_end_means_a_recreated_topic_though_kafka_forgot_the_offsets_with_it(deploy):
    settings = deploy()
    create_topics(settings)
    sources = settings.topics.topology.sources
    ledger = Ledger(epoch=0, partitions=2, sources=sources, positions=(0, 9, 0, 0), applied=9, watermark_ms=5)
    send(settings, settings.topics.changelog, LEDGER_KEY, encode_ledger(ledger))
    finding = wrong(settings)["state of partition 0"]
    assert "it was recreated" in finding.message
    assert "Raise semantics.epoch" in finding.remedy


def test_state_of_another_partition_count_is_found(deploy):
    settings = deploy()
    create_topics(settings)
    sources = settings.topics.topology.sources
    ledger = Ledger(epoch=0, partitions=8, sources=sources, positions=(0, 0, 0, 0), applied=0, watermark_ms=0)
    send(settings, settings.topics.changelog, LEDGER_KEY, encode_ledger(ledger))
    assert "with 8 partitions" in wrong(settings)["state of partition 0"].message


def test_state_that_disagrees_with_the_group_is_found_before_a_worker_starts(deploy):
    settings = deploy()
    create_topics(settings)
    sources = settings.topics.topology.sources
    ledger = Ledger(epoch=0, partitions=2, sources=sources, positions=(0, 1, 0, 0), applied=1, watermark_ms=5)
    send(settings, settings.topics.views, b"u", b"{}")
    send(settings, settings.topics.changelog, LEDGER_KEY, encode_ledger(ledger))
    assert "the group has committed" in wrong(settings)["state of partition 0"].message
    commit(settings, {(topic, 0): position for topic, position in zip(sources, ledger.positions, strict=True)})
    assert wrong(settings) == {}


def test_a_session_timeout_that_the_broker_refuses_is_found(deploy):
    settings = deploy(session_timeout_ms=10_000_000)
    create_topics(settings)
    assert "the broker allows" in wrong(settings)["group"].message


def test_a_transaction_timeout_that_the_broker_refuses_is_found(deploy):
    settings = deploy(transaction_timeout_ms=10_000_000)
    create_topics(settings)
    assert "the broker allows" in wrong(settings)["transactions"].message
