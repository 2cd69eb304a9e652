"""The digest of what a backtest published (contracts.digest), from its pieces, in bounded memory.

A partition has its users for itself, and many of them: they are digested in ranges, and kept sorted in a file; the files of
all partitions together, merged, give the digest. Records that are too many for one range are first divided into files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import BinaryIO

import msgspec

from backtest.outputs import batches
from contracts.digest import PublishedDigest, UserDigest, digest_of_users

RECORDS_AT_ONCE = 500_000
"""Records of a range, about: what bounds memory is their users, at 700 bytes each."""
_SAMPLED = 1_024
_USERS_PER_CHUNK = 4_096
_RECORDS_WAITING_MAX = 65_536

Record = tuple[bytes, bytes]

_user = msgspec.json.Decoder(tuple[str, str]).decode
_encode = msgspec.msgpack.Encoder().encode
_decode_users = msgspec.msgpack.Decoder(list[UserDigest]).decode
_decode_records = msgspec.msgpack.Decoder(list[Record]).decode
_LENGTH = 8


def digest_partition(work: Path, name: str, partition: int, at_once: int = RECORDS_AT_ONCE) -> None:
    """Digest the users of a partition by the pieces of table `name`, into a file beside them."""
    with _path(work, partition).open("wb") as file:
        for records in _ranges(work, name, partition, at_once):
            digest = PublishedDigest()
            for key, record in records:
                digest.add(key, record)
            users = digest.users()
            for start in range(0, len(users), _USERS_PER_CHUNK):
                _append(file, users[start : start + _USERS_PER_CHUNK])


def digest_of(work: Path, partitions: int) -> str:
    """Return the digest of all partitions, each digested before."""
    return digest_of_users(merge(*[_users(_path(work, number)) for number in range(partitions)]))


def _ranges(work: Path, name: str, partition: int, at_once: int) -> Iterator[Iterator[Record]]:
    """Yield the records of one range of users after another, each to be read before the next."""
    bounds = _bounds(work, name, partition, at_once)
    if not bounds:
        yield _records(work, name, partition)
        return
    paths = [work / f"users-{partition:04d}-{number:04d}.records" for number in range(len(bounds) + 1)]
    for path in paths:
        path.write_bytes(b"")
    _divide(_records(work, name, partition), bounds, paths)
    for path in paths:
        yield _divided(path)
        path.unlink()


def _divide(records: Iterator[Record], bounds: Sequence[bytes], paths: Sequence[Path]) -> None:
    """Append each record to the file of its user's range."""
    waiting: defaultdict[int, list[Record]] = defaultdict(list)

    def write() -> None:
        for place, some in waiting.items():
            with paths[place].open("ab") as file:
                _append(file, some)
        waiting.clear()

    for count, record in enumerate(records, 1):
        waiting[bisect_right(bounds, _user(record[0])[0].encode())].append(record)
        if not count % _RECORDS_WAITING_MAX:
            write()
    write()


def _bounds(work: Path, name: str, partition: int, at_once: int) -> list[bytes]:
    """Return users that divide the others into ranges of about `at_once` records."""
    rows = sum(batch.num_rows for batch in batches(work, name, partition, ["key"]))
    ranges = -(-rows // at_once)
    if ranges <= 1:
        return []
    every = max(rows // (_SAMPLED * ranges), 1)
    sample, seen = [], 0
    for batch in batches(work, name, partition, ["key"]):
        for row in range(-seen % every, batch.num_rows, every):
            sample.append(_user(batch.column("key")[row].as_py())[0].encode())
        seen += batch.num_rows
    sample.sort()
    return sorted({sample[len(sample) * number // ranges] for number in range(1, ranges)})


def _records(work: Path, name: str, partition: int) -> Iterator[Record]:
    for batch in batches(work, name, partition, ["key", "record"]):
        yield from zip(batch.column("key").to_pylist(), batch.column("record").to_pylist(), strict=True)


def _path(work: Path, partition: int) -> Path:
    return work / f"users-{partition:04d}.digests"


def _append(file: BinaryIO, rows: Sequence[UserDigest] | Sequence[Record]) -> None:
    data = _encode(rows)
    file.write(len(data).to_bytes(_LENGTH, "big") + data)


def _users(path: Path) -> Iterator[UserDigest]:
    for data in _chunks(path):
        yield from _decode_users(data)


def _divided(path: Path) -> Iterator[Record]:
    for data in _chunks(path):
        yield from _decode_records(data)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while length := file.read(_LENGTH):
            yield file.read(int.from_bytes(length, "big"))
