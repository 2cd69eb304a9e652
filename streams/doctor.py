"""What is wrong with a set-up, and what to do: settings, broker, topics, transactions, group offsets, state, learners, directory.

Only looks: changes nothing, joins no group. Each examination returns findings; a failure of one does not hide the others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError

from contracts.errors import BadSettings, BrokerUnavailable, PricetideError
from contracts.rules import LearningRule
from streams.broker import administering, partition_counts, reading, records_until
from streams.ledger import LEDGER_KEY, Ledger, decode_ledger, starting_point
from streams.policy_log import read_policy_log
from streams.settings import Settings, unknown_variables
from streams.topics import Finding, check_topics, counted

FREE_BYTES_MIN = 1 << 30
COORDINATOR_TRIES = 20
LEDGER_RECORDS_BACK = 10_000
"""How far from the end of a changelog its last ledger is looked for; every transaction writes one."""

LIMITS = (
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "transaction.max.timeout.ms",
    "group.min.session.timeout.ms",
    "group.max.session.timeout.ms",
)
"""Configurations of a broker that settings must fit."""
_NO_COORDINATOR_YET = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError)


def examine(settings: Settings) -> list[Finding]:
    """Return everything found, in the order in which it should be mended."""
    findings = [*_semantics(settings), *_data_dir(settings.data_dir)]
    try:
        with administering(settings) as admin:
            findings += _broker(admin, settings)
    except PricetideError as error:
        return [*findings, _wrong("broker", error)]
    examinations: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_topics, _offsets, _ledgers, _learners)
    for look in examinations:
        try:
            findings += look(settings)
        except PricetideError as error:
            findings.append(_wrong(look.__name__.strip("_"), error))
    return findings


def _wrong(subject: str, error: PricetideError) -> Finding:
    """Split the sentence of an error into what is wrong and what to do."""
    message, _, remedy = str(error).partition(": ")
    if isinstance(error, BrokerUnavailable):
        message, _, remedy = str(error).rpartition(". ")
    return Finding("wrong", subject, message, remedy)


def _semantics(settings: Settings) -> Iterator[Finding]:
    try:
        semantics = settings.engine_semantics
    except BadSettings as error:
        yield Finding("wrong", "settings", str(error).partition("; ")[0], str(error).partition("; ")[2])
        return
    default = "granted" if semantics.consent_default else "denied"
    unknown = unknown_variables()
    if unknown:
        message = f"no settings, and not read: {', '.join(unknown)}"
        yield Finding("warning", "environment", message, "correct the names; docs/operations.md has them")
    yield Finding("ok", "settings", f"consent_default {default}, {semantics.currency}, epoch {semantics.epoch}")


def _data_dir(path: Path) -> Iterator[Finding]:
    """The directory can be written, has room, and no other process holds a store in it."""
    subject = f"data directory {path}"
    home = next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))
    if not home.is_dir() or not _takes_files(home):
        remedy = "choose another --data-dir, or mend its permissions, mount or quota"
        yield Finding("wrong", subject, f"{home} cannot be written", remedy)
        return
    free = os.statvfs(home).f_bavail * os.statvfs(home).f_frsize
    if free < FREE_BYTES_MIN:
        yield Finding("warning", subject, f"{free >> 20} MiB are free", "make room: the state of every user lies here")
    held = sorted(str(lock.parent.name) for lock in path.rglob("LOCK") if _is_locked(lock))
    if held:
        message = f"a running process holds the stores {', '.join(held)}"
        yield Finding("warning", subject, message, "nothing, if that is this worker; else give each its own --data-dir")
    else:
        yield Finding("ok", subject, f"writable, {free >> 30} GiB free, not in use")


def _takes_files(directory: Path) -> bool:
    """Return whether a file can be made there: permissions do not tell for root, nor of /proc."""
    try:
        with TemporaryFile(dir=directory):
            return True
    except OSError as error:
        return error.errno == errno.ENOSPC  # which is said in words of its own


def _is_locked(lock: Path) -> bool:
    """Return whether a process holds RocksDB's lock file (a POSIX record lock)."""
    with lock.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(file, fcntl.LOCK_UN)
        return False


def _broker(admin: KafkaAdminClient, settings: Settings) -> list[Finding]:
    """The broker answers, and can run transactions and groups as they are set."""
    cluster = admin.describe_cluster()
    brokers = cluster["brokers"]
    one = str(brokers[0]["broker_id"])
    version = ".".join(str(part) for part in admin.get_broker_version_data(int(one)).broker_version)
    found = [
        Finding(
            "ok", "broker", f"Kafka {version}, {counted(len(brokers), 'broker')} at {settings.kafka.bootstrap_servers}"
        )
    ]
    answer = admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, one)], config_filter="all")
    configs = {key: entry["value"] for key, entry in answer["broker"][one].items()}
    return [*found, *_limits(configs, len(brokers), settings)]


def _limits(configs: dict[str, str], brokers: int, settings: Settings) -> list[Finding]:
    untold = [key for key in LIMITS if configs.get(key) is None]  # a hosted cluster may keep them to itself
    if untold:
        remedy = "see that it allows transaction_timeout_ms and session_timeout_ms as they are set"
        return [Finding("warning", "broker", f"does not tell {', '.join(untold)}", remedy)]
    return [*_transactions(configs, brokers, settings), *_group_limits(configs, settings)]


def _transactions(configs: dict[str, str], brokers: int, settings: Settings) -> Iterator[Finding]:
    replicas = int(configs["transaction.state.log.replication.factor"])
    in_sync = int(configs["transaction.state.log.min.isr"])
    longest_ms = int(configs["transaction.max.timeout.ms"])
    if replicas > brokers or in_sync > brokers:
        yield Finding(
            "wrong",
            "transactions",
            f"the transaction log wants {replicas} replicas, {in_sync} of them in sync; there is {counted(brokers, 'broker')}",
            f"start the brokers with transaction.state.log.replication.factor and .min.isr of at most {brokers}",
        )
    elif settings.transaction_timeout_ms > longest_ms:
        message = f"transaction_timeout_ms is {settings.transaction_timeout_ms}, the broker allows {longest_ms}"
        yield Finding("wrong", "transactions", message, "lower it, or raise the broker's transaction.max.timeout.ms")
    else:
        yield Finding("ok", "transactions", f"the transaction log has {counted(replicas, 'replica')}")


def _group_limits(configs: dict[str, str], settings: Settings) -> Iterator[Finding]:
    least, most = int(configs["group.min.session.timeout.ms"]), int(configs["group.max.session.timeout.ms"])
    if not least <= settings.session_timeout_ms <= most:
        message = f"session_timeout_ms is {settings.session_timeout_ms}, the broker allows {least} to {most}"
        yield Finding("wrong", "group", message, "set session_timeout_ms within these bounds")


def _topics(settings: Settings) -> Iterator[Finding]:
    yield from check_topics(settings)


def _offsets(settings: Settings) -> Iterator[Finding]:
    """What the group has committed lies within the log of every input."""
    sources = settings.topics.topology.sources
    with administering(settings) as admin:
        counts = partition_counts(admin, sources)
        partitions = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        committed = _committed(admin, settings.group)
        begins = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST)) if partitions else {}
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST)) if partitions else {}
    subject = f"group {settings.group}"
    lag, problems = 0, 0
    for place, offset in sorted(committed.items()):
        if place.topic not in sources:
            continue
        where = f"{place.topic}/{place.partition}"
        begin, end = (begins[place].offset, ends[place].offset) if place in ends else (0, -1)
        finding = _out_of_range(subject, where, offset, begin, end)
        lag += max(0, end - offset)
        if finding is not None:
            problems += 1
            yield finding
    if not problems:
        lag += sum(ends[place].offset - begins[place].offset for place in partitions if place not in committed)
        yield Finding("ok", subject, f"committed offsets lie within the inputs; {lag} records to go")


def _out_of_range(subject: str, where: str, offset: int, begin: int, end: int) -> Finding | None:
    if end < 0:
        message = f"has committed {where}, a partition that no longer exists: partitions were changed"
        remedy = "set topics.partitions back, or start anew with another group, changelog topic and data directory"
        return Finding("wrong", subject, message, remedy)
    if offset > end:
        message = f"has committed offset {offset} of {where}, which ends at {end}: the topic was recreated"
        return Finding("wrong", subject, message, "raise semantics.epoch by one: its events are read from the start")
    if offset < begin:
        message = f"has committed offset {offset} of {where}, which begins at {begin}: retention removed events"
        return Finding("wrong", subject, message, "raise the topic's retention; those events were never applied")
    return None


def _committed(admin: KafkaAdminClient, group: str) -> dict[TopicPartition, int]:
    """Return the group's committed offsets. A fresh broker makes its offsets topic at the first question: asks again."""
    for _ in range(COORDINATOR_TRIES):
        try:
            answer: dict[TopicPartition, Any] = admin.list_group_offsets(group)[group]
        except _NO_COORDINATOR_YET:
            time.sleep(0.25)
            continue
        return {place: entry.offset for place, entry in answer.items() if entry.offset >= 0}
    raise BrokerUnavailable(
        f"No coordinator for group {group!r} yet. Check that offsets.topic.replication.factor fits the brokers"
    )


def _ledgers(settings: Settings) -> Iterator[Finding]:
    """The positions inside the state agree with the group, the log and the settings, as a worker will check them."""
    topology = settings.topics.topology
    with administering(settings) as admin:
        counts = partition_counts(admin, [*topology.sources, settings.topics.changelog])
        if any(counts.get(topic) != topology.partitions for topic in (*topology.sources, settings.topics.changelog)):
            return  # the topics' own findings say so
        committed = _committed(admin, settings.group)  # first: it waits for a fresh broker's coordinator
        if admin.describe_groups([settings.group])[settings.group]["members"]:
            yield Finding("ok", "state", "workers are running: they have checked it as they started")
            return
        inputs = [TopicPartition(topic, number) for topic in topology.sources for number in range(topology.partitions)]
        begins = admin.list_partition_offsets(dict.fromkeys(inputs, OffsetSpec.EARLIEST))
        ends = admin.list_partition_offsets(dict.fromkeys(inputs, OffsetSpec.LATEST))
    ledgers = _last_ledgers(settings)
    expected = Ledger(
        epoch=settings.engine_semantics.epoch, partitions=topology.partitions, sources=topology.sources,
        positions=(), applied=0, watermark_ms=0,
    )  # fmt: skip
    wrong = False
    for number in range(topology.partitions):
        places = [TopicPartition(topic, number) for topic in topology.sources]
        try:
            starting_point(
                ledgers.get(number), expected, [committed.get(place) for place in places],
                [begins[place].offset for place in places], [ends[place].offset for place in places],
                f"partition {number}",
            )  # fmt: skip
        except BadSettings as error:
            wrong = True
            message, _, remedy = str(error).removeprefix(f"partition {number}: ").partition(". ")
            yield Finding("wrong", f"state of partition {number}", message, remedy)
    if not wrong:
        applied = sum(ledger.applied for ledger in ledgers.values())
        yield Finding("ok", "state", f"{applied} records applied; positions agree with the group and the inputs")


def _learners(settings: Settings) -> Iterator[Finding]:
    """Every policy that may price and learns has a learner, as far as its versions tell."""
    with administering(settings) as admin:
        counts = partition_counts(admin, [settings.topics.outcomes, settings.topics.policies])
        if len(counts) < 2:
            return  # the topics' own findings say so
        places = [
            TopicPartition(settings.topics.outcomes, number) for number in range(counts[settings.topics.outcomes])
        ]
        ends = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
    book = read_policy_log(settings).book
    for policy in book.priced_by():
        if not isinstance(policy.rule, LearningRule):
            continue
        subject, last = f"learner of {policy.version}", book.learned.newest(policy.name, policy.number)
        if last is None:
            message = "no version of what it has learned: it prices by what it assumes"
            yield Finding("warning", subject, message, "run `pricetide learn` beside the workers")
            continue
        behind = [ends[place].offset - at for place, at in zip(places, last.positions, strict=False)]
        if len(places) != len(last.positions) or min(behind, default=0) < 0:
            message = f"has learned up to {list(last.positions)}, the topic ends at {[ends[place].offset for place in places]}"
            yield Finding("wrong", subject, message, "the topic was recreated: publish the policy under a new number")
        else:
            message = f"version {last.version}, {last.outcomes} outcomes learned; at most {sum(behind)} records to go"
            yield Finding("ok", subject, message)


def _last_ledgers(settings: Settings) -> dict[int, Ledger]:
    """Return the last ledger of each changelog partition that has one."""
    changelog = settings.topics.changelog
    with reading(settings) as consumer:
        partitions = [TopicPartition(changelog, number) for number in range(settings.topics.partitions)]
        consumer.assign(partitions)
        ends, begins = consumer.end_offsets(partitions), consumer.beginning_offsets(partitions)
        for place in partitions:
            consumer.seek(place, max(begins[place], ends[place] - LEDGER_RECORDS_BACK))
        found: dict[int, Ledger] = {}
        for record in records_until(consumer, ends):
            if record.key == LEDGER_KEY and record.value is not None:
                found[record.partition] = decode_ledger(record.value)
        return found
