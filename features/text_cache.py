"""Vectors by content: sha256 of (encoder digest, text), in one SQLite file, so that no text is embedded twice.

Safe to interrupt and to share: every batch is one transaction. Does not embed, and never forgets: delete the file to.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadInput

_KEYS_AT_A_TIME = 500


def content_key(encoder_digest: str, text: str) -> bytes:
    """Return 32 bytes that stand for what `text` means to an encoder."""
    return hashlib.sha256(f"{encoder_digest}\x00{text}".encode()).digest()


class TextCache:
    """The cache in `file`, made if needed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._database = sqlite3.connect(file)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
            )
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{file} is no cache of vectors ({error}): delete it, or name another one") from None

    def __enter__(self) -> TextCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the vectors of those `keys` that it has.

        Raises:
            BadInput: the file cannot be read.
        """
        found: dict[bytes, NDArray[np.float32]] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), _KEYS_AT_A_TIME):
            part = wanted[start : start + _KEYS_AT_A_TIME]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"
            with self._usable(), closing(self._database.execute(query, part)) as rows:
                found.update((key, np.frombuffer(vector, dtype="<f4")) for key, vector in rows)
        return found

    def put(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Add vectors, all or none.

        Raises:
            BadInput: the file cannot be written.
        """
        rows = [(key, np.asarray(vector, dtype="<f4").tobytes()) for key, vector in vectors.items()]
        with self._usable(), self._database:
            self._database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{self._file} cannot be used ({error}): make it writable, or name another cache") from None
