"""The format of a recorded event log: a directory of tables and a manifest, and how its rows become Kafka records.

    manifest.json        what decides bytes (Semantics, Topology), where the log comes from, rows and sha256 of every file
    events.*             views, clicks, purchases, in production order; consents, too, where they share a topic with others
    consents.*           consents, where they have a topic of their own
    catalogue.*          versions of items, in the order of their topic
    policies.*           policies, the current one, the kill switch, in the order of their topic
    applied.*            recorded logs only: the order in which a live worker applied the records, and what it had seen
    decisions.*          logs that know them: what was decided, as published, partition by partition in its order
    outcomes.*           the same of the outcomes of draws

Tables are Parquet or JSON lines (contracts.log_files). Rules: a row is *not* validated as an event, so a price of zero
stays one and is dead-lettered by worker and backtest alike; the row order within a topic is the order of production; rows
stream, and nothing here holds a log in memory. Not here: writing one (contracts.log_writer), making rows of captured
records (contracts.log_capture), replaying one (backtest.replay).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from heapq import merge as merge_sorted
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from contracts.errors import BadInput
from contracts.ids import partition_of
from contracts.log_files import Where, read_rows
from contracts.log_rows import (
    AppliedRow,
    CatalogueRow,
    EventRow,
    PolicyRow,
    PublishedRow,
    event_value,
    item_record_key,
    item_value,
    policy_record_key,
    policy_value,
)
from contracts.semantics import KINDS, Semantics, Topology

FORMAT = 1
MANIFEST = "manifest.json"
_USERS_CACHED_MAX = 32_768
"""Of 180 bytes each; then all are forgotten, and hashed again when they come, at 2.5 µs."""

Offers = Literal["shown", "not_shown"]
TableName = Literal["events", "consents", "catalogue", "policies", "applied", "decisions", "outcomes"]


class TableEntry(Struct, frozen=True, kw_only=True):
    """A file of the log."""

    file: str
    rows: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What a log is. `tables`, `records` and the time range are the writer's to fill in."""

    semantics: Semantics
    topology: Topology
    source: str
    """Attribution: whose data it is, from where, under which terms."""
    offers: Offers
    """shown: the shop showed the prices of this engine; not_shown: what users did was done under other prices."""
    synthetic: tuple[str, ...] = ()
    """The rules by which rows were made that no shop ever saw, a sentence each."""
    created_by: str = ""
    format: int = FORMAT
    tables: dict[TableName, TableEntry] = {}
    records: dict[str, list[int]] = {}
    """Records per topic, by partition."""
    first_ms: Annotated[int, Meta(ge=0)] = 0
    """Lowest and highest event time of the log."""
    last_ms: Annotated[int, Meta(ge=0)] = 0


class LogRecord(Struct, gc=False):
    """A record of an input topic, as `pricetide produce` sends it."""

    source: int
    """Index into `Topology.sources`."""
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    arrival_ms: int


class ReferenceRecord(Struct, gc=False):
    """A record of the catalogue or the policies topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    arrival_ms: int | None = None
    """None: nobody noted it; it was there from the beginning."""


class Addresses:
    """Topic, partition, offset and key of rows, in the order they are given per topic; one instance per pass over a log."""

    __slots__ = ("_next", "_partitions", "_sources", "_users")

    def __init__(self, topology: Topology) -> None:
        self._sources = {str(kind): topology.source_of(kind) for kind in KINDS}
        self._partitions = topology.partitions
        self._next = [[0] * topology.partitions for _ in topology.sources]
        self._users: dict[str, tuple[bytes, int]] = {}

    def of(self, row: EventRow) -> tuple[int, int, int, bytes | None]:
        """Return (source, partition, offset, key) of the next row.

        Raises:
            BadInput: its `type` is no kind of event, or its partition is not one of the topology's.
        """
        source = self._sources.get(row.type)
        if source is None:
            raise BadInput(f"A row of type {row.type!r}: rows are of {', '.join(KINDS)}; use raw for anything else")
        key, partition = row.key, row.partition
        if key is None and row.user is not None:
            key, home = self._users.get(row.user) or self._home(row.user)
            partition = home if partition is None else partition
        if partition is None:
            partition = partition_of(key, self._partitions) if key is not None else 0
        elif not 0 <= partition < self._partitions:
            raise BadInput(f"A row on partition {partition}, the manifest has {self._partitions}: record the log again")
        offset, place = row.offset, self._next[source]
        if offset is None:
            offset = place[partition]
        elif offset < place[partition]:
            raise BadInput(
                f"{row.type} of event {row.event_id}: offset {offset} of partition {partition} follows "
                f"{place[partition] - 1}, so the log is out of order: sort its rows by offset, or record it again"
            )
        place[partition] = offset + 1
        return source, partition, offset, key

    def _home(self, user: str) -> tuple[bytes, int]:
        """Return the key of a user that is not remembered, and its partition."""
        if len(self._users) >= _USERS_CACHED_MAX:
            self._users.clear()
        key = user.encode("utf-8", "surrogatepass")
        home = self._users[user] = (key, partition_of(key, self._partitions))
        return home


class Log:
    """An opened log: its manifest, and its tables as streams of row lists."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    def events(self, kinds: frozenset[str] | None = None) -> Iterator[list[EventRow]]:
        """Stream the rows of the events table, of `kinds` only if given."""
        return self._table("events", EventRow, None if kinds is None else ("type", kinds))

    def consents(self) -> Iterator[list[EventRow]]:
        """Stream the rows of the consents table; none where consents share a topic with others."""
        return self._table("consents", EventRow)

    def catalogue(self) -> Iterator[list[CatalogueRow]]:
        """Stream the rows of the catalogue."""
        return self._table("catalogue", CatalogueRow)

    def policies(self) -> Iterator[list[PolicyRow]]:
        """Stream the rows of the policies."""
        return self._table("policies", PolicyRow)

    def applied(self) -> Iterator[list[AppliedRow]]:
        """Stream the applied order of a recorded log."""
        return self._table("applied", AppliedRow)

    def published(self, topic: Literal["decisions", "outcomes"], partition: int) -> Iterator[list[PublishedRow]]:
        """Stream what was recorded of a partition of an output topic; nothing for a log that does not know it."""
        return self._table(topic, PublishedRow, ("partition", frozenset({partition})))

    @property
    def recorded(self) -> bool:
        """Whether the log knows the order in which a live worker applied it."""
        return "applied" in self.manifest.tables

    def rows(self) -> Iterator[EventRow]:
        """Stream events and consents in production order: by arrival, consents first; each topic keeps its own order."""
        return merge_sorted(
            chain.from_iterable(self.consents()), chain.from_iterable(self.events()), key=attrgetter("arrival_ms")
        )

    def _table(self, name: TableName, row_type: type[_Row], where: Where | None = None) -> Iterator[list[_Row]]:
        entry = self.manifest.tables.get(name)
        return read_rows(self.directory / entry.file, row_type, where) if entry is not None else iter(())


_Row = TypeVar("_Row", bound=Struct)


def open_log(directory: Path, *, verify: bool = True) -> Log:
    """Open the log in `directory`.

    Args:
        directory: where manifest.json lies.
        verify: compare the sha256 of every file with the manifest; reads the files once.

    Raises:
        BadInput: no log, a half-written or damaged one, or one of another format.
    """
    manifest = _read_manifest(directory)
    for entry in manifest.tables.values():
        path = directory / entry.file
        if not path.is_file():
            raise BadInput(f"{path} is missing, {MANIFEST} names it: copy the whole log again, or write it anew")
        if verify and sha256_of(path) != entry.sha256:
            raise BadInput(f"{path} is not what {MANIFEST} says (sha256 differs): copy the log again, or write it anew")
    return Log(directory, manifest)


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    if not path.is_file():
        raise BadInput(f"{path} is missing: {directory} is no log, or its writer was interrupted; write it anew")
    text = path.read_bytes()
    try:
        found = msgspec.json.decode(text, type=dict[str, object]).get("format")
        if found != FORMAT:
            raise BadInput(f"{path} has format {found!r}, this pricetide reads {FORMAT}: use the one that wrote it")
        return msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise BadInput(f"{path} is no manifest ({error}): write the log anew") from None


def sha256_of(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_chunks(
    log: Log, source: int, addresses: Addresses, partitions: Collection[int] | None = None
) -> Iterator[list[LogRecord]]:
    """Stream the records of the topic `Topology.sources[source]`, in its order, in lists of bounded length.

    Args:
        log: opened.
        source: index of the topic.
        addresses: the streams of several topics may share one instance, so that a user is hashed once.
        partitions: only records of these; None: of all.

    Raises:
        BadInput: the log is damaged, or out of order.
    """
    kinds = log.manifest.topology.kinds_of(source)
    chunks = log.consents() if kinds == {"consent"} else log.events(kinds)
    last_ms = 0
    for rows in chunks:
        records = []
        for row in rows:
            place = addresses.of(row)
            if row.arrival_ms < last_ms and row.offset is None:
                raise BadInput(_disorder(log, row, last_ms))
            last_ms = row.arrival_ms
            if partitions is None or place[1] in partitions:
                records.append(LogRecord(*place, event_value(row), row.arrival_ms))
        yield records


def _disorder(log: Log, row: EventRow, last_ms: int) -> str:
    who = f"event {row.event_id}" if row.event_id is not None else f"the consent of user {row.user}"
    return (
        f"{log.directory}: {who} ({row.type}) has arrival_ms {row.arrival_ms} and follows one of {last_ms}, so the log is out "
        "of order: sort the rows by arrival_ms, and write the log anew"
    )


def records(log: Log) -> Iterator[LogRecord]:
    """Stream the records of all input topics in production order, exactly as `pricetide produce` sends them."""
    addresses = Addresses(log.manifest.topology)
    for row in log.rows():
        yield LogRecord(*addresses.of(row), event_value(row), row.arrival_ms)


def catalogue_records(log: Log) -> Iterator[ReferenceRecord]:
    """Stream the records of the catalogue topic, in offset order."""
    return _reference(log.catalogue(), item_value, item_record_key)


def policy_records(log: Log) -> Iterator[ReferenceRecord]:
    """Stream the records of the policies topic, in offset order."""
    return _reference(log.policies(), policy_value, policy_record_key)


_Reference = TypeVar("_Reference", CatalogueRow, PolicyRow)


def _reference(
    chunks: Iterator[list[_Reference]],
    value_of: Callable[[_Reference], bytes | None],
    key_of: Callable[[_Reference], bytes | None],
) -> Iterator[ReferenceRecord]:
    offset = -1
    for row in chain.from_iterable(chunks):
        offset = row.offset if row.offset is not None else offset + 1
        value = row.raw if row.raw is not None else value_of(row)
        yield ReferenceRecord(offset, row.key if row.key is not None else key_of(row), value, row.arrival_ms)
