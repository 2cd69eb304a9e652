"""Writing a log (contracts.log): rows in, files and, last of all, the manifest out.

The manifest is written when everything else is on disk, so a log whose writer was interrupted has none and is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec
from msgspec import Struct

from contracts.errors import BadInput
from contracts.log import MANIFEST, Addresses, Manifest, TableEntry, TableName, sha256_of
from contracts.log_files import Format, RowWriter, write_rows
from contracts.log_rows import AppliedRow, CatalogueRow, EventRow, PolicyRow, PublishedRow

_CONSENT_COLUMNS = frozenset(
    {"type", "user", "granted", "erase", "event_time_ms", "arrival_ms", "partition", "offset", "key", "raw"}
)
_NOT_CONSENT = frozenset(EventRow.__struct_fields__) - _CONSENT_COLUMNS
_ROW_TYPES: dict[TableName, type[Struct]] = {
    "events": EventRow, "consents": EventRow, "catalogue": CatalogueRow, "policies": PolicyRow, "applied": AppliedRow,
    "decisions": PublishedRow, "outcomes": PublishedRow,
}  # fmt: skip


class LogWriter:
    """Writes one log. As a context manager it finishes the log unless an exception leaves the block."""

    def __init__(self, directory: Path, manifest: Manifest, file_format: Format = "parquet") -> None:
        """Begin a log in `directory`, which is made if need be.

        Args:
            directory: must not hold a finished log.
            manifest: without tables, records and times; those are counted here.
            file_format: of every table.

        Raises:
            BadInput: there is a log already, or pyarrow is missing for Parquet.
        """
        if (directory / MANIFEST).exists():
            raise BadInput(f"{directory} holds a log already: choose another directory, or delete that one")
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.manifest = manifest
        """As given; after close() as written."""
        self._format = file_format
        self._writers: dict[TableName, RowWriter] = {}
        topology = manifest.topology
        self._own_consents = topology.kinds_of(topology.source_of("consent")) == {"consent"}
        self._addresses = Addresses(topology)
        self._counts = [[0] * topology.partitions for _ in topology.sources]
        self._first_ms: int | None = None
        self._last_ms = 0
        for name in ("events", "consents", "catalogue", "policies"):
            if name != "consents" or self._own_consents:
                self._table(name)

    def _table(self, name: TableName) -> RowWriter:
        writer = self._writers.get(name)
        if writer is None:
            without = frozenset[str]()
            if name == "consents":
                without = _NOT_CONSENT
            elif name == "events" and self._own_consents:
                without = frozenset({"granted", "erase"})
            writer = write_rows(self._directory / f"{name}.{self._format}", _ROW_TYPES[name], without)
            self._writers[name] = writer
        return writer

    def rows(self, rows: Sequence[EventRow]) -> None:
        """Append events and consents in production order; consents go to their own table if they have their own topic."""
        for row in rows:
            source, partition, _, _ = self._addresses.of(row)
            self._counts[source][partition] += 1
        times = [row.event_time_ms for row in rows if row.event_time_ms is not None]
        if times:
            first = min(times)
            self._first_ms = first if self._first_ms is None else min(self._first_ms, first)
            self._last_ms = max(self._last_ms, *times)
        if self._own_consents:
            split: dict[bool, list[EventRow]] = defaultdict(list)
            for row in rows:
                split[row.type == "consent"].append(row)
            self._table("consents").append(split[True])
            self._table("events").append(split[False])
        else:
            self._table("events").append(rows)

    def catalogue(self, rows: Sequence[CatalogueRow]) -> None:
        """Append records of the catalogue topic."""
        self._table("catalogue").append(rows)

    def policies(self, rows: Sequence[PolicyRow]) -> None:
        """Append records of the policies topic."""
        self._table("policies").append(rows)

    def applied(self, rows: Sequence[AppliedRow]) -> None:
        """Append to the applied order; per partition by ascending version."""
        self._table("applied").append(rows)

    def published(self, topic: Literal["decisions", "outcomes"], rows: Sequence[PublishedRow]) -> None:
        """Append what was published to an output topic; per partition in its order. No rows say that there were none."""
        self._table(topic).append(rows)

    def close(self) -> Manifest:
        """Finish the files, write the manifest, and return it."""
        tables: dict[TableName, TableEntry] = {}
        for name, writer in self._writers.items():
            writer.close()
            path = self._directory / f"{name}.{self._format}"
            tables[name] = TableEntry(file=path.name, rows=writer.rows, sha256=sha256_of(path))
        self.manifest = msgspec.structs.replace(
            self.manifest,
            tables=tables,
            records=dict(zip(self.manifest.topology.sources, self._counts, strict=True)),
            first_ms=self._first_ms or 0,
            last_ms=self._last_ms,
            created_by=f"pricetide {version('pricetide')}",
        )
        text = msgspec.json.format(msgspec.json.encode(self.manifest), indent=2)
        (self._directory / MANIFEST).write_bytes(text + b"\n")
        return self.manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            for writer in self._writers.values():
                writer.close()
