"""Deterministic identifiers: decision ids, short hashes of event ids, and the partition of a user.

Not random, not sequential: the same input position gives the same id in a worker and in a backtest.
"""

from __future__ import annotations

from hashlib import blake2b

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


class DecisionIds:
    """decision_id = blake2b-128(epoch, topic, partition, offset, item) as 32 hex characters (design law 1).

    One instance serves one topic and partition: the constant prefix is hashed once.
    """

    __slots__ = ("_prefix",)

    def __init__(self, epoch: int, topic: str, partition: int) -> None:
        self._prefix = blake2b(f"{epoch}\x00{topic}\x00{partition}\x00".encode(), digest_size=16)

    def of(self, offset: int, item: str) -> str:
        """Return the id of the decision on `item` made by the record at `offset`; item "" stands for the record itself."""
        state = self._prefix.copy()
        state.update(b"%d\x00%s" % (offset, item.encode()))
        return state.hexdigest()


def short_hash(text: str) -> bytes:
    """Return 8 bytes that stand for an event id in a user's ring; 2^-64 per pair that two ids collide."""
    return blake2b(text.encode(), digest_size=8).digest()


def user_hash(key: bytes) -> bytes:
    """Return 16 bytes that stand for the user with record key `key` where their id must not. Who knows the id can tell that."""
    return blake2b(key, digest_size=16).digest()


def murmur2(data: bytes) -> int:
    """Return Kafka's murmur2 of `data`, unsigned 32 bits. Source: org.apache.kafka.common.utils.Utils.murmur2."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of `key` as the Java and aiokafka default partitioners choose it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
