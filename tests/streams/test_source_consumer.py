"""streams.source_consumer: what a fetched record still tells when it is not copied, and that nothing is taken for a record."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

import streams.source_consumer  # noqa: F401 - what is under test takes effect on import
from contracts.errors import BrokerUnavailable
from contracts.policies import Policy
from contracts.rules import Thompson
from streams import eraser, lesson_session, reference
from streams.eraser import Sweep
from streams.lesson_session import LessonSession
from streams.reference import References
from streams.settings import Settings, load_settings

PLACE = TopicPartition("views", 3)
ABORTED = 7
"""The producer whose transaction was aborted."""


def batch(offset: int, *records: tuple[bytes | None, bytes | None], producer: int = -1) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, producer >= 0, producer, 0, 0, 10_000)
    for number, (key, value) in enumerate(records):
        builder.append(number, 1_000 + number, key, value, [("arrival_ms", b"5")])
    raw = builder.build()
    raw[:8] = offset.to_bytes(8, "big")  # the broker's, and not in the checksum
    return bytes(raw)


def fetched(raw: bytes, at: int):
    """What aiokafka's fetcher makes of the bytes of a partition: read committed, from offset `at`."""
    return fetcher.PartitionRecords(
        PLACE, MemoryRecords(raw), [(ABORTED, 12)], at, None, None, True, fetcher.READ_COMMITTED
    )


def test_records_come_with_offset_time_key_value_and_headers_and_the_position_follows():
    records = fetched(batch(10, (b"ann", b"1"), (None, None)) + batch(13, (b"bob", b"2")), 10)
    found = [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]
    headers = [("arrival_ms", b"5")]
    assert found == [
        (10, 1_000, b"ann", b"1", headers),
        (11, 1_001, None, None, headers),
        (13, 1_000, b"bob", b"2", headers),
    ]
    assert records.next_fetch_offset == 14


def test_aborted_records_and_those_below_the_position_are_not_taken():
    raw = (
        batch(10, (b"ann", b"1"), (b"ann", b"2"))
        + batch(12, (b"ann", b"3"), producer=ABORTED)
        + batch(13, (b"ann", b"4"))
    )
    assert [record.offset for record in fetched(raw, 11)] == [11, 13]


def test_a_damaged_batch_is_refused():
    raw = bytearray(batch(10, (b"ann", b"1")))
    raw[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        list(fetched(bytes(raw), 10))


class Silent:
    """A consumer that brings nothing, with aiokafka's routines, ended or not."""

    def __init__(self, fetching: asyncio.Task[None], learning: asyncio.Task[None]) -> None:
        self._fetcher = SimpleNamespace(_fetch_task=fetching)
        self._client = SimpleNamespace(_sync_task=learning)

    async def getmany(self, **_: object) -> dict[TopicPartition, list[object]]:
        await asyncio.sleep(0)
        return {}

    async def start(self) -> None:
        pass

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 3)

    async def position(self, _: TopicPartition) -> int:
        return 0

    def last_stable_offset(self, _: TopicPartition) -> int:
        return 3

    def paused(self) -> set[TopicPartition]:
        return set()

    def assign(self, _: list[TopicPartition]) -> None:
        pass

    def pause(self, *_: TopicPartition) -> None:
        pass

    def seek(self, _: TopicPartition, offset: int) -> None:
        pass


def following(settings: Settings, consumer: Silent) -> Coroutine[Any, Any, None]:
    references = References(settings, lambda _: None)
    references._consumer = consumer
    return references.follow()


def reading_references(settings: Settings, _: Silent) -> Coroutine[Any, Any, None]:
    return References(settings, lambda _: None).read_to_end()


def session_with(settings: Settings) -> LessonSession:
    room: Any = SimpleNamespace(settings=settings)
    return LessonSession(room, Policy(name="demand", number=1, rule=Thompson()))


async def learning(settings: Settings, _: Silent) -> None:
    session: Any = session_with(settings)
    session._open = lambda: asyncio.sleep(0)
    await session.run()


async def recalling(settings: Settings, _: Silent) -> None:
    session: Any = session_with(settings)
    session._lessons, session._firsts = SimpleNamespace(positions=[3], begins=[0]), [0]
    await session._recall()


async def sweeping(settings: Settings, _: Silent) -> None:
    await Sweep(settings, 0, {}).read_to_end(0.0)


@pytest.mark.parametrize("reader", [following, reading_references, learning, recalling, sweeping])
@pytest.mark.parametrize("ended", [(True, False), (False, True)], ids=["fetching", "knowing leaders"])
async def test_a_consumer_whose_routine_has_ended_is_not_waited_for(tmp_path, monkeypatch, ended, reader):
    """The trap: it hands out nothing any more, and a kill switch, or every event or outcome, would go unread."""
    settings = load_settings(data_dir=tmp_path, **{"semantics.consent_default": True, "topics.partitions": 1})
    routines = [asyncio.create_task(asyncio.sleep(0 if end else 60)) for end in ended]
    await asyncio.sleep(0.01)
    consumer = Silent(*routines)
    for module in (reference, eraser):
        monkeypatch.setattr(module, "AIOKafkaConsumer", lambda **_: consumer)
    monkeypatch.setattr(lesson_session, "source_consumer", lambda _: consumer)
    monkeypatch.setattr(lesson_session, "VersionWriter", lambda *_: None)
    with pytest.raises(BrokerUnavailable, match="given up fetching"):
        async with asyncio.timeout(1):
            await reader(settings, consumer)
    for one in routines:
        one.cancel()
