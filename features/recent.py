"""The ring of recent event ids: a repeated id among them changes nothing; beyond them it counts as new.

Ids are kept as 8-byte hashes side by side, oldest first. Not a proof of uniqueness: two ids collide with 2^-64 per pair.
"""

from __future__ import annotations

ID_BYTES = 8


def holds(ring: bytes, key: bytes) -> bool:
    """Return whether `key`, 8 bytes, is one of the ids of `ring`; the same bytes across two neighbours are no match."""
    at = ring.find(key)
    while at % ID_BYTES and at > 0:
        at = ring.find(key, at + 1)
    return at >= 0


def remember(ring: bytes, key: bytes, ids_max: int) -> bytes:
    """Return `ring` with `key` behind it, the oldest beyond `ids_max` forgotten."""
    return (ring + key)[-ID_BYTES * ids_max :]
