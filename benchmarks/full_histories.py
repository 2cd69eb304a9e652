"""The second profile: users whose state is as full as it gets, and a log of their next events.

One user is taken through the engine until every bounded part of the state is full: 128 tokens, all tiles of all windows,
24 offers, the session's items, both affinities, 64 recent ids. A state holds no user id, so its bytes serve for all users:
they are written into the changelog, as a long life would have left them, and a worker restores them. No shop and no person
is behind this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from kafka.structs import OffsetAndMetadata
from msgspec import Struct

from benchmarks.lab import Deployment
from contracts.catalogue import Catalogue
from contracts.events import Event, View, encode_event, event_key
from contracts.ids import partition_of
from contracts.intake import Inbound, Intake
from contracts.log import Log, Manifest, catalogue_records, open_log, records
from contracts.log_rows import CatalogueRow, EventRow
from contracts.log_writer import LogWriter
from contracts.merge import Merge
from contracts.policies import PolicyBook
from contracts.semantics import Semantics, Topology
from features.state import UserState, decode_state
from features.windows import DAY_MS, DAYS, HOUR_MS, HOURS, MINUTE_MS, MINUTES
from pricing.engine import Engine, PartitionState, Step
from streams.broker import administering, partition_counts, partitions_of
from streams.ledger import LEDGER_KEY, Ledger, encode_ledger
from streams.producer import send_records, transactional_producer

NOW_MS = 1_572_566_400_000
ITEMS = 64
"""More than offers and session items can hold, each in a category and of a brand of its own."""
VIEWS_PER_ITEM = 3
"""In a row: a draw, then holds; so fewer offers are open than remembered."""
BATCH_MAX = 2_048


class Profile(Struct):
    """A log of users with full histories, and the state that each of them has before it begins."""

    log: Log
    users: list[str]
    state: bytes


def make_profile(directory: Path, users: int, events_per_user: int, partitions: int) -> Profile:
    """Write the log into `directory`: each user views an item a minute, all users in turn."""
    semantics, topology = Semantics(consent_default=True), Topology(partitions=partitions)
    names = [f"{500_000_000 + number}" for number in range(users)]
    manifest = Manifest(
        semantics=semantics, topology=topology, source="generated", offers="not_shown",
        synthetic=("Everything: users with full histories, for benchmarks.",),
    )  # fmt: skip
    with LogWriter(directory, manifest) as out:
        out.catalogue([_item(number) for number in range(ITEMS)])
        for minute in range(events_per_user):
            time_ms = NOW_MS + minute * MINUTE_MS
            out.rows([_row(name, time_ms + place * MINUTE_MS // users, minute) for place, name in enumerate(names)])
    log = open_log(directory, verify=False)
    return Profile(log, names, _full_state(log, names[0]))


def _item(number: int) -> CatalogueRow:
    price = 10_000 + 250 * number - 1
    return CatalogueRow(
        item=f"{1_000_000 + number}", valid_from_ms=0, title=f"Item {number}", category=f"category.number{number}",
        brand=f"brand{number}", currency="USD", list_price=price, cost=price // 2, floor=price * 6 // 10,
    )  # fmt: skip


def _row(user: str, time_ms: int, number: int) -> EventRow:
    item = number // VIEWS_PER_ITEM % ITEMS
    return EventRow(
        type="view", event_id=f"{user}-{time_ms:x}", user=user, item=f"{1_000_000 + item}", event_time_ms=time_ms,
        price=10_000 + 250 * item - 1, currency="USD", session=f"session-of-{user}", dwell_ms=4_000, arrival_ms=time_ms,
    )  # fmt: skip


def _past(user: str) -> Iterator[Event]:
    """Yield a month of events that leaves no tile of a window empty."""
    times = [NOW_MS - days * DAY_MS for days in range(DAYS, 0, -1)]
    times += [NOW_MS - hours * HOUR_MS for hours in range(HOURS, 1, -1)]
    times += [NOW_MS - half * MINUTE_MS // 2 for half in range(2 * MINUTES, 0, -1)]
    for number, time_ms in enumerate(times):
        row = _row(user, time_ms, number)
        yield View(
            event_id=row.event_id or "", user=user, item=row.item or "", event_time_ms=time_ms, price=row.price or 0,
            currency="USD", session=row.session, dwell_ms=row.dwell_ms,
        )  # fmt: skip


def _catalogue(log: Log) -> Catalogue:
    catalogue = Catalogue()
    for record in catalogue_records(log):
        catalogue.apply(record.offset, record.key, record.value)
    return catalogue


def _full_state(log: Log, user: str) -> bytes:
    manifest = log.manifest
    partition = partition_of(user.encode(), manifest.topology.partitions)
    source = manifest.topology.source_of("view")
    batch = [
        Inbound(event.event_time_ms, source, offset, event, None, event_key(event), encode_event(event), NOW_MS)
        for offset, event in enumerate(_past(user))
    ]
    engine = Engine(manifest.semantics, manifest.topology, partition)
    step = engine.step(batch, lambda key: None, PartitionState(), _catalogue(log), PolicyBook())
    state = step.states[user.encode()]
    _require_full(decode_state(state), manifest.semantics)
    return state


def _require_full(state: UserState, semantics: Semantics) -> None:
    assert state.history_events == semantics.history_events_max
    assert len(state.offers) == semantics.offers_max
    assert len(state.minutes) // 32 >= MINUTES - 1
    assert len(state.days) // 32 >= DAYS - 2


def seed(deployment: Deployment, profile: Profile) -> None:
    """Write the states, and a ledger that says nothing was read yet, into the changelog; set the group accordingly."""
    settings = deployment.settings
    for partition in range(settings.topics.partitions):
        asyncio.run(_seed(deployment, profile, partition))
    with administering(settings) as admin:
        places = partitions_of(partition_counts(admin, settings.topics.topology.sources))
        admin.alter_group_offsets(settings.group, dict.fromkeys(places, OffsetAndMetadata(0, "", -1)))


async def _seed(deployment: Deployment, profile: Profile, partition: int) -> None:
    settings = deployment.settings
    topology = settings.topics.topology
    ledger = Ledger(
        epoch=0, partitions=topology.partitions, sources=topology.sources, positions=(0,) * len(topology.sources),
        applied=0, watermark_ms=NOW_MS,
    )  # fmt: skip
    keys = [user.encode() for user in profile.users]
    states = [(key, profile.state) for key in keys if partition_of(key, topology.partitions) == partition]
    producer = transactional_producer(settings, partition)
    await producer.start()
    try:
        await producer.begin_transaction()
        sent = await send_records(
            producer, settings.topics.changelog, partition, [*states, (LEDGER_KEY, encode_ledger(ledger))], []
        )
        await sent.last_offset()
        await producer.commit_transaction()
    finally:
        await producer.stop()


def expected_steps(deployment: Deployment, profile: Profile) -> Iterator[tuple[int, Step]]:
    """Yield (partition, step) of the engine over the deployment's log, from the full states on."""
    manifest = deployment.log.manifest
    topology = manifest.topology
    catalogue, policies = _catalogue(deployment.log), PolicyBook()
    merges = [Merge[Inbound](len(topology.sources)) for _ in range(topology.partitions)]
    intakes = [Intake(manifest.semantics, topology, partition) for partition in range(topology.partitions)]
    for record in records(deployment.log):
        inbound = intakes[record.partition].read(
            record.source, record.offset, record.key, record.value, record.arrival_ms
        )
        merges[record.partition].push(record.source, [inbound])
    for partition, merge in enumerate(merges):
        engine = Engine(manifest.semantics, topology, partition)
        state, stored = PartitionState(0, NOW_MS), {user.encode(): profile.state for user in profile.users}
        while batch := merge.take(BATCH_MAX, merge.empty_sources()):
            step = engine.step(batch, stored.get, state, catalogue, policies)
            stored.update(step.states)
            state = step.partition
            yield partition, step
