"""Recovery: bring a partition's store to the end of its changelog. Straight code, one task a partition, batches throughout.

When is it over? With read_committed the last record of a changelog is a control record that nobody sees, so neither
offsets nor positions tell. The new owner's transactional producer, which has just fenced the old one, commits a *marker*
to the changelog; nothing of an older owner can come after it; recovery reads up to that record.
"""

from __future__ import annotations

from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.closing import stop
from streams.ledger import LEDGER_KEY, MARKER_KEY, decode_ledger
from streams.producer import send_records
from streams.settings import Settings
from streams.source_consumer import fetch
from streams.store import StateStore

FETCH_BYTES_MAX = 4 << 20


async def commit_marker(producer: AIOKafkaProducer, changelog: str, partition: int) -> int:
    """Commit a marker record to the changelog and return its offset."""
    await producer.begin_transaction()
    sent = await send_records(producer, changelog, partition, [(MARKER_KEY, b"")], [])
    offset = await sent.last_offset()
    await producer.commit_transaction()
    return offset


async def restore(
    settings: Settings, partition: int, store: StateStore, marker: int, progress: Callable[[int], None]
) -> int:
    """Apply the changelog from behind the store's offset up to `marker`; return the number of records applied.

    A store that is ahead of its changelog, or turns out to be of another lineage, belongs to another one (recreated, or another
    cluster's): it is wiped, and everything is read. Nothing that names the other lineage is written before that: a process that
    is killed in between finds the store as strange as before.

    Args:
        settings: where the changelog is.
        partition: which of its partitions.
        store: brought up to date; holds every record at or below `marker` afterwards.
        marker: offset that commit_marker returned.
        progress: called with the number of offsets still to go.
    """
    if store.changelog_offset > marker:
        store.wipe()
    place = TopicPartition(settings.topics.changelog, partition)
    consumer = AIOKafkaConsumer(
        **settings.kafka.consumer(),
        group_id=None,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        request_timeout_ms=settings.kafka.request_timeout_ms,
    )
    await consumer.start()
    try:
        consumer.assign([place])
        consumer.seek(place, store.changelog_offset + 1)
        return await _apply(consumer, place, store, marker, progress)
    finally:
        await stop(consumer)


def _lineage(ledger: bytes | None, without: str | None) -> str | None:
    """Return which changelog a ledger is of, `without` where there is no ledger."""
    return without if ledger is None else decode_ledger(ledger).lineage


async def _apply(
    consumer: AIOKafkaConsumer, place: TopicPartition, store: StateStore, marker: int, progress: Callable[[int], None]
) -> int:
    count = 0
    reached = store.changelog_offset
    lineage = _lineage(store.ledger, None)
    while reached < marker:
        try:
            records = (await fetch(consumer, place, timeout_ms=1000)).get(place, ())
        except (
            OffsetOutOfRangeError
        ):  # records before the beginning were compacted or deleted: begin where the log begins
            consumer.seek(place, (await consumer.beginning_offsets([place]))[place])
            continue
        if records:
            reached = records[-1].offset
            latest = {record.key: record.value for record in records}  # a busy user has many; RocksDB need only see one
            if lineage is not None and _lineage(latest.get(LEDGER_KEY), lineage) != lineage:
                store.wipe()
                consumer.seek(place, 0)
                count, reached, lineage = 0, store.changelog_offset, None
                continue
            store.write(latest.items(), reached)
            count += len(records)
            progress(max(0, marker - reached))
    return count
