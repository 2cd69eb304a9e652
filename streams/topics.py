"""The topics of a deployment: which there must be, with which partitions and configurations; making and checking them.

Never alters or deletes a topic that exists: what is wrong with one becomes a finding that says what to do. Not here:
what travels on them (contracts), and the group's offsets (streams.doctor).
"""

from __future__ import annotations

from typing import Any, Literal

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import InvalidReplicationFactorError, TopicAlreadyExistsError, for_code
from msgspec import Struct

from contracts.errors import BadSettings
from streams.broker import administering
from streams.settings import Settings

DEAD_LETTER_RETENTION_MS = 90 * 86_400_000
DEAD_LETTER_BYTES_MAX = 2 << 20
"""A dead letter is the original, which may fill a whole message of 1 MiB, and its headers."""
TOMBSTONE_RETENTION_MS = 7 * 86_400_000
"""How long a store may stay away and still hear of what was deleted meanwhile."""
ERASED_WITHIN_MS = 7 * 86_400_000
"""How long after a tombstone the broker may wait before it compacts: what was erased is gone from its disks soon after."""

Level = Literal["ok", "warning", "wrong"]
Role = Literal[
    "input", "price updates", "decisions", "outcomes", "shadow decisions", "dead letters", "changelog", "catalogue", "policies"
]  # fmt: skip


class Finding(Struct, frozen=True):
    """One thing that was looked at. `remedy` says what to do; empty when all is well."""

    level: Level
    subject: str
    message: str
    remedy: str = ""


class TopicPlan(Struct, frozen=True):
    """One topic as it must be."""

    name: str
    role: Role
    partitions: int
    configs: dict[str, str]


def counted(count: int, noun: str) -> str:
    """Return "1 broker", "2 brokers"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plan(settings: Settings) -> list[TopicPlan]:
    """Return every topic of the deployment, inputs first.

    Raises:
        BadSettings: one name is given to two topics that cannot be one.
    """
    topics = settings.topics
    erasable = {"max.compaction.lag.ms": str(ERASED_WITHIN_MS)}
    compact = {"cleanup.policy": "compact"}
    tombstones = {"delete.retention.ms": str(TOMBSTONE_RETENTION_MS)}
    decisions = {"cleanup.policy": "compact,delete", "retention.ms": str(topics.decisions_retention_ms)} | erasable
    dead_letters = erasable | {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(DEAD_LETTER_RETENTION_MS),
        "max.message.bytes": str(DEAD_LETTER_BYTES_MAX),
    }
    safe = {"min.insync.replicas": "2"} if topics.replication_factor >= 3 else {}
    inputs = [TopicPlan(name, "input", topics.partitions, {"cleanup.policy": "delete"} | safe)
              for name in topics.topology.sources]  # fmt: skip
    outputs = [
        TopicPlan(topics.price_updates, "price updates", topics.partitions, compact | erasable | safe),
        TopicPlan(topics.decisions, "decisions", topics.partitions, decisions | safe),
        TopicPlan(topics.outcomes, "outcomes", topics.partitions, decisions | safe),
        TopicPlan(topics.shadow_decisions, "shadow decisions", topics.partitions, decisions | safe),
        TopicPlan(topics.dead_letters, "dead letters", topics.partitions, dead_letters | safe),
        TopicPlan(topics.changelog, "changelog", topics.partitions, compact | tombstones | erasable | safe),
        TopicPlan(topics.catalogue, "catalogue", 1, compact | safe),
        TopicPlan(topics.policies, "policies", 1, compact | safe),
    ]
    _require_distinct([*inputs, *outputs])
    return [*inputs, *outputs]


def _require_distinct(plans: list[TopicPlan]) -> None:
    roles: dict[str, str] = {}
    for topic in plans:
        if topic.name in roles:
            raise BadSettings(
                f"Settings: topics: {topic.name!r} is named for {roles[topic.name]} and for {topic.role}: "
                "only inputs may share a topic; name another one"
            )
        roles[topic.name] = topic.role


def create_topics(settings: Settings) -> list[str]:
    """Create the topics that are missing and wait until they can be used; return their names.

    Raises:
        BadSettings: the broker refused one, with its reason.
    """
    plans = plan(settings)
    with administering(settings) as admin:
        held = _described(admin, plans)
        missing = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": settings.topics.replication_factor,
                "configs": topic.configs,
            }
            for topic in plans
            if topic.name not in held
        }
        if not missing:
            return []
        answer = admin.create_topics(missing, raise_errors=False)
        for topic in answer["topics"]:
            if topic["error_code"] not in (0, TopicAlreadyExistsError.errno):
                _refused(topic)
        admin.wait_for_topics(list(missing))
    return list(missing)


def _refused(answer: dict[str, Any]) -> None:
    """Raise what the broker said of one topic."""
    error = for_code(answer["error_code"])
    reason = answer["error_message"] or error.__name__
    if error is InvalidReplicationFactorError:
        reason += "; set topics.replication_factor to at most the number of brokers"
    raise BadSettings(f"The broker refused to create topic {answer['name']!r}: {reason}")


def check_topics(settings: Settings) -> list[Finding]:
    """Compare the topics of the broker with the plan; at least one finding for every topic.

    Raises:
        BrokerUnavailable, BadSettings: as of streams.broker.
    """
    plans = plan(settings)
    with administering(settings) as admin:
        held = _described(admin, plans)
        configs = _configs(admin, list(held))
    findings: list[Finding] = []
    for topic in plans:
        if topic.name not in held:
            findings.append(Finding("wrong", topic.name, f"{topic.role}: missing", "run `pricetide topics create`"))
            continue
        problems = [
            *_partition_problems(topic, held[topic.name]),
            *_replica_problems(topic, held[topic.name], settings.topics.replication_factor),
            *_config_problems(topic, configs[topic.name]),
        ]
        findings += problems or [
            Finding(
                "ok",
                topic.name,
                f"{topic.role}: {counted(topic.partitions, 'partition')}, {topic.configs['cleanup.policy']}",
            )
        ]
    return findings


def _described(admin: KafkaAdminClient, plans: list[TopicPlan]) -> dict[str, list[dict[str, Any]]]:
    answers = admin.describe_topics([topic.name for topic in plans])
    return {answer["name"]: answer["partitions"] for answer in answers if answer["error_code"] == 0}


def _configs(admin: KafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the effective configuration of each topic."""
    if not names:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    answer = admin.describe_configs(resources, config_filter="all")["topic"]
    return {name: {key: entry["value"] for key, entry in answer[name].items()} for name in names}


def _partition_problems(topic: TopicPlan, partitions: list[dict[str, Any]]) -> list[Finding]:
    count = len(partitions)
    if count == topic.partitions:
        return []
    if topic.role in ("catalogue", "policies"):
        remedy = "recreate it with one partition: its order is its meaning"
    else:
        remedy = (
            f"inputs, outputs and changelog need equal counts: set topics.partitions to {count} if all have {count}; "
            "else drain the inputs, delete the topics, raise semantics.epoch and run `pricetide topics create`"
        )
    return [
        Finding("wrong", topic.name, f"{topic.role}: {counted(count, 'partition')}, not {topic.partitions}", remedy)
    ]


def _replica_problems(topic: TopicPlan, partitions: list[dict[str, Any]], wanted: int) -> list[Finding]:
    problems = []
    without_leader = [entry["partition_index"] for entry in partitions if entry["leader_id"] < 0]
    if without_leader:
        message = f"{topic.role}: no leader for partitions {sorted(without_leader)}"
        problems.append(Finding("wrong", topic.name, message, "bring the brokers that hold their replicas back"))
    fewest = min(len(entry["replica_nodes"]) for entry in partitions)
    if fewest < wanted:
        message = f"{topic.role}: {counted(fewest, 'replica')}, topics.replication_factor is {wanted}"
        problems.append(Finding("warning", topic.name, message, "reassign the topic with kafka-reassign-partitions.sh"))
    return problems


def _config_problems(topic: TopicPlan, held: dict[str, str]) -> list[Finding]:
    """Cleanup policy and message size decide correctness; other differences are a warning."""
    problems = []
    for key, wanted in topic.configs.items():
        value = held.get(key, "")
        if key == "cleanup.policy":
            level: Level = "ok" if set(value.split(",")) == set(wanted.split(",")) else "wrong"
        elif key == "max.message.bytes":
            level = "ok" if int(value) >= int(wanted) else "wrong"
        else:
            level = "ok" if value == wanted else "warning"
        if level != "ok":
            problems.append(_config_finding(level, topic, key, value, wanted))
    return problems


def _config_finding(level: Level, topic: TopicPlan, key: str, value: str, wanted: str) -> Finding:
    alter = "kafka-configs.sh --alter --entity-type topics --entity-name"
    brackets = f"[{wanted}]" if "," in wanted else wanted
    message = f"{topic.role}: {key} is {value or 'not set'}, not {wanted}"
    return Finding(level, topic.name, message, f"run {alter} {topic.name} --add-config {key}={brackets}")
