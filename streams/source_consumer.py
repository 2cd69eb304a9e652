"""The consumers of a session: one for its sources, and one that asks for the group's offsets without joining the group.

Records that aiokafka has decoded are handed out as they are, in every consumer of the process: offset, timestamp, key, value and
headers, but no topic and no partition, which the place under which they come tells. Copying each into a ConsumerRecord is half
of the time that a fetched record costs (decision 0026).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer import fetcher

from contracts.errors import BrokerUnavailable
from streams.closing import stop
from streams.settings import Settings

FETCH_BYTES_MAX = 1 << 20
FETCH_WAIT_MS = 500


class PlainRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """What a fetch brought of one partition: aborted transactions, control records and checksums are aiokafka's business."""

    def _consumer_record(self, _: TopicPartition, record: Any) -> Any:  # noqa: ANN401 - aiokafka's DefaultRecord
        return record


fetcher.PartitionRecords = PlainRecords


def source_consumer(settings: Settings) -> AIOKafkaConsumer:
    """Return a consumer of committed records, not started, in no group, to be assigned and sought by its owner."""
    return AIOKafkaConsumer(
        **settings.kafka.consumer(),
        group_id=None,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",  # a position that the log does not have is an error, never a silent jump
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        request_timeout_ms=settings.kafka.request_timeout_ms,
    )


async def fetch(
    consumer: AIOKafkaConsumer, *places: TopicPartition, timeout_ms: int, max_records: int | None = None
) -> dict[TopicPartition, list[ConsumerRecord]]:
    """Return what `AIOKafkaConsumer.getmany` returns, nothing only where nothing came in time.

    The trap: aiokafka's routine that fetches, and the one that learns who leads a partition, may end for good; that is written
    to the log and told nobody, and the consumer hands out nothing any more, which looks like a topic at its end.

    Raises:
        BrokerUnavailable: one of the two has ended.
    """
    fetched: dict[TopicPartition, list[ConsumerRecord]]
    fetched = await consumer.getmany(*places, timeout_ms=timeout_ms, max_records=max_records)
    if not fetched and (consumer._fetcher._fetch_task.done() or consumer._client._sync_task.done()):
        raise BrokerUnavailable(
            "A Kafka client has given up fetching for good; a supervisor should start the process again"
        )
    return fetched


async def group_offsets(settings: Settings, places: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
    """Return the group's committed offsets of `places`; those it has none of are left out."""
    wanted = list(places)
    asker = AIOKafkaConsumer(**settings.kafka.client(), group_id=settings.group, enable_auto_commit=False)
    await asker.start()
    try:
        asker.assign(wanted)
        offsets = {place: await asker.committed(place) for place in wanted}
    finally:
        await stop(asker)
    return {place: offset for place, offset in offsets.items() if offset is not None}
