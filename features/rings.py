"""Which user has which row of the slab, and what that row's ring has seen. Bounded; the least recently used goes first.

Books only: the rings themselves are arrays of features.encoder, and a row is given on uncleared.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

Key = tuple[Hashable, bytes]
"""Owner and user: two owners never share a ring."""

NOTHING = -1
"""Position of a ring that holds no user's tokens, or where a run was broken off."""


class Ring:
    """One row of the slab."""

    __slots__ = ("position", "row", "time_ms")

    def __init__(self, row: int) -> None:
        self.row = row
        self.position = NOTHING
        """Position of the token it is ready for, or NOTHING."""
        self.time_ms = 0
        """Event time of the token before that one."""


class Rings:
    """The rows of a slab, by owner and user."""

    def __init__(self, rows: int) -> None:
        """Keep books of `rows` rows, >= 1."""
        self._free = list(range(rows - 1, -1, -1))
        self._used: OrderedDict[Key, Ring] = OrderedDict()
        self.evicted = 0
        """Users that lost their row to another one."""

    def __len__(self) -> int:
        return len(self._used)

    def take(self, key: Key) -> Ring:
        """Return the ring of `key`, now the most recently used; a row's first one has position NOTHING.

        The last `rows` keys taken are never evicted.
        """
        ring = self._used.get(key)
        if ring is not None:
            self._used.move_to_end(key)
            return ring
        if self._free:
            row = self._free.pop()
        else:
            row = self._used.popitem(last=False)[1].row
            self.evicted += 1
        ring = self._used[key] = Ring(row)
        return ring

    def forget(self, key: Key) -> None:
        """Free the row of `key`, if it has one."""
        ring = self._used.pop(key, None)
        if ring is not None:
            self._free.append(ring.row)

    def release(self, owner: Hashable) -> None:
        """Free every row of `owner`."""
        for key in [key for key in self._used if key[0] == owner]:
            self._free.append(self._used.pop(key).row)
