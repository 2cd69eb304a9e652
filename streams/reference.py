"""What is the same for all users: catalogue and policies, read whole before the first event, then followed.

Outside the group: every worker reads both topics (one partition each). A record is applied as it arrives, on the event
loop, and a step over a batch never awaits: so both change between batches only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from contracts.catalogue import Catalogue
from contracts.errors import REFUSED
from contracts.policies import PolicyBook
from streams.closing import stop
from streams.settings import Settings
from streams.source_consumer import fetch

logger = logging.getLogger(__name__)
POLL_MS = 500


class References:
    """Catalogue and policies, kept up to date from their topics."""

    def __init__(self, settings: Settings, refused: Callable[[str], None], *, catalogue: bool = True) -> None:
        """Prepare; `refused` is called with the topic of a record that cannot be used, `catalogue=False` leaves that out."""
        self.catalogue = Catalogue(settings.engine_semantics.currency)
        self.policies = PolicyBook()
        self.ready = asyncio.Event()
        self._applied = asyncio.Event()
        self._settings = settings
        self._refused = refused
        self._catalogue_place = TopicPartition(settings.topics.catalogue, 0)
        self._policies_place = TopicPartition(settings.topics.policies, 0)
        self._places = [self._catalogue_place, self._policies_place] if catalogue else [self._policies_place]
        self._consumer: AIOKafkaConsumer | None = None

    async def read_to_end(self) -> None:
        """Read both topics from their beginning to their present end."""
        self._consumer = consumer = AIOKafkaConsumer(
            **self._settings.kafka.consumer(),
            group_id=None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=self._settings.kafka.request_timeout_ms,
        )
        await consumer.start()
        places = self._places
        consumer.assign(places)
        for place, beginning in (await consumer.beginning_offsets(places)).items():
            consumer.seek(place, beginning)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            self._apply(await fetch(consumer, timeout_ms=POLL_MS))
        self.ready.set()
        logger.info("read %d catalogue items, policy %s", len(self.catalogue), self.policies.current.version)

    async def follow(self) -> None:
        """Apply what arrives, for ever."""
        while self._consumer is not None:
            self._apply(await fetch(self._consumer, timeout_ms=POLL_MS))
            self._applied.set()

    async def caught_up(self) -> None:
        """Wait until `follow`, which runs beside, has applied everything that is committed now."""
        consumer = self._consumer
        assert consumer is not None
        ends = await consumer.end_offsets(self._places)
        reached = False
        while not reached:  # once more after the positions are there: they move before what they stand for is applied
            reached = all([await consumer.position(place) >= end for place, end in ends.items()])
            self._applied.clear()
            await self._applied.wait()

    async def close(self) -> None:
        """Stop reading."""
        await stop(self._consumer)

    def _apply(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        for place, records in fetched.items():
            book = self.catalogue if place == self._catalogue_place else self.policies
            for record in records:
                self._apply_one(book, place.topic, record)

    def _apply_one(self, book: Catalogue | PolicyBook, topic: str, record: ConsumerRecord) -> None:
        try:
            book.apply(record.offset, record.key, record.value)
        except REFUSED as error:
            # Every worker reads this topic, so none can dead-letter it: what held before holds on, and the alarm rings.
            logger.error("refused %s offset %d: %s; publish a corrected record", topic, record.offset, error)
            self._refused(topic)
