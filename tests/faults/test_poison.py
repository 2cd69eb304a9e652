"""An event that crashes the worker is isolated after its third crash, and the stream goes on."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import msgspec
from deployment import Deployment

from contracts.ids import partition_of
from contracts.prices import decode_price
from streams.broker import producing
from streams.dead_letters import read_dead_letter

SCRIPT = [sys.executable, str(Path(__file__).with_name("worker_with_a_bug.py"))]
NOW_MS = 1_762_160_400_000


def send_views(deployment: Deployment, items: list[str]) -> None:
    topics, partition = deployment.settings.topics, partition_of(b"ann", 1)
    with producing(deployment.settings) as producer:
        for number, item in enumerate(items):
            listed = {"item": item, "valid_from_ms": 0, "title": item, "category": "c", "brand": "b", "currency": "USD",
                      "list_price": 2_000}  # fmt: skip
            producer.send(topics.catalogue, msgspec.json.encode(listed), msgspec.json.encode((item, 0)))
            event = {"type": "view", "event_id": f"e{number}", "user": "ann", "item": item, "price": 2_000,
                     "currency": "USD", "event_time_ms": NOW_MS + number}  # fmt: skip
            producer.send(topics.views, msgspec.json.encode(event), b"ann", partition=partition)
        producer.flush()


def test_an_event_that_raises_three_times_is_isolated_with_its_traceback(kafka, unique, tmp_path, free_port):
    with Deployment(kafka, unique, tmp_path, partitions=1) as deployment:
        deployment.create()
        send_views(deployment, ["kettle", "poison", "lamp"])
        for crash in (1, 2, 3):
            worker = deployment.worker(script=SCRIPT)
            assert worker.wait() == 70, worker.said()
            assert f"({crash} of 3 before it is isolated)" in worker.said()
            deployment.forget_dead_members()
        port = free_port()
        last = deployment.worker(script=SCRIPT, port=port)
        deployment.wait_until_applied()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert "pricetide_isolated_events_total 1.0" in answer.read().decode()
        assert last.terminate() == 0
        topics = deployment.settings.topics
        (record,) = deployment.committed(topics.dead_letters)[0]
        letter = read_dead_letter(record.key, record.value, record.headers, "")
        assert letter is not None
        assert (letter.code, letter.topic, letter.offset) == ("crashed", topics.views, 1)
        assert "ZeroDivisionError: a bug that this event wakes" in letter.traceback
        assert "worker_with_a_bug.py" in letter.traceback
        priced = [decode_price(one.value).item for one in deployment.committed(topics.price_updates)[0]]
        assert priced == ["kettle", "lamp"], "the stream goes on"
