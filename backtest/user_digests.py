"""The digest of what a backtest published (contracts.digest), from its pieces, in bounded memory.

A partition has its users for itself, and many of them: they are digested in ranges, one pass over the pieces for each, and
kept sorted in a file; the files of all partitions together, merged, give the digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from pathlib import Path

import msgspec

from backtest.outputs import batches
from contracts.digest import PublishedDigest, UserDigest, digest_of_users

RECORDS_AT_ONCE = 4_000_000
"""Records of a partition that are digested in one pass, about: what bounds memory is their users."""
_SAMPLED = 1_024

_user = msgspec.json.Decoder(tuple[str, str]).decode
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[UserDigest]).decode
_LENGTH = 8


def digest_partition(work: Path, name: str, partition: int, at_once: int = RECORDS_AT_ONCE) -> None:
    """Digest the users of a partition by the pieces of table `name`, into a file beside them."""
    bounds = _bounds(work, name, partition, at_once)
    with _path(work, partition).open("wb") as file:
        for low, high in zip([b"", *bounds], [*bounds, None], strict=True):
            digest = PublishedDigest()
            for key, record in _records(work, name, partition):
                if bounds:
                    user = _user(key)[0].encode()
                    if user < low or (high is not None and user >= high):
                        continue
                digest.add(key, record)
            data = _encode(digest.users())
            file.write(len(data).to_bytes(_LENGTH, "big") + data)


def digest_of(work: Path, partitions: int) -> str:
    """Return the digest of all partitions, each digested before."""
    return digest_of_users(merge(*[_users(_path(work, number)) for number in range(partitions)]))


def _bounds(work: Path, name: str, partition: int, at_once: int) -> list[bytes]:
    """Return users that divide the others into ranges of about `at_once` records."""
    rows = [batch.num_rows for batch in batches(work, name, partition, ["key"])]
    ranges = -(-sum(rows) // at_once)
    if ranges <= 1:
        return []
    every = max(sum(rows) // (_SAMPLED * ranges), 1)
    sample, seen = [], 0
    for batch in batches(work, name, partition, ["key"]):
        for row in range(-seen % every, batch.num_rows, every):
            sample.append(_user(batch.column("key")[row].as_py())[0].encode())
        seen += batch.num_rows
    sample.sort()
    return sorted({sample[len(sample) * number // ranges] for number in range(1, ranges)})


def _records(work: Path, name: str, partition: int) -> Iterator[tuple[bytes, bytes]]:
    for batch in batches(work, name, partition, ["key", "record"]):
        yield from zip(batch.column("key").to_pylist(), batch.column("record").to_pylist(), strict=True)


def _path(work: Path, partition: int) -> Path:
    return work / f"users-{partition:04d}.digests"


def _users(path: Path) -> Iterator[UserDigest]:
    with path.open("rb") as file:
        while length := file.read(_LENGTH):
            yield from _decode(file.read(int.from_bytes(length, "big")))
