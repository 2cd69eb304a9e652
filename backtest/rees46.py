"""The public log of REES46 ("eCommerce behavior data from multi category store"), as a log of ours.

Two passes over the file: the first counts rows and the events of users who will withdraw consent, the second writes. Memory
holds a batch of rows, and a little per user and per item; never the file. What the file lacks is made by the rules of
backtest.synthetic and marked in the manifest. Rows priced zero stay: whoever consumes the log must cope with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from backtest import synthetic
from contracts.catalogue import VERSIONS_MAX
from contracts.errors import BadInput
from contracts.log import Manifest
from contracts.log_files import Format, is_parquet, require_pyarrow
from contracts.log_rows import CatalogueRow, EventRow, PolicyRow
from contracts.log_writer import LogWriter
from contracts.policies import BUILTIN, CurrentPolicy, Policy, encode_policy
from contracts.semantics import Semantics, Topology

COLUMNS = (
    "event_time", "event_type", "product_id", "category_id", "category_code", "brand", "price", "user_id", "user_session",
)  # fmt: skip
_OCCURRENCES_MAX = 1_000_000
_BATCH_ROWS = 65_536
_KINDS = {
    "view": ("view", None),
    "cart": ("click", "add_to_cart"),
    "remove_from_cart": ("click", "remove_from_cart"),
    "purchase": ("purchase", None),
}
ATTRIBUTION = (
    'REES46 Marketing Platform (https://rees46.com) and the Open CDP project, "eCommerce behavior data from multi category '
    'store", collected by Michael Kechinov: '
    "https://www.kaggle.com/datasets/mkechinov/ecommerce-behavior-data-from-multi-category-store"
)
RULES = (
    "Event id: a hash of the row and its occurrence number, so that exact duplicates are two events.",
    "A cart row is a click with the action add_to_cart; arrival is the event time.",
    "Catalogue: an item's list price starts at its first sighting with a price above zero; a sighting at another price is a "
    f"new version, valid from then, up to {VERSIONS_MAX} versions of an item.",
)

Progress = Callable[[int, int | None], None]
"""Called with rows done in this pass and, once known, rows in all."""


class SourceRow(NamedTuple):
    """A row of the public log; times in ms, money in minor units."""

    time_ms: int
    kind: str
    item: str
    category_id: str
    category: str
    brand: str
    price: int | None
    user: str
    session: str | None


class Imported(NamedTuple):
    """What an import wrote."""

    manifest: Manifest
    items: int
    users: int
    unpriced: int
    """Rows without a price above zero: they stay, and will be dead letters."""


@lru_cache(maxsize=65_536)
def minor_units(price: str | float | None) -> int | None:
    """Return a price in cents, half a cent rounded up; exact decimal arithmetic. None for what is no number."""
    try:
        value = Decimal(str(price))
    except InvalidOperation:
        return None
    return int((value * 100).to_integral_value(ROUND_HALF_UP)) if value.is_finite() else None


@lru_cache(maxsize=4_096)
def _text_ms(text: str) -> int:
    """Return the ms since 1970 of a time like "2019-11-01 00:00:00 UTC"."""
    try:
        time = datetime.fromisoformat(text.removesuffix(" UTC"))
    except (ValueError, AttributeError):
        raise BadInput(f"event_time {text!r} is no time like '2019-11-01 00:00:00 UTC': correct the file") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def source_batches(path: Path, columns: tuple[str, ...] = COLUMNS) -> Iterator[list[list[Any]]]:
    """Stream the file as lists of columns, in the order of `columns`; times in ms.

    Raises:
        BadInput: no such file, not CSV or Parquet, damaged, or without these columns.
    """
    pa = require_pyarrow()
    if not path.is_file():
        raise BadInput(f"{path} is missing: download the REES46 log (CSV, csv.gz or Parquet) first")
    try:
        batches = _parquet_batches if is_parquet(path) else _csv_batches
        yield from batches(pa, path, columns)
    except (pa.ArrowException, OSError) as error:  # a gzip file that was cut is an OSError to Arrow
        raise BadInput(
            f"{path} cannot be read as the REES46 log: {error}. If that is its end, download it again"
        ) from None


def _require_columns(path: Path, present: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in present]
    if missing:
        raise BadInput(f"{path} lacks the columns {', '.join(missing)}: it is not the REES46 log, correct the path")


def _parquet_batches(pa: Any, path: Path, columns: tuple[str, ...]) -> Iterator[list[list[Any]]]:  # noqa: ANN401 - pyarrow ships no types
    with pa.parquet.ParquetFile(path) as file:
        _require_columns(path, file.schema_arrow.names)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
            lists: list[list[Any]] = []
            for name in columns:
                column = batch.column(name)
                if pa.types.is_timestamp(column.type):
                    column = column.cast(pa.timestamp("ms", tz=column.type.tz), safe=False).cast(pa.int64())
                lists.append(column.to_pylist())
            yield lists


def _csv_batches(pa: Any, path: Path, columns: tuple[str, ...]) -> Iterator[list[list[Any]]]:  # noqa: ANN401 - pyarrow ships no types
    from pyarrow import csv

    text = dict.fromkeys(COLUMNS, pa.string())
    convert = csv.ConvertOptions(column_types=text, strings_can_be_null=True, null_values=[""])
    with pa.input_stream(str(path), compression="detect") as stream:
        reader = csv.open_csv(stream, csv.ReadOptions(block_size=1 << 23), convert_options=convert)
        _require_columns(path, reader.schema.names)
        for batch in reader:
            yield [batch.column(name).to_pylist() for name in columns]


def _source_rows(lists: list[list[Any]]) -> Iterator[SourceRow]:
    """Return the rows of one batch of all COLUMNS."""
    for time, kind, item, category_id, code, brand, price, user, session in zip(*lists, strict=True):
        yield SourceRow(
            time if isinstance(time, int) else _text_ms(time),
            kind,
            str(item),
            str(category_id) if category_id is not None else "",
            code or "",
            brand or "",
            minor_units(price),
            str(user),
            session or None,
        )


class _Importer:
    """The second pass: source rows in, rows of the log out."""

    def __init__(self, currency: str, events_of_withdrawing: Counter[str]) -> None:
        self._currency = currency
        self._remaining = {user: count // 2 for user, count in events_of_withdrawing.items() if count > 1}
        self._occurrences: dict[bytes, int] = {}
        self._second = 0
        self.users: set[str] = set()
        self.prices: dict[str, tuple[int, int]] = {}
        """Per item: the price of the last version, and the number of versions."""
        self.unpriced = 0

    def rows(self, batch: list[list[Any]]) -> tuple[list[EventRow], list[CatalogueRow]]:
        """Return the rows of events and consents, and those of the catalogue, that one batch of the source leads to."""
        events: list[EventRow] = []
        items: list[CatalogueRow] = []
        for row in _source_rows(batch):
            consent = self._consent(row)
            if consent is not None:
                events.append(consent)
            events.append(self._event(row))
            if row.price is None or row.price <= 0:
                self.unpriced += 1
            elif self.prices.get(row.item, (0, 0))[0] != row.price:
                version = self._version(row, row.price)
                if version is not None:
                    items.append(version)
        return events, items

    def _consent(self, row: SourceRow) -> EventRow | None:
        if row.user not in self.users:
            self.users.add(row.user)
            granted = not synthetic.denies(row.user)
        else:
            left = self._remaining.get(row.user)
            if left is None:
                return None
            self._remaining[row.user] = left - 1
            if left > 1:
                return None
            del self._remaining[row.user]
            granted = False
        return EventRow("consent", user=row.user, granted=granted, event_time_ms=row.time_ms, arrival_ms=row.time_ms)

    def _event(self, row: SourceRow) -> EventRow:
        known = _KINDS.get(row.kind)
        if known is None:
            raise BadInput(f"event_type {row.kind!r} is none of {', '.join(_KINDS)}: correct the file")
        kind, action = known
        return EventRow(
            kind,
            event_id=self._event_id(row),
            user=row.user,
            item=row.item,
            event_time_ms=row.time_ms,
            price=row.price,
            currency=self._currency,
            session=row.session,
            action=action,
            quantity=1 if kind == "purchase" else None,
            arrival_ms=row.time_ms,
        )

    def _event_id(self, row: SourceRow) -> str:
        """Equal rows share their second, so in a file sorted by time counting within a second is enough."""
        if row.time_ms != self._second:
            self._second = row.time_ms
            if len(self._occurrences) > _OCCURRENCES_MAX:
                self._occurrences.clear()
        digest = blake2b("|".join(map(str, row)).encode(), digest_size=8)
        key = digest.digest()
        number = self._occurrences.get(key, 0)
        self._occurrences[key] = number + 1
        return f"{digest.hexdigest()}-{number}"

    def _version(self, row: SourceRow, price: int) -> CatalogueRow | None:
        versions = self.prices.get(row.item, (0, 0))[1]
        if versions >= VERSIONS_MAX:
            return None
        self.prices[row.item] = (price, versions + 1)
        words = (row.brand, row.category.rpartition(".")[2].replace("_", " "), row.item)
        return synthetic.with_bounds(
            CatalogueRow(
                item=row.item,
                valid_from_ms=row.time_ms,
                title=" ".join(word for word in words if word),
                category=row.category or row.category_id,
                brand=row.brand,
                currency=self._currency,
                list_price=price,
            )
        )


def _first_pass(path: Path, progress: Progress) -> tuple[int, Counter[str]]:
    """Return the number of rows, and the events of each user who will withdraw consent."""
    rows = 0
    events: Counter[str] = Counter()
    for (users,) in source_batches(path, ("user_id",)):
        rows += len(users)
        for user, count in Counter(users).items():
            if synthetic.withdraws(str(user)):
                events[str(user)] += count
        progress(rows, None)
    return rows, events


def import_rees46(
    path: Path,
    directory: Path,
    topology: Topology,
    file_format: Format = "parquet",
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Turn the REES46 log at `path` into a log of ours in `directory`.

    Raises:
        BadInput: the file is not that log, or `directory` holds a log already.
    """
    manifest = Manifest(
        semantics=Semantics(consent_default=False, currency="USD"),
        topology=topology,
        source=f"{ATTRIBUTION}. File: {path.name}",
        offers="not_shown",
        synthetic=RULES + synthetic.RULES_CONSENT + synthetic.RULES_BOUNDS,
    )
    with LogWriter(directory, manifest, file_format) as writer:
        total, withdrawing = _first_pass(path, progress)
        importer = _Importer(manifest.semantics.currency, withdrawing)
        done = 0
        for batch in source_batches(path):
            events, items = importer.rows(batch)
            writer.rows(events)
            writer.catalogue(items)
            done += len(batch[0])
            progress(done, total)
        writer.policies(session_intent_policy())
    finished = writer.manifest
    return Imported(finished, len(importer.prices), len(importer.users), importer.unpriced)


def session_intent_policy() -> list[PolicyRow]:
    """Return the builtin rule as a published policy, session_intent@1, and the record that makes it the current one."""
    policy = Policy(name="session_intent", number=1, rule=BUILTIN.rule, rails=BUILTIN.rails)
    current = CurrentPolicy(name=policy.name, number=policy.number)
    return [PolicyRow(record=encode_policy(record).decode()) for record in (policy, current)]
