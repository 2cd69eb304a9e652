"""The transactional producer of one partition, and how record batches are sent with it.

aiokafka's producer with its waits shortened: with the defaults the next transaction sleeps 20 to 100 ms while the broker
still writes the markers of the last one (ConcurrentTransactions), which is most of the latency of a price.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, repeat
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.producer import sender

from contracts.errors import BrokenInvariant
from streams.settings import Settings

RETRY_BACKOFF_MS = 5
CONCURRENT_TRANSACTIONS_BACKOFF_S = 0.002
BATCH_BYTES_MAX = 900_000
"""Below the broker's message.max.bytes (1,048,588)."""
REQUEST_BYTES_MAX = 8 << 20

Headers = list[tuple[str, bytes]]
Record = tuple[bytes | None, bytes | None]
Headed = tuple[Record, Headers]
"""A record, as (key, value), with headers of its own."""

sender.BACKOFF_OVERRIDE = CONCURRENT_TRANSACTIONS_BACKOFF_S


def transactional_producer(settings: Settings, partition: int) -> AIOKafkaProducer:
    """Return the producer of `partition`; starting it fences every earlier owner and aborts what one left open."""
    return named_producer(settings, f"{settings.group}-{partition}", settings.transaction_timeout_ms)


def named_producer(settings: Settings, name: str, transaction_timeout_ms: int) -> AIOKafkaProducer:
    """Return the producer with the transactional id `name`; starting it fences whoever had it."""
    return AIOKafkaProducer(
        **settings.kafka.client(),
        client_id=name,
        transactional_id=name,
        transaction_timeout_ms=transaction_timeout_ms,
        request_timeout_ms=settings.kafka.request_timeout_ms,
        acks="all",
        linger_ms=0,
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=REQUEST_BYTES_MAX,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        compression_type=settings.kafka.compression,
    )


class Sent:
    """Batches on their way to one topic partition."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: list[tuple[asyncio.Future[Any], int]] = []

    def add(self, future: asyncio.Future[Any], count: int) -> None:
        """Note a batch of `count` records."""
        self._futures.append((future, count))

    async def last_offset(self) -> int:
        """Wait for the broker's word on every batch and return the offset of the last record, -1 if there was none.

        Raises:
            KafkaError: the broker refused a batch.
        """
        offset = -1
        for future, count in self._futures:
            offset = (await future).offset + count - 1
        return offset


def with_headers(records: Iterable[Record], headers: Headers) -> Iterator[Headed]:
    """Yield `records` with one set of headers for all."""
    return zip(records, repeat(headers))


async def send_records(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[Record], headers: Headers
) -> Sent:
    """Send records with one set of headers to one topic; as `send_side_by_side`."""
    return (await send_side_by_side(producer, partition, [(topic, with_headers(records, headers))]))[0]


async def send_side_by_side(
    producer: AIOKafkaProducer, partition: int, flows: Iterable[tuple[str, Iterable[Headed]]]
) -> list[Sent]:
    """Send records to several topics, in order within each, in as few requests as fit; about 1 µs a record.

    aiokafka queues one batch per topic partition and sends what is queued in one request, then the next. So the topics take
    turns, a batch each: one topic after the other would be as many requests as there are batches, each a round trip.

    Args:
        producer: in a transaction, if it is transactional.
        partition: of all the topics.
        flows: topics, each once, with their records.

    Returns:
        What is on its way to each topic, in the order of `flows`; the last batches may not even have left.

    Raises:
        BrokenInvariant: a record is larger than a batch; every producer of records bounds them below that.
    """
    sent: list[Sent] = []
    turns = deque[tuple[str, Iterator[tuple[Any, int]], Sent]]()
    for topic, records in flows:
        sent.append(Sent())
        turns.append((topic, _batches(producer, topic, records), sent[-1]))
    while turns:
        topic, batches, of_topic = turns.popleft()
        for builder, count in islice(batches, 1):
            builder.close()
            of_topic.add(await producer.send_batch(builder, topic, partition=partition), count)
            turns.append((topic, batches, of_topic))
    return sent


def _batches(producer: AIOKafkaProducer, topic: str, records: Iterable[Headed]) -> Iterator[tuple[Any, int]]:
    """Yield full batch builders and the number of records in each; the next is filled when it is asked for."""
    builder, count = producer.create_batch(), 0
    append = builder.append
    for (key, value), headers in records:
        if append(timestamp=None, key=key, value=value, headers=headers) is None:
            if count:
                yield builder, count
            builder, count = producer.create_batch(), 0
            append = builder.append
            if append(timestamp=None, key=key, value=value, headers=headers) is None:
                raise BrokenInvariant(
                    f"A record of {len(value or b'')} bytes for {topic} exceeds a batch of {BATCH_BYTES_MAX}"
                )
        count += 1
    if count:
        yield builder, count
