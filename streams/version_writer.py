"""Writing what a policy has learned: version, pointer, removals of outlived versions and the group's offsets, in one
transaction. One writer per policy: who opens it fences whoever had it, and has the broker abort what that one left open.

A version outlives the decisions that name it: it may go when the next one has been on the topic for longer than decisions are
kept. Not here: what a version says (pricing.lessons).
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka_errors

from contracts.errors import BrokerUnavailable
from contracts.learned import CurrentLearned, Learned
from contracts.policies import Policy, encode_policy, policy_key
from streams.commit import HEADERS
from streams.policy_log import PolicyLog
from streams.policy_publisher import learner_id
from streams.producer import Record, named_producer, send_records
from streams.settings import Settings

TRANSACTION_TIMEOUT_MS = 5_000
"""How long a learner that died half way may hide later policies, and the kill switch, from readers of committed records."""
DAY_MS = 86_400_000
KEPT_AT_LEAST = 2
_FENCED = (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch, kafka_errors.InvalidProducerIdMapping)


class VersionWriter:
    """The writer of one policy's versions."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self._topics = settings.topics
        self._policy = policy
        self._name = learner_id(settings, policy)
        self._timeout_s = (TRANSACTION_TIMEOUT_MS + settings.kafka.request_timeout_ms) / 1000
        keep_ms = settings.learner.keep_ms
        self._keep_ms = settings.topics.decisions_retention_ms + DAY_MS if keep_ms is None else keep_ms
        self._producer: AIOKafkaProducer = named_producer(settings, self._name, TRANSACTION_TIMEOUT_MS)
        self._published: list[tuple[Learned | CurrentLearned, int]] = []

    async def open(self) -> None:
        """Fence whoever wrote before."""
        async with asyncio.timeout(self._timeout_s):
            await self._producer.start()

    def know(self, log: PolicyLog) -> None:
        """Take from what lies on the topic which versions there are, and since when."""
        name = self._policy.name, self._policy.number
        known = {entry.record.version: (entry.record, entry.time_ms) for entry in log.entries
                 if isinstance(entry.record, Learned) and (entry.record.name, entry.record.number) == name}  # fmt: skip
        self._published = [known[version] for version in sorted(known)]

    async def publish(self, record: Learned, now_ms: int) -> None:
        """Commit a version at Unix time `now_ms`, with the positions up to which it has learned.

        Raises:
            BrokerUnavailable: another learner writes this policy's versions now; nothing was published.
        """
        try:
            async with asyncio.timeout(self._timeout_s):  # aiokafka retries a transaction without end
                await self._commit(record, self._outlived(now_ms))
        except _FENCED:
            raise BrokerUnavailable(
                f"Another learner has taken over what {record.policy} learns (fenced): run one learner per policy; starting "
                "again fences that one"
            ) from None
        self._published.append((record, now_ms))

    async def _commit(self, record: Learned, outlived: list[bytes]) -> None:
        pointer = CurrentLearned(name=record.name, number=record.number, version=record.version)
        records: list[Record] = [(policy_key(one), encode_policy(one)) for one in (record, pointer)]
        records += [(key, None) for key in outlived]
        places = enumerate(record.positions)
        positions = {TopicPartition(self._topics.outcomes, partition): at for partition, at in places}
        await self._producer.begin_transaction()
        sent = await send_records(self._producer, self._topics.policies, 0, records, HEADERS)
        await self._producer.send_offsets_to_transaction(positions, self._name)
        await sent.last_offset()
        await self._producer.commit_transaction()
        del self._published[: len(outlived)]

    def _outlived(self, now_ms: int) -> list[bytes]:
        """Return the keys of the versions that no decision on its topic can name any more, oldest first."""
        count = 0
        while count < len(self._published) - KEPT_AT_LEAST and self._published[count + 1][1] < now_ms - self._keep_ms:
            count += 1
        return [policy_key(one) for one, _ in self._published[:count]]

    async def stop(self) -> None:
        """Let go."""
        await self._producer.stop()
