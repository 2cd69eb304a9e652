"""The states of one partition in bounded memory: what was written last lies in dicts, the rest in RocksDB on disk.

Two generations of dicts: `save` writes the younger one to disk in one batch, together with a note of whoever saves, and drops
the older one. So what lies on disk is always the whole of one instant, and a killed replay goes on from there. A log
whose states fit is never written anywhere, unless it is to be resumable. Does not know what a value means, but for the
keys of pending draws. Not the store of a worker (streams.store), which follows a changelog.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from contracts.errors import BadInput
from pricing.timers import PREFIX, Timer, timer_of

NOTE_KEY: Final = b"\xff\xff\xff"
"""Behind all users and pending draws."""
ENTRY_BYTES = 200
"""What a key and its place in a dict take beside the value, roughly."""
BUFFER_MIN, BUFFER_MAX = 1 << 20, 16 << 20
"""Of what RocksDB writes from; of what it keeps of its files, their indices included; of each."""
BLOOM_BITS = 10


class _Missing:
    """No value, and that is known."""


_MISSING = _Missing()


class States:
    """User key -> state, and the records of pending draws."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        """Open what was saved at `path`, if anything was; it is made when needed.

        Args:
            path: directory of the database.
            bytes_max: what the dicts may take, about.

        Raises:
            BadInput: another process has it open, or it is damaged.
        """
        self._path = path
        self._generation_max = bytes_max // 2
        self._young: dict[bytes, bytes | None] = {}
        self._old: dict[bytes, bytes | None] = {}
        self._bytes = 0
        self._db: Any = None  # an Rdict; a log whose states fit needs no RocksDB
        if path.exists():
            self._open()

    @property
    def full(self) -> bool:
        """Whether it is time to save: the dicts have what they may have."""
        return self._bytes > self._generation_max

    @property
    def note(self) -> bytes | None:
        """What the last save noted; None if nothing was saved."""
        found: bytes | None = self._db.get(NOTE_KEY) if self._db is not None else None
        return found

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, None if it has none."""
        value = self._young.get(key, _MISSING)
        if value is _MISSING:
            if self._db is None:
                return None
            value = self._old.get(key, _MISSING)
            if value is _MISSING:
                value = self._db.get(key)
        assert not isinstance(value, _Missing)
        return value

    def update(self, values: Mapping[bytes, bytes | None]) -> None:
        """Take new values; None deletes."""
        young, size = self._young, self._bytes
        for key, value in values.items():
            before = young.pop(key, None)
            if before is not None:
                size -= len(before) + ENTRY_BYTES
            if value is not None:
                size += len(value) + ENTRY_BYTES
            elif self._db is None:
                continue
            young[key] = value
        self._bytes = size

    def save(self, note: bytes) -> None:
        """Write everything that has changed since the last save, and `note`, to disk: all of it or nothing."""
        from rocksdict import WriteBatch

        if self._db is None:
            self._open()
        batch = WriteBatch(raw_mode=True)
        for key, value in self._young.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(NOTE_KEY, note)
        self._db.write(batch)
        self._old, self._young, self._bytes = self._young, {}, 0

    def timers(self) -> Iterator[Timer]:
        """Yield the timers of the pending draws that were saved, ascending; before the first update only."""
        if self._db is None:
            return
        iterator = self._db.iter()
        iterator.seek(PREFIX)
        while iterator.valid() and (key := iterator.key()).startswith(PREFIX):
            yield timer_of(key)
            iterator.next()
        try:
            iterator.status()  # raises if it has stopped at a damaged block, which looks like the end of all keys
        except Exception as error:
            raise BadInput(f"{self._path} is damaged ({error}): remove it, and begin anew") from None

    def close(self) -> None:
        """Release the directory."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> None:
        from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict

        buffer_bytes = min(max(self._generation_max // 2, BUFFER_MIN), BUFFER_MAX)
        table = BlockBasedOptions()
        table.set_block_cache(Cache(buffer_bytes))
        table.set_cache_index_and_filter_blocks(True)  # else they lie beside the cache, and grow with the users
        table.set_bloom_filter(BLOOM_BITS, block_based=False)  # most misses are users who were never seen
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_block_based_table_factory(table)
        options.set_write_buffer_size(buffer_bytes)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_max_background_jobs(1)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(self._path), options, column_families={"default": options})
        except Exception as error:
            raise BadInput(f"{self._path} cannot be opened ({error}): {_remedy(str(error))}") from None


def _remedy(text: str) -> str:
    """Return what to do where RocksDB has failed with `text`: at locking, at damaged files, or at the disk."""
    if "While lock file" in text or "lock hold by" in text:  # an error at opening the lock file is one of the disk
        return "wait for the other backtest, or name another directory"
    if "Corruption" in text or "IO error: No such file" in text:
        return "remove it, and begin anew"
    return "mend the disk (room, quota, mount, permissions, open files), or name another directory"
