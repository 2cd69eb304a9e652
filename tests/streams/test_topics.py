"""Which topics a deployment has, and which settings cannot be."""

from __future__ import annotations

import pytest

from contracts.errors import BadSettings
from streams.settings import load_settings
from streams.topics import plan


def test_inputs_and_outputs_have_equal_partitions_and_references_one():
    topics = {topic.role: topic for topic in plan(load_settings(**{"topics.partitions": 7}))}
    assert {role: topic.partitions for role, topic in topics.items()} == {
        "input": 7, "price updates": 7, "decisions": 7, "outcomes": 7, "shadow decisions": 7, "dead letters": 7,
        "changelog": 7, "catalogue": 1, "policies": 1,
    }  # fmt: skip


def test_what_must_never_be_lost_is_compacted_and_inputs_are_not():
    policies = {topic.name: topic.configs["cleanup.policy"] for topic in plan(load_settings())}
    assert policies == {
        "consents": "delete", "views": "delete", "clicks": "delete", "purchases": "delete",
        "price-updates": "compact", "pricetide-changelog": "compact", "catalogue": "compact", "policies": "compact",
        "decisions": "compact,delete", "outcomes": "compact,delete", "dead-letters": "compact,delete",
        "shadow-decisions": "compact,delete",
    }  # fmt: skip


def test_one_topic_may_carry_every_kind():
    names = {f"topics.{kind}": "events" for kind in ("consents", "views", "clicks", "purchases")}
    assert [topic.name for topic in plan(load_settings(**names)) if topic.role == "input"] == ["events"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("views", "price_updates"), ("changelog", "decisions"), ("catalogue", "policies"), ("clicks", "dead_letters")],
)
def test_only_inputs_may_share_a_topic(first, second):
    settings = load_settings(**{f"topics.{first}": "same", f"topics.{second}": "same"})
    with pytest.raises(BadSettings, match="'same' is named for"):
        plan(settings)


@pytest.mark.parametrize(("factor", "in_sync"), [(1, None), (2, None), (3, "2")])
def test_with_three_replicas_two_must_have_a_record_before_it_counts(factor, in_sync):
    settings = load_settings(**{"topics.replication_factor": factor})
    assert {topic.configs.get("min.insync.replicas") for topic in plan(settings)} == {in_sync}
