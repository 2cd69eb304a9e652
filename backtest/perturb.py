"""A log made harder: late and repeated events, consents that flip, list prices that change. Deterministic by seed.

Streams: a row that is late or repeated waits for its new place in a heap, nothing else is held. For tests of live against
replay; the manifest says what was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice
from operator import itemgetter
from pathlib import Path
from random import Random

from msgspec.structs import replace

from contracts.errors import BadInput
from contracts.log import Log, Manifest, open_log
from contracts.log_files import Format
from contracts.log_rows import CatalogueRow, EventRow
from contracts.log_writer import LogWriter

_ROWS_AT_A_TIME = 4_096
LATE_BY_ROWS_MAX = 400
"""A late or repeated row comes 1 to this many rows after its place."""


@dataclass(frozen=True)
class Perturbation:
    """Shares of rows, 0 to 1 each."""

    late: float = 0.02
    duplicates: float = 0.01
    consents: float = 0.01
    """Events followed by a consent of their user, granted or withdrawn at even odds."""
    catalogue: float = 0.1
    """Items that get a new version somewhere in the log, at 80 % to 125 % of the list price."""
    erasures: float = 0.0
    """Events after which their user asks to be forgotten."""

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0.0 <= share <= 1.0:
                raise BadInput(f"{name} = {share}: a share lies between 0 and 1")

    def rules(self, seed: int) -> tuple[str, ...]:
        """Return what is done, a sentence each, for the manifest."""
        forgotten = (f"Perturbed: after {self.erasures:.1%} of the events the user asks to be forgotten.",)
        return (
            f"Perturbed with seed {seed}: {self.late:.1%} of the rows come up to {LATE_BY_ROWS_MAX} rows late and arrive "
            f"then; {self.duplicates:.1%} come a second time with the same event id.",
            f"Perturbed: after {self.consents:.1%} of the events the user grants or withdraws consent; {self.catalogue:.1%} "
            "of the items have another list price, and bounds in proportion, from some time in the log on.",
            *(forgotten if self.erasures else ()),
        )


def perturb_log(
    source: Path, directory: Path, seed: int, how: Perturbation, file_format: Format = "parquet"
) -> Manifest:
    """Write the perturbed log of `source` into `directory` and return its manifest.

    Raises:
        BadInput: `source` is no log or is a recorded one, whose order cannot change, or `directory` holds a log already.
    """
    log = open_log(source)
    if log.recorded:
        raise BadInput(f"{source} is a recorded log, its applied order is fixed: perturb an imported or generated one")
    old = log.manifest
    manifest = Manifest(
        semantics=old.semantics,
        topology=old.topology,
        source=old.source,
        offers=old.offers,
        synthetic=old.synthetic + how.rules(seed),
    )
    random = Random(seed)
    with LogWriter(directory, manifest, file_format) as writer:
        for items in log.catalogue():
            writer.catalogue(items)
        writer.catalogue(list(_repriced(log, random, how.catalogue)))
        for policies in log.policies():
            writer.policies(policies)
        rows = _shuffled(log.rows(), random, how)
        while some := list(islice(rows, _ROWS_AT_A_TIME)):
            writer.rows(some)
    return writer.manifest


def _repriced(log: Log, random: Random, share: float) -> Iterator[CatalogueRow]:
    first_ms, last_ms = log.manifest.first_ms, log.manifest.last_ms
    done: set[str] = set()
    for rows in log.catalogue():
        for row in rows:
            if row.item is None or row.list_price is None or row.item in done or random.random() >= share:
                continue
            done.add(row.item)
            yield _scaled(row, random.randint(800, 1250), random.randint(first_ms, last_ms))


def _scaled(row: CatalogueRow, permille: int, valid_from_ms: int) -> CatalogueRow:
    """Return a version with list price and bounds times permille / 1000, none of which the list price breaks."""

    def part(price: int | None) -> int | None:
        return max(price * permille // 1000, 1) if price is not None else None

    assert row.list_price is not None
    # One cent off the cost: rounding down the list price must not lift the margin's bound above it.
    cost = max(row.cost * permille // 1000 - 1, 0) if row.cost is not None else None
    return replace(
        row,
        valid_from_ms=valid_from_ms,
        list_price=part(row.list_price),
        cost=cost,
        floor=part(row.floor),
        ceiling=part(row.ceiling),
        map_price=part(row.map_price),
        offset=None,
        key=None,
    )


def _shuffled(rows: Iterator[EventRow], random: Random, how: Perturbation) -> Iterator[EventRow]:
    """Yield every row once or twice, some of them later than their place; what comes later also arrives later."""
    waiting: list[tuple[int, int, EventRow]] = []
    order = count()
    now_ms = 0
    for place, row in enumerate(rows):
        now_ms = max(now_ms, row.arrival_ms)
        while waiting and waiting[0][0] <= place:
            yield _arriving(heappop(waiting)[2], now_ms)
        if random.random() < how.late:
            heappush(waiting, (place + random.randint(1, LATE_BY_ROWS_MAX), next(order), row))
        else:
            yield row
        if row.type == "consent":
            continue
        if random.random() < how.duplicates:
            heappush(waiting, (place + random.randint(1, LATE_BY_ROWS_MAX), next(order), row))
        if row.user is not None and random.random() < how.consents:
            yield _consent(row, granted=random.random() < 0.5)
        if row.user is not None and how.erasures and random.random() < how.erasures:
            yield replace(_consent(row, granted=False), erase=True)
    for _, _, row in sorted(waiting, key=itemgetter(0, 1)):
        yield _arriving(row, now_ms)


def _consent(row: EventRow, granted: bool) -> EventRow:
    """Return a consent of the row's user, which arrives with it."""
    arrived_ms = row.arrival_ms
    return EventRow("consent", user=row.user, granted=granted, event_time_ms=arrived_ms, arrival_ms=arrived_ms)


def _arriving(row: EventRow, now_ms: int) -> EventRow:
    return replace(row, arrival_ms=max(row.arrival_ms, now_ms), partition=None, offset=None)
