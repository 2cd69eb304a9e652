"""The naive version: a stock Faust app around the same engine, an event at a time. What bench_worker compares with.

Everything as the tutorials have it: an agent over a topic of `faust.Record`s, `async for`, a `faust.Table` on RocksDB with
its changelog, `topic.send` for what goes out; every option at its default. One topic for all kinds of event, for stock
Faust gives no order across topics. In its favour: catalogue and policies come from the log's files, the partition's count
and watermark live in memory (a restart would lose them), and debug records of loggers are not even made. A kill would make
it count twice; without one its outputs are right, and bench_worker checks them.

Usage: python -m benchmarks.naive_faust LOG_DIRECTORY PREFIX, and a worker's settings in the environment.
"""

from __future__ import annotations

import logging
import sys
from math import inf
from pathlib import Path

import faust
import msgspec

from backtest.feed import References, Seen
from benchmarks.logs import renamed
from contracts.errors import BadEvent
from contracts.events import Event
from contracts.intake import Inbound, refuse
from contracts.log import open_log
from contracts.policies import PolicyBook
from pricing.engine import Engine, PartitionState
from streams.settings import Settings, load_settings


class EventRecord(faust.Record, serializer="json"):  # type: ignore[call-arg,misc]  # faust ships no types
    """A record of the input topic; which fields it has depends on its type."""

    type: str
    user: str
    event_time_ms: int
    event_id: str | None = None
    item: str | None = None
    price: int | None = None
    currency: str | None = None
    market: str | None = None
    session: str | None = None
    action: str | None = None
    quantity: int | None = None
    dwell_ms: int | None = None
    query: str | None = None
    decision_id: str | None = None
    granted: bool | None = None


def inbound_of(event: faust.types.EventT) -> Inbound:
    """Return what the engine takes: the event of a Faust event's record, or why there is none."""
    message = event.message
    given = {name: value for name, value in event.value.asdict().items() if value is not None}
    try:
        decoded = msgspec.convert(given, Event)
    except msgspec.ValidationError as error:
        return _inbound(message, None, refuse("bad_field", str(error)))
    return _inbound(message, decoded, None)


def _inbound(message: faust.types.Message, event: Event | None, error: BadEvent | None) -> Inbound:
    order_ms = -1 if event is None else event.event_time_ms
    return Inbound(order_ms, 0, message.offset, event, error, message.key, message.value, order_ms)


def build(settings: Settings, directory: Path, prefix: str) -> faust.App:
    """Return the app; its group and changelog begin with settings.group."""
    log = renamed(open_log(directory, verify=False), prefix)
    seen = Seen(References(log), PolicyBook(), log.manifest.semantics.currency)
    seen.advance(inf, inf)
    topology = log.manifest.topology
    engines = [Engine(log.manifest.semantics, topology, partition) for partition in range(topology.partitions)]
    partitions = [PartitionState() for _ in engines]
    app = faust.App(
        settings.group,
        broker=f"kafka://{settings.kafka.bootstrap_servers}",
        store="rocksdb://",
        datadir=str(settings.data_dir),
        topic_partitions=topology.partitions,
        topic_replication_factor=1,
        web_port=settings.port,
    )
    events = app.topic(topology.sources[0], key_type=bytes, value_type=EventRecord)
    prices = app.topic(settings.topics.price_updates, key_type=bytes, value_type=bytes)
    decisions = app.topic(settings.topics.decisions, key_type=bytes, value_type=bytes)
    dead_letters = app.topic(settings.topics.dead_letters, key_type=bytes, value_type=bytes)
    states = app.Table("states", key_type=bytes, value_type=bytes, partitions=topology.partitions)

    @app.agent(events)  # type: ignore[untyped-decorator]  # faust ships no types
    async def price(stream: faust.StreamT) -> None:
        """Price an event at a time."""
        async for event in stream.events():
            partition = event.message.partition
            step = engines[partition].step(
                [inbound_of(event)], states.get, partitions[partition], seen.catalogue, seen.policies
            )
            partitions[partition] = step.partition
            for key, value in step.prices:
                await prices.send(key=key, value=value, partition=partition)
            for key, value in step.decisions:
                await decisions.send(key=key, value=value, partition=partition)
            for inbound, _ in step.dead:
                await dead_letters.send(key=inbound.key, value=inbound.value, partition=partition)
            for key, value in step.states.items():
                states[key] = value

    return app


def main() -> None:
    """Run the app until SIGTERM."""
    directory, prefix = sys.argv[1:]
    settings = load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    app = build(settings, Path(directory), prefix)
    for name in ("aiokafka", "faust"):
        logging.getLogger(name).setLevel(logging.WARNING)
    faust.Worker(app, loglevel="warning", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
