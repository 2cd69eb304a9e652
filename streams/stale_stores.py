"""Stores that a worker has not held for long: of partitions that went elsewhere, or from before a long absence.

They are removed and rebuilt from the changelog if need be, for two reasons. Whoever was forgotten meanwhile still lies in them,
and only the partition's owner hears of it. And the changelog tells of what was deleted for a limited time only
(streams.topics.TOMBSTONE_RETENTION_MS): a store that comes back later would bring it back. An open store writes to its directory
every few minutes, whether there are events or not. Not here: stores of other groups and other data directories.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

STALE_AFTER_S = 86_400.0
LOOK_EVERY_S = 3_600.0


def remove_stale(directory: Path, held: Collection[int], now_s: float) -> list[int]:
    """Remove the stores in `directory`, one per partition, that nobody has had open for STALE_AFTER_S; return their partitions.

    Args:
        directory: of a group's stores.
        held: partitions that this worker has open.
        now_s: Unix time.
    """
    removed = []
    for store in sorted(directory.glob("*")):
        if store.name.isdigit() and int(store.name) not in held and now_s - _touched_s(store) > STALE_AFTER_S:
            shutil.rmtree(store)
            removed.append(int(store.name))
    return removed


def _touched_s(store: Path) -> float:
    """Return the Unix time at which a file of the store, or its directory, was last written."""
    return max(path.stat().st_mtime for path in (store, *store.iterdir()))
