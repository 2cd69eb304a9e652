"""The commit: one Kafka transaction per batch and partition, then one RocksDB WriteBatch.

Price updates, decisions, outcomes, shadow decisions, dead letters, changelog (states, pending draws, tombstones, ledger) and
source offsets become visible together or not at all. The steps, in the only order that is safe:

    1 begin     nothing is visible yet
    2 send      records go out inside the transaction; the ledger is the last record of the changelog
    3 offsets   the source positions join the transaction
    4 end       the broker has them all; from here on the batch has happened
    5 write     RocksDB follows; a kill before it is healed by recovery, which reads step 2's changelog

Erasures (streams.eraser) take the same steps, but for the offsets. A kill between any two of them is a test (tests/faults).
A fenced producer raises: another worker owns the partition now.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaProducer, TopicPartition

from contracts.errors import BadEvent
from contracts.intake import Inbound
from contracts.prices import SCHEMA_VERSION
from features.state import expired_bytes
from pricing.engine import Isolated, Step
from streams.dead_letters import dead_letter
from streams.ledger import LEDGER_KEY, Ledger, encode_ledger
from streams.producer import Headed, Sent, send_side_by_side, with_headers
from streams.settings import Settings
from streams.store import StateStore

HEADERS = [("schema-version", SCHEMA_VERSION.encode())]
StateRecord = tuple[bytes, bytes | None]


class Commit:
    """Commits the batches of one partition."""

    def __init__(
        self, settings: Settings, partition: int, producer: AIOKafkaProducer, store: StateStore, isolated: Isolated
    ) -> None:
        self._topics = settings.topics
        self._group = settings.group
        self._dead_letter_bytes_max = settings.dead_letter_bytes_max
        self.partition = partition
        self.store = store
        self.write_s = 0.0
        """Seconds that RocksDB took for the last write."""
        self._producer = producer
        self._isolated = isolated
        self._sent_positions: tuple[int, ...] = (-1,) * len(settings.topics.topology.sources)

    async def commit(self, step: Step, ledger: Ledger, expired: Iterable[tuple[bytes, bytes]]) -> None:
        """Make the batch happen: what `step` says, up to the positions of `ledger`; `expired` users go, but for consent."""
        states: list[StateRecord] = [(key, expired_bytes(value)) for key, value in expired if key not in step.states]
        states += step.erased.items()
        states += step.states.items()
        states += step.pending.items()
        states.append((LEDGER_KEY, encode_ledger(ledger)))
        await self._begin()
        sent = await self._send(step, states)
        await self._send_offsets(ledger)
        offset = await self._acknowledged(sent)
        await self._end()
        self._write(states, offset)

    async def erase(self, keys: Mapping[str, Iterable[bytes]], states: list[StateRecord]) -> None:
        """Take back what was published under `keys`, by topic, and write `states`; in one transaction, too."""
        await self._begin()
        flows = [(topic, with_headers([(key, None) for key in of_topic], HEADERS)) for topic, of_topic in keys.items()]
        flows.append((self._topics.changelog, with_headers(states, [])))
        offset = await self._acknowledged(await send_side_by_side(self._producer, self.partition, flows))
        await self._end()
        self._write(states, offset)

    async def _begin(self) -> None:
        await self._producer.begin_transaction()

    async def _send(self, step: Step, states: list[StateRecord]) -> list[Sent]:
        topics = self._topics
        flows = [
            (topics.price_updates, with_headers(step.prices, HEADERS)),
            (topics.decisions, with_headers(step.decisions, HEADERS)),
            (topics.outcomes, with_headers(step.outcomes, HEADERS)),
            (topics.shadow_decisions, with_headers(step.shadows, HEADERS)),
            (topics.dead_letters, map(self._dead_letter, step.dead)),
            (topics.changelog, with_headers(states, [])),
        ]
        return await send_side_by_side(self._producer, self.partition, flows)

    def _dead_letter(self, dead: tuple[Inbound, BadEvent]) -> Headed:
        inbound, error = dead
        source = self._topics.topology.sources[inbound.source]
        traceback = self._isolated.get((inbound.source, inbound.offset), "")
        key, value, headers = dead_letter(
            inbound, error, source, self.partition, self._dead_letter_bytes_max, traceback=traceback
        )
        return (key, value), headers

    @staticmethod
    async def _acknowledged(sent: list[Sent]) -> int:
        """Wait for the broker's word on every batch, and return the offset of the last record of the last topic.

        Of every topic, for a transaction can be ended although the broker has refused a part of it.
        """
        offset = -1
        for of_topic in sent:
            offset = await of_topic.last_offset()
        return offset

    async def _send_offsets(self, ledger: Ledger) -> None:
        """Send the positions that have moved; the first time all of them, so that the group has every one."""
        moved = {
            TopicPartition(source, self.partition): position
            for source, position, before in zip(ledger.sources, ledger.positions, self._sent_positions, strict=True)
            if position != before
        }
        await self._producer.send_offsets_to_transaction(moved, self._group)
        self._sent_positions = ledger.positions

    async def _end(self) -> None:
        await self._producer.commit_transaction()

    def _write(self, states: list[StateRecord], offset: int) -> None:
        begun = time.perf_counter()
        self.store.write(states, offset)
        self.write_s = time.perf_counter() - begun
