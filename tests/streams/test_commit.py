"""The commit: its steps in the only safe order, whatever the broker takes its time for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced

from contracts.errors import BrokenInvariant
from contracts.intake import Inbound, refuse
from features.state import UserState, encode_state
from pricing.engine import PartitionState, Step
from streams.commit import Commit
from streams.ledger import LEDGER_KEY, Ledger, decode_ledger
from streams.producer import BATCH_BYTES_MAX, send_records, send_side_by_side
from streams.settings import load_settings

LEDGER = Ledger(epoch=0, partitions=1, sources=("consents", "views", "clicks", "purchases"), positions=(1, 2, 3, 4),
                applied=10, watermark_ms=5)  # fmt: skip
DEAD = Inbound(-1, 1, 7, None, refuse("null_value", "The record has no value"), b"ann", None, 0)
STEP = Step(states={b"ann": b"state"}, prices=[(b"p", b"1")], decisions=[(b"d", b"2"), (b"d", b"3")],
            dead=[(DEAD, DEAD.error)], partition=PartitionState(10, 5), counts={}, outcomes=[(b"o", b"4")], shadows=[(b"s", b"5")],
            pending={b"resolved": None, b"drawn": b"pending"})  # fmt: skip


class Builder:
    """Stands for aiokafka's: a batch of at most BATCH_BYTES_MAX bytes of values."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes]] = []
        self.headers: dict[bytes, Any] = {}
        self.size = 0

    def append(self, *, timestamp: None, key: bytes, value: bytes, headers: Any) -> object | None:
        if self.size + len(value or b"") > BATCH_BYTES_MAX:
            return None
        self.size += len(value or b"")
        self.records.append((key, value))
        if headers:
            self.headers[key] = headers
        return object()

    def close(self) -> None:
        pass


class Producer:
    """Notes what is asked of it; `acks` is what the broker says to batches."""

    def __init__(self, acks: asyncio.Future[Any] | None = None, refused: str = "") -> None:
        self.calls: list[Any] = []
        self.headers: dict[bytes, Any] = {}
        self.acks = acks
        self.refused = refused

    def create_batch(self) -> Builder:
        return Builder()

    async def send_batch(self, builder: Builder, topic: str, partition: int) -> asyncio.Future[Any]:
        self.calls.append((topic, [key for key, _ in builder.records]))
        self.last = builder.records
        self.headers |= builder.headers
        if topic == self.refused:
            refusal = asyncio.get_running_loop().create_future()
            refusal.set_exception(MessageSizeTooLargeError())
            return refusal
        if self.acks is not None:
            return self.acks
        done = asyncio.get_running_loop().create_future()
        done.set_result(SimpleNamespace(offset=40))
        return done

    async def begin_transaction(self) -> None:
        self.calls.append("begin")

    async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
        self.calls.append(("offsets", group, [(place.topic, at) for place, at in offsets.items()]))

    async def commit_transaction(self) -> None:
        self.calls.append("end")


class Store:
    def __init__(self, producer: Producer) -> None:
        self.producer = producer

    def write(self, items: Any, offset: int) -> None:
        self.producer.calls.append(("write", [key for key, _ in items], offset))


def commit_with(producer: Producer) -> Commit:
    return Commit(load_settings(group="g"), 0, producer, Store(producer), {})  # type: ignore[arg-type]


async def test_the_steps_come_in_the_only_safe_order():
    producer = Producer()
    await commit_with(producer).commit(STEP, LEDGER, [(b"gone", encode_state(UserState()))])
    assert producer.calls == [
        "begin",
        ("price-updates", [b"p"]),
        ("decisions", [b"d", b"d"]),
        ("outcomes", [b"o"]),
        ("shadow-decisions", [b"s"]),
        ("dead-letters", [b'["ann","views/0/7"]']),
        ("pricetide-changelog", [b"gone", b"ann", b"resolved", b"drawn", LEDGER_KEY]),
        ("offsets", "g", [("consents", 1), ("views", 2), ("clicks", 3), ("purchases", 4)]),
        "end",
        ("write", [b"gone", b"ann", b"resolved", b"drawn", LEDGER_KEY], 44),
    ]
    assert dict(producer.last)[b"gone"] is None, "an expired user leaves a tombstone"
    assert dict(producer.last)[b"resolved"] is None, "and so does a draw that has resolved"
    assert decode_ledger(dict(producer.last)[LEDGER_KEY]) == LEDGER


async def test_the_seconds_of_the_write_are_known_apart(monkeypatch):
    clock = SimpleNamespace(perf_counter=lambda: clock.now, now=100.0)
    monkeypatch.setattr("streams.commit.time", clock)

    def write(items: Any, offset: int) -> None:
        clock.now += 0.5

    commit = commit_with(Producer())
    commit.store = SimpleNamespace(write=write)  # type: ignore[assignment]
    for _ in range(2):
        await commit.commit(STEP, LEDGER, [])
        assert commit.write_s == 0.5, "of the last one, not of all"


async def test_a_user_who_is_forgotten_goes_after_the_sweep_and_before_what_the_same_batch_says_of_them_later():
    producer = Producer()
    step = msgspec.structs.replace(STEP, erased={b"gone": None, b"erasure": b"e"}, states={b"ann": b"state"})
    await commit_with(producer).commit(step, LEDGER, [(b"gone", encode_state(UserState(consent=True)))])
    keys = [key for key, _ in producer.last]
    assert keys == [b"gone", b"gone", b"erasure", b"ann", b"resolved", b"drawn", LEDGER_KEY]
    assert dict(producer.last)[b"gone"] is None


async def test_an_erasure_is_taken_back_in_the_same_order_without_offsets():
    producer = Producer()
    await commit_with(producer).erase({"decisions": {b"d": None}, "outcomes": {}}, [(b"erasure", b"done")])
    assert producer.calls == [
        "begin",
        ("decisions", [b"d"]),
        ("pricetide-changelog", [b"erasure"]),
        "end",
        ("write", [b"erasure"], 40),
    ]


async def test_nothing_is_ended_or_written_before_the_changelog_is_acknowledged():
    """The trap: Faust's flush gives up after a moment, and the offsets of the group run ahead of the changelog."""
    acks = asyncio.get_running_loop().create_future()
    producer = Producer(acks)
    committing = asyncio.create_task(commit_with(producer).commit(STEP, LEDGER, []))
    await asyncio.sleep(0.05)
    assert "end" not in producer.calls
    acks.set_result(SimpleNamespace(offset=7))
    await committing
    assert producer.calls[-2:] == ["end", ("write", [b"ann", b"resolved", b"drawn", LEDGER_KEY], 10)]


async def test_a_fenced_commit_writes_nothing():
    acks = asyncio.get_running_loop().create_future()
    acks.set_exception(ProducerFenced())
    producer = Producer(acks)
    with pytest.raises(ProducerFenced):
        await commit_with(producer).commit(STEP, LEDGER, [])
    assert [call for call in producer.calls if call == "end" or call[0] == "write"] == []


async def test_a_user_touched_in_the_batch_is_not_expired_with_it():
    producer = Producer()
    await commit_with(producer).commit(STEP, LEDGER, [(b"ann", b"old")])
    assert dict(producer.last)[b"ann"] == b"state"


async def test_records_that_fill_more_than_one_batch_keep_their_order_and_their_last_offset():
    producer = Producer()
    records = [(b"%d" % n, b"x" * 400_000) for n in range(5)]
    sent = await send_records(producer, "t", 0, records, [])  # type: ignore[arg-type]
    assert producer.calls == [("t", [b"0", b"1"]), ("t", [b"2", b"3"]), ("t", [b"4"])]
    assert await sent.last_offset() == 40


async def test_topics_take_turns_so_that_what_waits_for_no_other_batch_leaves_in_one_request():
    producer = Producer()
    big = [((b"%d" % n, b"x" * 600_000), []) for n in range(3)]
    letters = [((b"l%d" % n, b""), [("dlq-code", b"%d" % n)]) for n in range(3)]
    sent = await send_side_by_side(producer, 0, [("a", big), ("none", []), ("letters", letters), ("b", big[:2])])  # type: ignore[arg-type]
    assert producer.calls == [
        ("a", [b"0"]), ("letters", [b"l0", b"l1", b"l2"]), ("b", [b"0"]), ("a", [b"1"]), ("b", [b"1"]), ("a", [b"2"])
    ]  # fmt: skip
    assert [await of_topic.last_offset() for of_topic in sent] == [40, -1, 42, 40]
    assert producer.headers == {b"l%d" % n: [("dlq-code", b"%d" % n)] for n in range(3)}


async def test_a_batch_that_the_broker_refuses_ends_nothing_whatever_topic_it_is_for():
    """The trap: aiokafka ends a transaction although a batch of it was refused, and a decision is gone without a word."""
    for refused in ("price-updates", "decisions", "outcomes", "shadow-decisions", "dead-letters"):
        producer = Producer(refused=refused)
        with pytest.raises(MessageSizeTooLargeError):
            await commit_with(producer).commit(STEP, LEDGER, [])
        assert [call for call in producer.calls if call == "end" or call[0] == "write"] == []


async def test_no_records_are_no_batch():
    producer = Producer()
    sent = await send_records(producer, "t", 0, [], [])  # type: ignore[arg-type]
    assert (producer.calls, await sent.last_offset()) == ([], -1)


async def test_a_record_larger_than_a_batch_is_a_bug_and_not_an_endless_loop():
    with pytest.raises(BrokenInvariant, match="exceeds a batch"):
        await send_records(Producer(), "t", 0, [(b"k", b"x" * (BATCH_BYTES_MAX + 1))], [])  # type: ignore[arg-type]
