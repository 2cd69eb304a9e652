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

from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaProducer, TopicPartition

from contracts.errors import BadEvent
from contracts.intake import Inbound
from contracts.prices import SCHEMA_VERSION
from features.state import expired_bytes
from pricing.engine import Isolated, Step
from streams.dead_letters import dead_letter
from streams.ledger import LEDGER_KEY, Ledger, encode_ledger
from streams.producer import Sent, send_records
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
        changelog = await self._send(step, states)
        await self._send_offsets(ledger)
        offset = await changelog.last_offset()
        await self._end()
        self._write(states, offset)

    async def erase(self, keys: Mapping[str, Iterable[bytes]], states: list[StateRecord]) -> None:
        """Take back what was published under `keys`, by topic, and write `states`; in one transaction, too."""
        await self._begin()
        for topic, of_topic in keys.items():
            tombstones = [(key, None) for key in of_topic]
            await send_records(self._producer, topic, self.partition, tombstones, HEADERS)
        changelog = await send_records(self._producer, self._topics.changelog, self.partition, states, [])
        offset = await changelog.last_offset()
        await self._end()
        self._write(states, offset)

    async def _begin(self) -> None:
        await self._producer.begin_transaction()

    async def _send(self, step: Step, states: list[StateRecord]) -> Sent:
        producer, topics, partition = self._producer, self._topics, self.partition
        if step.prices:
            await send_records(producer, topics.price_updates, partition, step.prices, HEADERS)
        if step.decisions:
            await send_records(producer, topics.decisions, partition, step.decisions, HEADERS)
        if step.outcomes:
            await send_records(producer, topics.outcomes, partition, step.outcomes, HEADERS)
        if step.shadows:
            await send_records(producer, topics.shadow_decisions, partition, step.shadows, HEADERS)
        for inbound, error in step.dead:
            await self._send_dead(inbound, error)
        return await send_records(producer, topics.changelog, partition, states, [])

    async def _send_dead(self, inbound: Inbound, error: BadEvent) -> None:
        source = self._topics.topology.sources[inbound.source]
        traceback = self._isolated.get((inbound.source, inbound.offset), "")
        key, value, headers = dead_letter(
            inbound, error, source, self.partition, self._dead_letter_bytes_max, traceback=traceback
        )
        await send_records(self._producer, self._topics.dead_letters, self.partition, [(key, value)], headers)

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
        self.store.write(states, offset)
