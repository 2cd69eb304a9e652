"""Topics are made as they must be, and what is wrong with one is found on a real broker."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner
from kafka.admin import ConfigResource, ConfigResourceType

from contracts.errors import BadSettings, BrokerUnavailable
from pricetide import command_line
from streams.broker import administering, committed_records, require_topics
from streams.settings import load_settings
from streams.topics import check_topics, create_topics, plan


def levels(settings):
    return {finding.subject: finding for finding in check_topics(settings)}


def levels_once(settings, topic, level):
    """Return the findings once `topic` shows `level`: a broker takes a moment to see its controller's changes."""
    ends = time.monotonic() + 20
    while (found := levels(settings))[topic].level != level and time.monotonic() < ends:
        time.sleep(0.1)
    return found


def test_create_makes_every_topic_as_check_wants_it_and_a_second_time_nothing(deploy):
    settings = deploy()
    names = [topic.name for topic in plan(settings)]
    assert {finding.level for finding in check_topics(settings)} == {"wrong"}
    assert create_topics(settings) == names
    assert create_topics(settings) == []
    assert {subject: finding.level for subject, finding in levels(settings).items()} == dict.fromkeys(names, "ok")


def test_a_topic_of_another_partition_count_is_wrong_and_the_finding_says_what_to_do(deploy):
    settings = deploy()
    create_topics(settings)
    with administering(settings) as admin:
        admin.create_partitions({settings.topics.views: 5})
    finding = levels_once(settings, settings.topics.views, "wrong")[settings.topics.views]
    assert finding.level == "wrong"
    assert "5 partitions, not 2" in finding.message
    assert "equal counts" in finding.remedy


def test_an_input_that_is_compacted_is_wrong_and_a_longer_retention_is_a_warning(deploy):
    settings = deploy()
    create_topics(settings)
    changes = {
        settings.topics.clicks: {"cleanup.policy": "compact"},
        settings.topics.decisions: {"retention.ms": "1000"},
        settings.topics.dead_letters: {"max.message.bytes": "1000"},
    }
    with administering(settings) as admin:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, configs) for name, configs in changes.items()]
        )
    found = levels_once(settings, settings.topics.dead_letters, "wrong")
    assert [found[name].level for name in changes] == ["wrong", "warning", "wrong"]
    assert (
        f"--entity-name {settings.topics.clicks} --add-config cleanup.policy=delete"
        in found[settings.topics.clicks].remedy
    )


def test_more_replicas_than_brokers_is_a_sentence(deploy):
    with pytest.raises(BadSettings, match=r"set topics\.replication_factor to at most the number of brokers"):
        create_topics(deploy(**{"topics.replication_factor": 9}))


def test_check_exits_with_1_before_and_0_after_create(deploy, flags):
    settings = deploy()
    run = CliRunner()
    before = run.invoke(command_line, ["topics", "check", "--json", *flags(settings)])
    assert before.exit_code == 1
    assert {finding["remedy"] for finding in json.loads(before.stdout)} == {"run `pricetide topics create`"}
    assert run.invoke(command_line, ["topics", "create", *flags(settings)]).exit_code == 0
    after = run.invoke(command_line, ["topics", "check", *flags(settings)])
    assert after.exit_code == 0
    assert settings.topics.price_updates in after.stdout


def test_a_missing_topic_is_named(deploy):
    settings = deploy()
    with pytest.raises(BadSettings, match=f"no topic '{settings.topics.policies}'.*pricetide topics create"):
        require_topics(settings, [settings.topics.policies])
    with pytest.raises(BadSettings, match="pricetide topics create"):
        list(committed_records(settings, [settings.topics.views]))


def test_an_unreachable_broker_is_worth_another_try(free_port):
    settings = load_settings(
        **{"kafka.bootstrap_servers": f"127.0.0.1:{free_port()}", "kafka.request_timeout_ms": 1_000}
    )
    with pytest.raises(BrokerUnavailable, match="is right and that the broker runs") as caught:
        check_topics(settings)
    assert caught.value.exit_code == 75
