"""What the user transformer is trained on: the tokens of a log as a worker would make them, and the items they are of.

Tokens are those of model_export.applied, so repeated events, late ones and refused records count here as they do live.
Users are sequences, split by event time: what lies before `until_ms` may be learned from, and the end of it is set aside
for validation. Items are those of the catalogue in force, or met, before `until_ms`; later ones have row 0, as in a
worker. Not here: the network, the losses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.errors import BadInput
from contracts.log import Log
from features.inputs import FEATURE_NAMES, UNKNOWN_ITEM, token_features
from features.signals import SIGNAL_NAMES, Signals
from features.tokens import KINDS, tokens
from model_export.applied import Applied, applied_events, catalogue_of
from model_export.propensity import PURCHASE_WITHIN_MS, purchase_labels

TEXT_WIDTH = 384
"""Floats of an item's text vector."""
FALLBACK_TEXT = "hashed character n-grams"

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Items:
    """The items a model knows, N of them; what stands at place i belongs to row i + 1."""

    ids: list[str]
    titles: list[str]
    categories: NDArray[np.int64]
    """(N,): 1 and up; 0 is for none."""
    category_count: int
    """With 0."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a log, n of them, user by user, each user's in the order applied."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    """A code per item id, of unknown items, too."""
    row: NDArray[np.int64]
    """Of the item among Items; UNKNOWN_ITEM for one that is not there."""
    kind: NDArray[np.int64]
    features: NDArray[np.float32]
    """(n, F): features.inputs, as in the graph."""
    signals: NDArray[np.float32]
    """(n, S): features.signals, as of each token."""
    time_ms: NDArray[np.int64]
    bought: NDArray[np.bool_]
    """Whether the user buys the token's item within PURCHASE_WITHIN_MS after it."""

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Tokens before `until_ms`, the items known by then, and where validation begins."""

    tokens: Tokens
    items: Items
    validation_ms: int
    until_ms: int
    known_ms: NDArray[np.int64]
    """(N + 1,): event time from which an item is known: met, or in the catalogue."""
    log_digest: str


def read_dataset(
    log: Log,
    until_ms: int | None = None,
    validation: float = 0.1,
    progress: Progress = lambda done, total: None,
    learns_from: Callable[[str], bool] = lambda user: True,
) -> Dataset:
    """Read the part of `log` that a model may learn from.

    Args:
        log: an opened log.
        until_ms: event time at which that part ends; None: with the log.
        validation: share of that part's time, at its end, that is set aside.
        progress: called with records done, and how many there are.
        learns_from: whether a user's events are in that part; of the others nothing is known, but that the catalogue is whole.

    Raises:
        BadInput: too little is left to learn from or to validate with.
    """
    catalogue = catalogue_of(log)
    events = _Columns()
    total = sum(map(sum, log.manifest.records.values()))
    for done, applied in enumerate(applied_events(log, catalogue), 1):
        if learns_from(applied.event.user):
            events.add(applied)
        progress(done, total)
    if not events.time_ms:
        raise BadInput(f"{log.directory} holds no event that a worker would apply: use another log")
    first_ms, end_ms = min(events.time_ms), max(events.time_ms) + 1  # the manifest's range has refused events, too
    until_ms = end_ms if until_ms is None else min(until_ms, end_ms)
    validation_ms = until_ms - int((until_ms - first_ms) * validation)
    items = _items_of(events, catalogue, until_ms)
    known = {item: row for row, item in enumerate(items.ids, 1)}
    chosen = events.tokens(known, until_ms)
    early = int((chosen.time_ms < validation_ms).sum())
    if not 0 < early < len(chosen):
        raise BadInput(
            f"{log.directory}: {early} events to learn from and {len(chosen) - early} to validate with: use a longer log, "
            "a later --until, or another share for validation"
        )
    known_ms = np.full(len(items.ids) + 1, validation_ms, dtype=np.int64)
    np.minimum.at(known_ms, chosen.row, chosen.time_ms)
    for item, row in known.items():
        if catalogue.at(item, validation_ms - 1) is not None:
            known_ms[row] = 0
    known_ms[UNKNOWN_ITEM] = np.iinfo(np.int64).max
    return Dataset(chosen, items, validation_ms, until_ms, known_ms, log_digest(log))


def log_digest(log: Log) -> str:
    """Return the digest of a log: the SHA-256 of its manifest, which holds that of every table; 16 hex digits."""
    return hashlib.sha256(msgspec.json.encode(log.manifest, order="deterministic")).hexdigest()[:16]


class _Columns:
    """Events as they come, partition by partition."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self.user: list[int] = []
        self.item: list[str] = []
        self.kind: list[int] = []
        self.features: list[tuple[float, ...]] = []
        self.signals: list[Signals] = []
        self.time_ms: list[int] = []

    def add(self, applied: Applied) -> None:
        token = next(tokens(applied.token))
        self.user.append(self._users.setdefault(applied.event.user, len(self._users)))
        self.item.append(token.item)
        self.kind.append(KINDS.index(token.kind))
        self.features.append(token_features(token.price, token.list_price, token.event_time_ms, applied.before_ms))
        self.signals.append(applied.signals)
        self.time_ms.append(token.event_time_ms)

    def tokens(self, known: Mapping[str, int], until_ms: int) -> Tokens:
        """Return the tokens before `until_ms`, whose purchases, too, are only those before it."""
        names: dict[str, int] = {}
        codes = np.array([names.setdefault(item, len(names)) for item in self.item], dtype=np.int32)
        rows = np.array([known.get(item, UNKNOWN_ITEM) for item in self.item], dtype=np.int64)
        user, time_ms = np.array(self.user, dtype=np.int32), np.array(self.time_ms, dtype=np.int64)
        kind = np.array(self.kind, dtype=np.int8)
        kept = np.flatnonzero(time_ms < until_ms)
        order = kept[np.argsort(user[kept], kind="stable")]
        return Tokens(
            user=user[order],
            item=codes[order],
            row=rows[order],
            kind=kind[order].astype(np.int64),
            features=np.array(self.features, dtype=np.float32).reshape(-1, len(FEATURE_NAMES))[order],
            signals=np.array(self.signals, dtype=np.float32).reshape(-1, len(SIGNAL_NAMES))[order],
            time_ms=time_ms[order],
            bought=purchase_labels(user[order], codes[order], kind[order], time_ms[order]),
        )


def _items_of(events: _Columns, catalogue: Catalogue, until_ms: int) -> Items:
    met = {item for item, time_ms in zip(events.item, events.time_ms, strict=True) if time_ms < until_ms}
    in_force = {item: found[1] for item in {*met, *catalogue} if (found := catalogue.at(item, until_ms - 1))}
    ids = sorted(met | in_force.keys())
    names = {"": 0} | {
        name: place for place, name in enumerate(sorted({item.category for item in in_force.values()} - {""}), 1)
    }
    return Items(
        ids=ids,
        titles=[in_force[item].title if item in in_force else "" for item in ids],
        categories=np.array(
            [names[in_force[item].category] if item in in_force else 0 for item in ids], dtype=np.int64
        ),
        category_count=len(names),
    )


def labelled(tokens: Tokens, from_ms: int, until_ms: int) -> NDArray[np.bool_]:
    """Return which tokens of [from_ms, until_ms) are examples of the propensity: no purchase, and their window is over."""
    over = tokens.time_ms + PURCHASE_WITHIN_MS <= until_ms
    judged: NDArray[np.bool_] = over & (tokens.time_ms >= from_ms) & (tokens.kind != KINDS.index("purchase"))
    return judged


def text_vectors(items: Items, directory: Path | None) -> tuple[NDArray[np.float32], str]:
    """Return (N, width) text vectors of unit length, zeros for an item that has none, and the name of what made them.

    Args:
        items: whose texts are embedded.
        directory: vectors as `pricetide model text` writes them; None: hashed character n-grams of the titles, which need no
            language model, and know no synonyms.

    Raises:
        BadInput: the directory does not hold such vectors, or holds those of other items.
    """
    if directory is None:
        from sklearn.feature_extraction.text import HashingVectorizer

        hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=TEXT_WIDTH, dtype=np.float32)
        return hashing.transform(items.titles).toarray(), FALLBACK_TEXT
    from model_export.text import read_item_texts

    texts = read_item_texts(directory)
    place = {item: at for at, item in enumerate(texts.ids)}
    found = np.array([place.get(item, -1) for item in items.ids])
    if (found < 0).mean() > 0.5:
        raise BadInput(
            f"{directory} has text vectors of {(found >= 0).sum()} of the log's {len(found)} items: embed its catalogue"
        )
    vectors = np.where(found[:, None] >= 0, texts.vectors[found], np.float32(0))
    return vectors, f"{texts.manifest.encoder} {texts.manifest.digest}"
