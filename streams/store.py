"""The state store of one partition: RocksDB through rocksdict, raw bytes, every option explicit.

Written only after the transaction that holds the same values has committed, values and changelog offset in one
WriteBatch: it is a prefix of the changelog at any instant, also after a crash. Does not know what a value means, but for
the two leading numbers of a user state that the expiry sweep reads, and the keys of pending draws and erasures.

What was deleted stays in RocksDB's files until they are compacted, and as the border of a file in its manifest. A store
that has written an erasure therefore asks to be purged, a local mark says so until that is done, and `purge` leaves live
values only.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path

from msgspec import Struct, msgpack
from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
)

from contracts.errors import BadSettings
from pricing.erasure import PREFIX as ERASURES
from pricing.timers import PREFIX, Timer, timer_of
from streams.ledger import LEDGER_KEY, OFFSET_KEY, PURGE_KEY, RESERVED

BACKGROUND_JOBS = 2
TARGET_FILE_BYTES = 32 << 20
LEVEL_BASE_BYTES = 128 << 20
WAL_BYTES_MAX = 64 << 20
OPEN_FILES_MAX = 256
BLOOM_BITS = 10
LOG_FILES_KEPT = 2
LOG_FILE_BYTES = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def is_of_the_disk(error: BaseException | None) -> bool:
    """Return whether a disk has failed or is full: rocksdict raises bare Exceptions with the text of RocksDB's status."""
    if isinstance(error, OSError):
        return error.errno in _DISK_ERRORS
    return type(error) is Exception and str(error).startswith(("IO error", "Corruption"))


def disk_remedy(error: BaseException, store: Path | None = None) -> str:
    """Return what to do about a disk that failed with `error`; only a store whose files are damaged or gone is removed."""
    text = str(error)
    if "Corruption" in text or "IO error: No such file" in text:
        which = (
            f"Remove {store}"
            if store is not None
            else "Remove the directory of that store, state/GROUP/PARTITION, and no other"
        )
        return f"{which}, and start again; it is rebuilt from the changelog"
    if "No space left" in text:
        return "Make room on its disk, and start again"
    return "Mend the disk (quota, mount, permissions, open files), and start again; nothing need be removed"


def is_held(error: Exception) -> bool:
    """Return whether RocksDB failed to lock a directory, and not to open its lock file, which a bad disk may do as well."""
    return "While lock file" in str(error) or "lock hold by" in str(error)


class _Head(Struct, array_like=True):
    sequence: int
    last_ms: int


_head = msgpack.Decoder(_Head).decode


def _options(cache: Cache, write_buffer_bytes: int) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_block_size(4 << 10)
    table.set_bloom_filter(BLOOM_BITS, block_based=False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(5)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(3)
    options.set_min_write_buffer_number_to_merge(1)
    options.set_level_zero_file_num_compaction_trigger(4)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES)
    options.set_target_file_size_base(TARGET_FILE_BYTES)
    options.set_max_background_jobs(BACKGROUND_JOBS)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_max_open_files(OPEN_FILES_MAX)
    options.set_use_fsync(False)  # the changelog is the truth; a torn tail is read again from it
    options.set_keep_log_file_num(LOG_FILES_KEPT)
    options.set_max_log_file_size(LOG_FILE_BYTES)
    return options


class StateStore:
    """One RocksDB: user key -> state bytes, and behind all users the pending draws and the erasures and the reserved keys."""

    def __init__(self, path: Path, cache: Cache, write_buffer_bytes: int) -> None:
        self.path = path
        self._cache = cache
        self._write_buffer_bytes = write_buffer_bytes
        self._sweep_from: bytes = b""
        self._walked = 0
        self._users = 0
        self._work: asyncio.Future[None] | None = None
        self._open()

    def _open(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            options = _options(self._cache, self._write_buffer_bytes)
            # Named, for else rocksdict opens what exists with the options of its last time and a cache of its own.
            self._db = Rdict(str(self.path), options, column_families={"default": options})
        except Exception as error:
            if is_held(error):
                raise BadSettings(
                    f"The data directory {self.path} is locked by another process: give each worker a --data-dir of its own"
                ) from None
            raise BadSettings(
                f"The store {self.path} cannot be opened: {error}. {disk_remedy(error, self.path)}"
            ) from None
        self.get = self._db.get

    @property
    def changelog_offset(self) -> int:
        """Offset of the last changelog record included, -1 if none."""
        value = self._db.get(OFFSET_KEY)
        return int(value) if value is not None else -1

    @property
    def ledger(self) -> bytes | None:
        """The ledger record, if there is one."""
        value: bytes | None = self._db.get(LEDGER_KEY)
        return value

    def write(self, items: Iterable[tuple[bytes, bytes | None]], changelog_offset: int) -> None:
        """Write values (None deletes) and the changelog offset that they reach, atomically."""
        batch = WriteBatch(raw_mode=True)
        put, delete, erases = batch.put, batch.delete, False
        for key, value in items:
            if value is None:
                delete(key)
            else:
                put(key, value)
                erases = erases or key[:3] == ERASURES
        if erases:
            put(PURGE_KEY, b"%d" % changelog_offset)
        put(OFFSET_KEY, b"%d" % changelog_offset)
        self._db.write(batch)

    def expired(self, before_ms: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Return (key, state), among the next `limit` of a walk over all users, of states last touched before `before_ms`.

        What an expired state leaves behind (features.state.expired_state) has no events, and is not found again.
        """
        iterator = self._db.iter()
        iterator.seek(self._sweep_from)
        found: list[tuple[bytes, bytes]] = []
        for _ in range(limit):
            if not iterator.valid() or iterator.key() >= RESERVED:
                iterator.status()
                self._sweep_from = b""
                self._users, self._walked = self._walked, 0
                return found
            key, value = iterator.key(), iterator.value()
            head = _head(memoryview(value)[1:])
            self._walked += head.sequence > 0
            if head.sequence and head.last_ms < before_ms:
                found.append((key, value))
            iterator.next()
        self._sweep_from = iterator.key() if iterator.valid() else b""
        return found

    def timers(self) -> Iterator[Timer]:
        """Yield the timers of all pending draws, ascending."""
        for key, _ in self._under(PREFIX, PREFIX):
            yield timer_of(key)

    def draws(self, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return the next `limit` pending draws behind the key `after`, b"" for the first, as (key, record)."""
        return list(islice(self._under(PREFIX, after + b"\0" if after else PREFIX), limit))

    def erasures(self) -> dict[bytes, bytes]:
        """Return the records of all erasures by key, those that are done included."""
        return dict(self._under(ERASURES, ERASURES))

    def _under(self, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        iterator = self._db.iter()
        iterator.seek(start)
        while iterator.valid() and (key := iterator.key()).startswith(prefix):
            yield key, iterator.value()
            iterator.next()
        iterator.status()  # raises if it has stopped at a damaged block, which looks like the end of all keys

    def users(self) -> int:
        """Return the number of users that the last whole walk of `expired` has met, or the present one if that is more.

        RocksDB's own estimate counts every write of a key until compaction: twenty times too many in a busy hour.
        """
        return max(self._users, self._walked)

    @property
    def to_purge(self) -> bool:
        """Whether files may still hold what an erasure has deleted."""
        return self._db.get(PURGE_KEY) is not None

    async def purge(self, rest: float = 0.0) -> None:
        """Rewrite every file without what was deleted, and name none of it in the manifest and the information log.

        Compaction runs in a thread, piece by piece, beside reads and writes, with `rest` seconds of rest per second of work.
        Cancelled, it ends with its piece, and is asked for again.
        """
        asked = self._db.get(PURGE_KEY)
        await self._beside(self._db.flush, True)
        borders = sorted({file["start_key"] for file in self._db.live_files()})
        for begin, end in pairwise([None, *borders, None]):
            begun = time.monotonic()
            await self._beside(self._compact, begin, end)
            await asyncio.sleep((time.monotonic() - begun) * rest)
        self._db.close()
        self._open()  # a manifest begins anew as a store is opened
        for old in self.path.glob("LOG.old.*"):
            old.unlink(missing_ok=True)
        if self._db.get(PURGE_KEY) == asked:
            self._db.delete(PURGE_KEY)

    def _compact(self, begin: bytes | None, end: bytes | None) -> None:
        options = CompactOptions()
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._db.compact_range(begin, end, options)

    async def _beside(self, work: Callable[..., None], *arguments: object) -> None:
        """Do a piece of work in a thread; it goes on to its end if this is cancelled."""
        self._work = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        await asyncio.shield(self._work)

    async def settle(self) -> None:
        """Wait for the piece of a purge that is under way: a store cannot be closed beside it."""
        if self._work is not None:
            await asyncio.wait({self._work})

    def wipe(self) -> None:
        """Remove everything, to be rebuilt from the changelog."""
        self.close()
        shutil.rmtree(self.path)
        self._open()

    def close(self) -> None:
        """Release the directory."""
        self._db.close()
