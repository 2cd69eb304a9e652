"""Texts to vectors: what is said of an item, and a language model at work on it, on search queries and on profiles.

The language model is a directory that `pricetide model text` wrote: an ONNX graph with pooling and normalisation in it, a
tokenizer, and a manifest. A text takes milliseconds: never call this on the path of an event. Vectors are unit vectors, so
their product is the cosine. A text's vector does not depend on what it is batched with, up to 1e-6 (padding is masked).
Not here: export and the vectors of a whole catalogue (model_export), the profile itself (features.profile).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.catalogue import CatalogueItem
from contracts.errors import UNREADABLE, BadArtifact, BadSettings
from features.graph import open_session

TEXT_MANIFEST = "text_encoder.json"
GRAPH, TOKENIZER = "text_encoder.onnx", "tokenizer.json"
TEXTS_AT_A_TIME = 32
_AGAIN = "copy the directory again, or run pricetide model text again"

Progress = Callable[[int, int | None], None]


def item_text(item: CatalogueItem) -> str:
    """Return what is said of an item: title, category and brand, as far as it has them. The one place that says it.

    A category is the words of its path; one that is only a number says nothing.
    """
    category = "" if item.category.isdigit() else item.category.replace(".", ", ").replace("_", " ")
    parts = (item.title, f"category: {category}" if category else "", f"brand: {item.brand}" if item.brand else "")
    return "; ".join(part for part in parts if part)


class TextManifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an exported text encoder is."""

    name: str
    source: str
    """sha256 over the files that it was exported from."""
    width: int
    tokens_max: int
    """Longer texts are cut."""
    pooling: str = "mean"
    """How a text's vector is made of its tokens' (model_export.pooling)."""
    pooling_declared: bool = False
    """Whether the encoder that was exported says so; else the mean was taken for want of it."""
    files: dict[str, str]
    """sha256 by file."""
    versions: dict[str, str]
    """Of the libraries that exported it."""
    format: int = 1


class Embeds(Protocol):
    """What turns texts into vectors."""

    @property
    def width(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), width) unit vectors."""


class TextEncoder:
    """An exported text encoder, one thread.

    Attributes:
        digest: first 16 hex digits of the sha256 of the manifest: the name of what made a vector.
    """

    def __init__(self, directory: Path) -> None:
        """Read and check the encoder in `directory`.

        Raises:
            BadArtifact: it is missing, damaged, or of another release.
            BadSettings: onnxruntime or tokenizers is not installed.
        """
        self.manifest, self.digest = read_text_manifest(directory)
        graph, tokenizer = (_checked(directory / name, self.manifest.files.get(name)) for name in (GRAPH, TOKENIZER))
        self._session = open_session(graph)
        self._tokenizer = _tokenizer(tokenizer, self.manifest.tokens_max)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self.manifest.width

    def embed(self, texts: Sequence[str], progress: Progress = lambda done, total: None) -> NDArray[np.float32]:
        """Return (len(texts), width) unit vectors. Texts of about one length go together, so that little is padding."""
        vectors = np.empty((len(texts), self.width), dtype=np.float32)
        encoded = self._tokenizer.encode_batch(list(texts))
        by_length = sorted(range(len(texts)), key=lambda place: len(encoded[place].ids))
        for start in range(0, len(texts), TEXTS_AT_A_TIME):
            places = by_length[start : start + TEXTS_AT_A_TIME]
            shape = (len(places), len(encoded[places[-1]].ids))
            ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
            for row, place in enumerate(places):
                length = len(encoded[place].ids)
                ids[row, :length] = encoded[place].ids
                mask[row, :length] = 1
            vectors[places] = self._session.run(None, {"ids": ids, "mask": mask})[0]
            progress(start + len(places), len(texts))
        return vectors


class RecentTexts:
    """The vectors of the texts asked for last, at most `texts_max`: for search queries and profiles, which come again.

    Attributes:
        hits, embedded: texts that were there; texts that were not.
    """

    def __init__(self, encoder: Embeds, texts_max: int = 10_000) -> None:
        self._encoder = encoder
        self._texts_max = texts_max
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self.hits = self.embedded = 0

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self._encoder.width

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), width) unit vectors; only unknown texts are embedded, each once."""
        found: dict[str, NDArray[np.float32]] = {}
        unknown: list[str] = []
        for text in dict.fromkeys(texts):
            if text in self._vectors:
                self._vectors.move_to_end(text)
                found[text] = self._vectors[text]
            else:
                unknown.append(text)
        self.hits += len(found)
        self.embedded += len(unknown)
        if unknown:
            new = dict(zip(unknown, self._encoder.embed(unknown), strict=True))
            found |= new
            self._vectors |= new
            while len(self._vectors) > self._texts_max:
                self._vectors.popitem(last=False)
        return np.array([found[text] for text in texts], dtype=np.float32).reshape(len(texts), self.width)


def read_text_manifest(directory: Path) -> tuple[TextManifest, str]:
    """Return the manifest of the text encoder in `directory` and its digest.

    Raises:
        BadArtifact: there is none that this release reads.
    """
    written = _read(directory / TEXT_MANIFEST)
    try:
        manifest = msgspec.json.decode(written, type=TextManifest)
    except UNREADABLE as error:
        raise BadArtifact(f"{directory / TEXT_MANIFEST} is no manifest of this release ({error}): {_AGAIN}") from error
    if manifest.format != 1:
        raise BadArtifact(f"{directory / TEXT_MANIFEST} has format {manifest.format}, this release reads 1: {_AGAIN}")
    return manifest, hashlib.sha256(written).hexdigest()[:16]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadArtifact(f"{file} cannot be read ({error.strerror}): {_AGAIN}") from error


def _checked(file: Path, sha256: str | None) -> bytes:
    value = _read(file)
    if hashlib.sha256(value).hexdigest() != sha256:
        raise BadArtifact(f"{file} is not the file that {TEXT_MANIFEST} names: {_AGAIN}")
    return value


def _tokenizer(written: bytes, tokens_max: int) -> Any:  # noqa: ANN401 - imported only where a text encoder is used
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise BadSettings(
            "A text encoder needs tokenizers, which is not installed: pip install 'pricetide[text]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_str(written.decode())
    except Exception as error:  # its binding raises bare Exception
        raise BadArtifact(f"{TOKENIZER} cannot be read ({error}): {_AGAIN}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(tokens_max)
    return tokenizer
