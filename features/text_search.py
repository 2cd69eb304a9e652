"""A catalogue asked in words: the items whose texts are nearest to a text, a search query or the profile of a user.

Works on what `pricetide model text` wrote: an encoder, and a cache of vectors by content, in which new items are kept as they
come. For people, never for a price, and off the path of events: a text that is new takes milliseconds. Not here: what is said of an
item (features.texts), when and how often to embed (streams.words).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import CatalogueItem
from features.text_cache import TextCache, content_key
from features.texts import Embeds, RecentTexts, TextEncoder, item_text

ENCODER_DIRECTORY, CACHE = "encoder", "texts.sqlite"
"""What `pricetide model text` calls the encoder and the cache in its directory."""
_ROWS_AT_FIRST = 64


class TextIndex:
    """Unit vectors of items, by id; grows in place."""

    def __init__(self, width: int) -> None:
        self._vectors = np.zeros((_ROWS_AT_FIRST, width), dtype=np.float32)
        self._items: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: str, vector: NDArray[np.float32]) -> None:
        """Add an item, or give it another vector."""
        row = self._rows.setdefault(item, len(self._items))
        if row == len(self._items):
            self._items.append(item)
            if row == len(self._vectors):
                self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
        self._vectors[row] = vector

    def remove(self, item: str) -> None:
        """Forget an item, if it is there."""
        row = self._rows.pop(item, None)
        if row is None:
            return
        last = self._items.pop()
        if last != item:
            self._items[row], self._rows[last] = last, row
            self._vectors[row] = self._vectors[len(self._items)]

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[tuple[str, float]]:
        """Return at most `count` items by falling cosine, equal ones by id, whatever the order in which they were put."""
        cosines = self._vectors[: len(self._items)] @ vector
        count = min(count, len(cosines))
        if count < 1:
            return []
        least = np.partition(cosines, len(cosines) - count)[len(cosines) - count]
        candidates = [(-float(cosines[row]), self._items[row]) for row in np.flatnonzero(cosines >= least)]
        return [(item, -cosine) for cosine, item in sorted(candidates)[:count]]


class TextSearch:
    """An encoder, a cache of vectors by content, and the index of the items that have a vector. For one thread.

    Attributes:
        digest: of the encoder.
        index: what `nearest` looks at.
    """

    def __init__(self, encoder: Embeds, digest: str, cache: TextCache) -> None:
        self.digest = digest
        self.index = TextIndex(encoder.width)
        self._encoder = encoder
        self._recent = RecentTexts(encoder)
        self._cache = cache
        self._of_items = 0
        self._indexed: dict[str, bytes] = {}
        """Content keys of the items in the index."""

    @property
    def embedded(self) -> int:
        """Texts that had to be embedded so far."""
        return self._of_items + self._recent.embedded

    def take(self, items: Mapping[str, CatalogueItem | None]) -> dict[str, str]:
        """Index those of `items` whose texts the cache has, forget those that are None; return the texts of the others, by id.

        Embeds nothing, and touches no item whose text is the one that is indexed. One of which nothing is said is left out.
        """
        texts = {item: "" if version is None else item_text(version) for item, version in items.items()}
        keys = {item: content_key(self.digest, text) if text else None for item, text in texts.items()}
        changed = {item: key for item, key in keys.items() if self._indexed.get(item) != key}
        found = self._cache.get({key for key in changed.values() if key is not None})
        unknown: dict[str, str] = {}
        for item, key in changed.items():
            if key is not None and key in found:
                self._put(item, key, found[key])
                continue
            self.index.remove(item)
            self._indexed.pop(item, None)
            if key is not None:
                unknown[item] = texts[item]
        return unknown

    def embed(self, texts: Mapping[str, str]) -> None:
        """Embed the texts of items, by id: index them, and keep them in the cache.

        Raises:
            BadInput: the cache cannot be written; they are in the index all the same.
        """
        distinct = list(dict.fromkeys(texts.values()))
        keys = {text: content_key(self.digest, text) for text in distinct}
        vectors = dict(zip(distinct, self._encoder.embed(distinct), strict=True))
        self._of_items += len(distinct)
        for item, text in texts.items():
            self._put(item, keys[text], vectors[text])
        self._cache.put({keys[text]: vector for text, vector in vectors.items()})

    def nearest(self, text: str, count: int) -> list[tuple[str, float]]:
        """Return at most `count` items by the falling cosine of their text with `text`, which is embedded if it is new."""
        return self.index.nearest(self._recent.embed([text])[0], count)

    def _put(self, item: str, key: bytes, vector: NDArray[np.float32]) -> None:
        self.index.put(item, vector)
        self._indexed[item] = key


def open_text_search(directory: Path, cache: Path | None = None) -> TextSearch:
    """Return an empty search with the encoder in `directory`, which `pricetide model text` wrote, and its cache, or another one.

    Raises:
        BadArtifact: there is no encoder that this release can use.
        BadInput: the cache is none.
        BadSettings: onnxruntime or tokenizers is not installed.
    """
    encoder = TextEncoder(directory / ENCODER_DIRECTORY)
    return TextSearch(encoder, encoder.digest, TextCache(cache or directory / CACHE))


def parts_of(texts: Mapping[str, str], size: int) -> Sequence[dict[str, str]]:
    """Return `texts` in parts of `size`, those of about one length together, so that little is padding."""
    ordered = sorted(texts.items(), key=lambda pair: (len(pair[1]), pair))
    return [dict(ordered[start : start + size]) for start in range(0, len(ordered), size)]
