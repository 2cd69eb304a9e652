"""`pricetide worker`: run a worker; `pricetide offsets`: mend the group's offsets by hand."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import click
import msgspec
from kafka import KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import NoError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

from contracts.errors import BadSettings
from streams.broker import administering, broker_errors, committed_records, partitions_of, require_topics, stable_ends
from streams.ledger import LEDGER_KEY, Ledger, decode_ledger, encode_ledger
from streams.options import with_settings
from streams.settings import Settings
from streams.topics import plan

REFUSED_PAUSE_S = 0.5
REFUSED_SLACK_S = 5.0


@click.command()
@with_settings
def worker(settings: Settings) -> None:
    """Consume events, publish prices; run until SIGTERM.

    Exit codes: 0 stopped by a signal, 70 a bug, 75 worth another try (broker gone, fenced), 78 settings.
    """
    settings.engine_semantics  # noqa: B018 - refuse wrong semantics before the broker is asked for anything
    require_partitions(settings)
    _lock(settings.data_dir)
    from streams.app import build_app, run_app  # takes a second, which whoever is refused need not wait

    run_app(build_app(settings), settings)


def _lock(data_dir: Path) -> None:
    """Hold the data directory until the process ends.

    Raises:
        BadSettings: another worker holds it, or it cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(data_dir / "worker.lock", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadSettings(
            f"The data directory {data_dir} is locked by another process: give each worker a --data-dir of its own"
        ) from None
    except OSError as error:
        raise BadSettings(
            f"The data directory {data_dir} cannot be used: {error.strerror}. Correct --data-dir"
        ) from None


def require_partitions(settings: Settings) -> None:
    """Refuse to start on topics that are missing, have other partition counts than the settings say, or are two in one.

    Raises:
        BadSettings: which topic, what it has, what to do.
        BrokerUnavailable: no answer.
    """
    expected = {topic.name: topic for topic in plan(settings)}
    counts = require_topics(settings, expected)
    for topic in expected.values():
        if counts[topic.name] != topic.partitions and topic.role not in ("catalogue", "policies"):
            raise BadSettings(
                f"Topic {topic.name} has {counts[topic.name]} partitions, the settings say {topic.partitions}: inputs, outputs "
                "and changelog must have equal counts, and a topic that was repartitioned has its users on other partitions. Set "
                "topics.partitions back, or start anew with topics, changelog and --group of that count"
            )
    _require_one_partition(
        settings, {name: counts[name] for name in (settings.topics.catalogue, settings.topics.policies)}
    )


def _require_one_partition(settings: Settings, counts: dict[str, int]) -> None:
    """Refuse references with records that no worker reads. Further partitions do no harm while they are empty."""
    beyond = [place for place in partitions_of(counts) if place.partition > 0]
    if not beyond:
        return
    with administering(settings) as admin:
        ends = stable_ends(admin, beyond)
    for place, end in sorted(ends.items()):
        if end > 0:
            raise BadSettings(
                f"Topic {place.topic} has {counts[place.topic]} partitions, and records on partition {place.partition}, which no "
                "worker reads: recreate it with one partition, its order is its meaning, and publish them again"
            )


@click.group()
def offsets() -> None:
    """Mend the group's offsets; stop every worker first."""


@offsets.command()
@with_settings
def repair(settings: Settings) -> None:
    """Set the group's offsets to the positions that the state includes."""
    set_group(settings, _ledgers(settings))


@offsets.command()
@click.option("--yes", is_flag=True, help="Do it; without, only say what would be skipped.")
@with_settings
def skip(settings: Settings, yes: bool) -> None:
    """Go on without the events that retention removed before they were applied: moves state and group behind them."""
    ledgers = _ledgers(settings)
    moved = _behind_the_gap(settings, ledgers)
    for partition, ledger in sorted(moved.items()):
        for source, old, new in zip(ledger.sources, ledgers[partition].positions, ledger.positions, strict=True):
            if new > old:
                click.echo(f"{source}/{partition}: skips {new - old} events, from {old} to {new}")
    if not moved:
        click.echo("nothing to skip: every position is still in its topic")
    elif yes:
        for partition, ledger in moved.items():
            _write_ledger(settings, partition, ledger)
        set_group(settings, ledgers | moved)
    else:
        click.echo("nothing was changed; say --yes to skip them")


def _behind_the_gap(settings: Settings, ledgers: dict[int, Ledger]) -> dict[int, Ledger]:
    """Return the ledgers that must move, moved to the beginning of what is left."""
    moved = {}
    with administering(settings) as admin:
        for partition, ledger in ledgers.items():
            places = [TopicPartition(source, partition) for source in ledger.sources]
            firsts = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
            positions = tuple(
                max(position, firsts[place].offset) for place, position in zip(places, ledger.positions, strict=True)
            )
            if positions != ledger.positions:
                moved[partition] = msgspec.structs.replace(ledger, positions=positions)
    return moved


def _write_ledger(settings: Settings, partition: int, ledger: Ledger) -> None:
    """Write a ledger in place of the workers, fenced like one of them."""
    with broker_errors(settings.kafka):
        producer = KafkaProducer(**settings.kafka.kafka_python(), transactional_id=f"{settings.group}-{partition}")
        try:
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(settings.topics.changelog, encode_ledger(ledger), LEDGER_KEY, partition=partition)
            producer.commit_transaction()
        finally:
            producer.close()


def _ledgers(settings: Settings) -> dict[int, Ledger]:
    """Return the last ledger of every partition that has one, from the changelog."""
    found = {}
    for record in committed_records(settings, [settings.topics.changelog]):
        if record.key == LEDGER_KEY:
            found[record.partition] = decode_ledger(record.value)
    return found


def set_group(settings: Settings, ledgers: dict[int, Ledger]) -> None:
    """Commit the positions of `ledgers` as the group's offsets, and say so."""
    if not ledgers:
        raise BadSettings(f"The changelog {settings.topics.changelog} holds no state: there is nothing to repair")
    positions = {
        TopicPartition(source, partition): OffsetAndMetadata(position, "", -1)
        for partition, ledger in ledgers.items()
        for source, position in zip(ledger.sources, ledger.positions, strict=True)
    }
    _alter_group(settings, positions)
    for place, at in sorted(positions.items()):
        click.echo(f"{place.topic}/{place.partition}: {at.offset}")


def _alter_group(settings: Settings, positions: dict[TopicPartition, OffsetAndMetadata]) -> None:
    """Commit `positions`; the group refuses while it has members, also one that has just ended without a farewell."""
    ends_at = time.monotonic() + settings.session_timeout_ms / 1000 + REFUSED_SLACK_S
    with administering(settings) as admin:
        while True:
            answers = admin.alter_group_offsets(settings.group, positions)
            refused = {error for error in answers.values() if error is not NoError}
            if not refused:
                return
            if refused != {UnknownMemberIdError} or time.monotonic() > ends_at:
                raise BadSettings(
                    f"The broker refused offsets of group {settings.group!r}: {', '.join(e.__name__ for e in refused)}. "
                    "Stop every worker of the group, then try again"
                )
            time.sleep(REFUSED_PAUSE_S)
