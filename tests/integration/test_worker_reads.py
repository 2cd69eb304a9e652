"""What the shell reads from a real broker: logs that end in control records, changelogs in any condition, references."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from deployment import Deployment
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import PolicyViolationError
from rocksdict import Cache

from contracts.ids import partition_of
from contracts.prices import decode_price
from streams.broker import administering, committed_records
from streams.ledger import LEDGER_KEY, MARKER_KEY, Ledger, decode_ledger, encode_ledger
from streams.producer import send_records, transactional_producer
from streams.recovery import commit_marker, restore
from streams.reference import References
from streams.source_consumer import fetch, source_consumer
from streams.store import StateStore
from streams.topics import create_topics

NOW_MS = 1_762_160_400_000


@pytest.fixture
def deployment(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path, partitions=1) as made:
        yield made.create()


def view(item: str, at_ms: int) -> bytes:
    return msgspec.json.encode({"type": "view", "event_id": f"{item}{at_ms}", "user": "ann", "item": item, "price": 2_000,
                                "currency": "USD", "event_time_ms": at_ms})  # fmt: skip


def listed(item: str) -> tuple[bytes, bytes]:
    value = {"item": item, "valid_from_ms": 0, "title": item, "category": "c", "brand": "b", "currency": "USD",
             "list_price": 2_000}  # fmt: skip
    return msgspec.json.encode((item, 0)), msgspec.json.encode(value)


async def transact(kafka: str, name: str, sends: list[tuple[str, bytes, bytes]], *, commit: bool) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=name)
    await producer.start()
    await producer.begin_transaction()
    for topic, key, value in sends:
        await producer.send_and_wait(topic, value, key, partition=0)
    await (producer.commit_transaction() if commit else producer.abort_transaction())
    await producer.stop()


async def test_a_log_that_ends_in_control_records_is_not_waited_for(kafka, unique, deployment):
    """The trap: behind the last record lies one that nobody sees, so no record's offset ever reaches the end."""
    topics = deployment.settings.topics
    assert partition_of(b"ann", 1) == 0
    items = [("catalogue", *listed(item)) for item in ("kettle", "lamp", "aborted")]
    await transact(kafka, f"{unique}shop", [(f"{unique}{topic}", k, v) for topic, k, v in items], commit=True)
    click = view("kettle", NOW_MS).replace(b'"view"', b'"click"')
    await transact(kafka, f"{unique}shop", [(topics.clicks, b"ann", click)], commit=True)
    await transact(kafka, f"{unique}shop", [(topics.purchases, b"ann", view("aborted", NOW_MS))], commit=False)
    await transact(kafka, f"{unique}shop", [(topics.views, b"ann", view("lamp", NOW_MS + 1))], commit=True)
    worker = deployment.worker()
    worker.wait_until_said("restored")
    priced: list[str] = []
    for _ in range(100):
        priced = [decode_price(one.value).item for one in deployment.committed(topics.price_updates)[0]]
        if len(priced) == 2:
            break
    assert priced == ["kettle", "lamp"], "both, in the order of event time, and nothing that was aborted"
    assert deployment.committed(topics.dead_letters) == [[]]


# -- recovery ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def producer(deployment) -> AsyncIterator[Any]:
    started = transactional_producer(deployment.settings, 0)
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def store(tmp_path: Path):
    opened = StateStore(tmp_path / "store", Cache(1 << 20), 1 << 20)
    yield opened
    opened.close()


async def change(
    producer: Any, deployment: Deployment, records: list[tuple[bytes, bytes | None]], *, commit: bool = True
) -> None:
    await producer.begin_transaction()
    await (await send_records(producer, deployment.settings.topics.changelog, 0, records, [])).last_offset()
    await (producer.commit_transaction() if commit else producer.abort_transaction())


async def restored(deployment: Deployment, store: StateStore, marker: int) -> int:
    return await restore(deployment.settings, 0, store, marker, lambda left: None)


async def test_recovery_reads_up_to_the_marker_and_only_what_was_committed(deployment, producer, store):
    await change(producer, deployment, [(b"ann", b"1"), (b"bob", b"1")])
    await change(producer, deployment, [(b"ann", b"lost")], commit=False)
    await change(producer, deployment, [(b"bob", None), (b"cid", b"2")])
    marker = await commit_marker(producer, deployment.settings.topics.changelog, 0)
    assert await restored(deployment, store, marker) == 5
    assert [store.get(key) for key in (b"ann", b"bob", b"cid")] == [b"1", None, b"2"]
    assert store.get(MARKER_KEY) == b""
    assert store.changelog_offset == marker


async def test_recovery_goes_on_where_the_store_ends(deployment, producer, store):
    changelog = deployment.settings.topics.changelog
    await change(producer, deployment, [(b"u%d" % n, b"1") for n in range(100)])
    await restored(deployment, store, await commit_marker(producer, changelog, 0))
    await change(producer, deployment, [(b"u7", b"2")])
    assert await restored(deployment, store, await commit_marker(producer, changelog, 0)) == 2
    assert (store.get(b"u7"), store.get(b"u8")) == (b"2", b"1")


async def test_recovery_of_a_changelog_whose_beginning_was_removed_begins_where_it_begins(deployment, producer, store):
    changelog = deployment.settings.topics.changelog
    await change(producer, deployment, [(b"old", b"1")])
    await change(producer, deployment, [(b"new", b"2")])
    with administering(deployment.settings) as admin:
        may_delete = {"cleanup.policy": "compact,delete"}  # a compacted topic alone refuses to
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, changelog, configs=may_delete)])
        for _ in range(100):
            with suppress(PolicyViolationError):  # until the log has heard of its new policy
                admin.delete_records({TopicPartition(changelog, 0): 2})
                break
            await asyncio.sleep(0.1)
    marker = await commit_marker(producer, changelog, 0)
    assert await restored(deployment, store, marker) == 2
    assert (store.get(b"old"), store.get(b"new")) == (None, b"2")


async def test_a_store_that_is_ahead_of_the_changelog_is_anothers_and_is_rebuilt(deployment, producer, store):
    store.write([(b"foreign", b"x")], 1_000_000)
    await change(producer, deployment, [(b"ann", b"1")])
    marker = await commit_marker(producer, deployment.settings.topics.changelog, 0)
    await restored(deployment, store, marker)
    assert (store.get(b"foreign"), store.get(b"ann")) == (None, b"1")


def ledger_of(lineage: str) -> tuple[bytes, bytes]:
    ledger = Ledger(epoch=0, partitions=1, sources=(), positions=(), applied=1, watermark_ms=0, lineage=lineage)
    return LEDGER_KEY, encode_ledger(ledger)


@pytest.mark.parametrize(("lineage", "left"), [("other", None), ("ours", b"x")])
async def test_a_store_of_another_lineage_is_anothers_though_it_is_behind_the_changelog(
    deployment, producer, store, lineage, left
):
    """A data directory of another cluster, or from before the changelog was made anew: its users must not be mixed in."""
    store.write([(b"before", b"x"), ledger_of(lineage)], 1)
    await change(producer, deployment, [(b"ann", b"1"), ledger_of("ours")])
    await change(producer, deployment, [(b"bob", b"2"), ledger_of("ours")])
    await restored(deployment, store, await commit_marker(producer, deployment.settings.topics.changelog, 0))
    assert store.get(b"before") == left
    assert store.get(b"bob") == b"2"
    assert (store.get(b"ann") == b"1") is (lineage == "other"), (
        "what lies below a store's offset is read for another one only"
    )


async def test_a_restore_of_another_lineage_that_is_killed_leaves_a_store_that_is_still_strange(
    deployment, producer, store, monkeypatch
):
    """The trap: half of a foreign changelog on top of what was there, under the ledger of the foreign one."""
    store.write([(b"before", b"x"), ledger_of("other")], 1)
    await change(producer, deployment, [(b"ann", b"1"), ledger_of("ours")])
    await change(producer, deployment, [(b"bob", b"2"), ledger_of("ours")])
    marker = await commit_marker(producer, deployment.settings.topics.changelog, 0)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "wipe", killed)
        with pytest.raises(KeyboardInterrupt):
            await restored(deployment, store, marker)
    assert decode_ledger(store.ledger).lineage == "other"
    await restored(deployment, store, marker)
    assert (store.get(b"before"), store.get(b"ann"), store.get(b"bob")) == (None, b"1", b"2")


async def test_a_new_owner_aborts_what_the_old_one_left_open(deployment, producer, store):
    await producer.begin_transaction()
    await (await send_records(producer, deployment.settings.topics.changelog, 0, [(b"ann", b"half")], [])).last_offset()
    successor = transactional_producer(deployment.settings, 0)
    await successor.start()
    marker = await commit_marker(successor, deployment.settings.topics.changelog, 0)
    assert await restored(deployment, store, marker) == 1
    assert store.get(b"ann") is None
    await successor.stop()


# -- catalogue and policies --------------------------------------------------------------------------------------------


async def test_references_are_read_to_their_end_and_what_is_no_reference_is_counted_and_passed_over(
    kafka, unique, deployment
):
    topics = deployment.settings.topics
    broken = [(topics.catalogue, b'["x",0]', b'{"item": "x"'), (topics.policies, b"current", b'{"record": "current", '
              b'"name": "nobody", "number": 9}')]  # fmt: skip
    bottomless = b'{"record": "current", "more": ' + b"[" * 10_000
    broken += [(topics.catalogue, b'["y",0]', bottomless), (topics.policies, b"current", bottomless)]
    good = [
        (topics.catalogue, *listed("kettle")),
        (topics.policies, b"killswitch", b'{"record": "killswitch", "on": true}'),
    ]
    await transact(kafka, f"{unique}shop", [*broken, *good], commit=True)
    await transact(kafka, f"{unique}shop", [(topics.catalogue, *listed("aborted"))], commit=False)
    refused: list[str] = []
    references = References(deployment.settings, refused.append)
    await references.read_to_end()
    try:
        assert references.ready.is_set()
        assert sorted(refused) == [topics.catalogue, topics.catalogue, topics.policies, topics.policies]
        assert references.catalogue.at("kettle", NOW_MS) is not None
        assert references.catalogue.at("aborted", NOW_MS) is None
        assert references.policies.kill_switch is True
        assert references.policies.current.version == "builtin"
    finally:
        await references.close()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_a_shops_producers_have_compressed_is_read_by_both_clients(unique, deploy, codec):
    settings = deploy(**{"kafka.compression": codec})
    create_topics(settings)
    place, value = TopicPartition(settings.topics.views, 0), view("kettle", NOW_MS) * 20
    producer = transactional_producer(settings, 0)
    await producer.start()
    await producer.begin_transaction()
    sent = await send_records(producer, place.topic, 0, [(b"ann", value)] * 50, [])
    await sent.last_offset()
    await producer.commit_transaction()
    await producer.stop()
    consumer = source_consumer(settings)
    await consumer.start()
    consumer.assign([place])
    consumer.seek(place, 0)
    found = (await fetch(consumer, timeout_ms=10_000))[place]
    await consumer.stop()
    assert [record.value for record in found] == [value] * 50
    again = await asyncio.to_thread(lambda: [one.value for one in committed_records(settings, [place.topic])])
    assert again == [value] * 50
