"""The vectors of a catalogue's items: their texts through an exported text encoder, each text once per content hash.

A directory with vectors.npy (float32, unit vectors), items.json (their ids, sorted) and vectors.json (what made them). Not
here: what is said of an item (features.texts.item_text), the export of an encoder (text_export).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import CatalogueItem
from contracts.errors import BadInput
from contracts.log import open_log
from features.text_cache import TextCache, content_key
from features.texts import Progress, TextEncoder, item_text
from model_export.applied import applied_events, catalogue_of
from model_export.lora import session_pairs
from model_export.next_item import default_split_ms, interactions_of, task_of

VECTORS, IDS, VECTORS_MANIFEST = "vectors.npy", "items.json", "vectors.json"
_TEXTS_PER_TRANSACTION = 1_024


class VectorsManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vectors of a catalogue are."""

    encoder: str
    digest: str
    """Of the encoder, as features.texts.TextEncoder has it."""
    items: int
    width: int
    sha256: str
    """Of the file of vectors."""
    format: int = 1


class ItemTexts(NamedTuple):
    """The vectors of a catalogue's items."""

    manifest: VectorsManifest
    ids: Sequence[str]
    vectors: NDArray[np.float32]
    """(items, width), unit vectors, in the order of `ids`."""


def behaviour_pairs(directory: Path, until_ms: int | None = None) -> list[tuple[str, str]]:
    """Return the texts of items that a user of the log met one after the other before `until_ms`, in order of time.

    Raises:
        BadInput: no log there.
    """
    log = open_log(directory)
    catalogue = catalogue_of(log)
    events = ((one.event.user, one.event.item, one.event.event_time_ms) for one in applied_events(log, catalogue))
    interactions, _ = interactions_of(events)
    split_ms = default_split_ms(interactions) if until_ms is None else until_ms
    task = task_of(interactions, split_ms, split_ms)
    found = [catalogue.at(item, split_ms) for item in task.candidates]
    texts = [item_text(version[1]) if version is not None else None for version in found]
    pairs = ((texts[left], texts[right]) for left, right in session_pairs(task))
    return [(left, right) for left, right in pairs if left and right and left != right]


def embedded_texts(
    encoder: TextEncoder, texts: Sequence[str], cache: TextCache, progress: Progress = lambda done, total: None
) -> tuple[NDArray[np.float32], int]:
    """Return (len(texts), width) vectors, and how many texts had to be embedded: those that the cache does not have."""
    keys = [content_key(encoder.digest, text) for text in texts]
    found = cache.get(set(keys))
    unknown = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
    by_length = sorted(unknown, key=lambda key: len(unknown[key]))
    for start in range(0, len(by_length), _TEXTS_PER_TRANSACTION):
        part = by_length[start : start + _TEXTS_PER_TRANSACTION]
        new = dict(zip(part, encoder.embed([unknown[key] for key in part]), strict=True))
        cache.put(new)
        found.update(new)
        progress(start + len(part), len(by_length))
    vectors = np.array([found[key] for key in keys], dtype=np.float32).reshape(len(texts), encoder.width)
    return vectors, len(unknown)


def write_item_texts(
    directory: Path, encoder: TextEncoder, items: Mapping[str, CatalogueItem], cache: TextCache, progress: Progress
) -> tuple[ItemTexts, int]:
    """Embed `items`, write their vectors to `directory`, and return them and how many texts were not in the cache."""
    ids = sorted(items)
    vectors, embedded = embedded_texts(encoder, [item_text(items[item]) for item in ids], cache, progress)
    np.save(directory / VECTORS, vectors, allow_pickle=False)
    (directory / IDS).write_bytes(msgspec.json.encode(ids))
    manifest = VectorsManifest(
        encoder=encoder.manifest.name,
        digest=encoder.digest,
        items=len(ids),
        width=encoder.width,
        sha256=hashlib.sha256((directory / VECTORS).read_bytes()).hexdigest(),
    )
    (directory / VECTORS_MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return ItemTexts(manifest, ids, vectors), embedded


def read_item_texts(directory: Path) -> ItemTexts:
    """Return what `write_item_texts` wrote to `directory`.

    Raises:
        BadInput: it is not there, or its files do not belong together.
    """
    try:
        manifest = msgspec.json.decode((directory / VECTORS_MANIFEST).read_bytes(), type=VectorsManifest)
        ids = msgspec.json.decode((directory / IDS).read_bytes(), type=list[str])
        written = (directory / VECTORS).read_bytes()
        vectors = np.lib.format.read_array(BytesIO(written), allow_pickle=False)
    except Exception as error:  # what NumPy raises of bytes that are no array has no base in common
        raise BadInput(f"{directory} holds no vectors of items ({error}): run pricetide model text") from None
    fits = vectors.shape == (manifest.items, manifest.width) and len(ids) == manifest.items
    if not fits or hashlib.sha256(written).hexdigest() != manifest.sha256:
        raise BadInput(f"The files in {directory} do not belong together: run pricetide model text again")
    return ItemTexts(manifest, ids, vectors)
