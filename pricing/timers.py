"""Timers: when the pending draws of a partition resolve. An index over their records, in the order of resolution.

The records themselves are the truth: a draw's key in the partition's store and changelog is PREFIX, due time, version, so a
scan of the prefix gives the timers again, after a restart as after a wiped data directory. Memory: 16 bytes a pending draw.
A step only reads the index and says what it changes (`TimerChange`); the shell applies that when the step has happened.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort
from collections.abc import Iterable
from struct import Struct as Layout

from msgspec import Struct

PREFIX = b"\xff\xff\x00"
"""User ids are UTF-8, which never has 0xff: no user can collide with a pending draw."""
Timer = tuple[int, int]
"""(due_ms, version): a pending draw, and where it stands in the order of resolution."""
FAR: Timer = (1 << 63, 0)
"""Later than every timer."""

_FIRST: Timer = (-1, 0)
_LAYOUT = Layout(">3sQQ")
_pack = _LAYOUT.pack
_COMPACT_AT = 4_096


def key_of(timer: Timer) -> bytes:
    """Return the key of a pending draw's record; keys ascend as timers do."""
    return _pack(PREFIX, timer[0], timer[1])


def timer_of(key: bytes) -> Timer:
    """Return the timer that a record's key stands for."""
    _, due_ms, version = _LAYOUT.unpack(key)
    return due_ms, version


class TimerChange(Struct, gc=False):
    """What a step does to the timers."""

    taken: int = 0
    """So many of the first have resolved."""
    added: list[Timer] = []
    """New and still pending, ascending."""


class Timers:
    """The timers of one partition, ascending."""

    __slots__ = ("_dues", "_first", "_versions")

    def __init__(self, ascending: Iterable[Timer] = ()) -> None:
        self._dues, self._versions, self._first = array("q"), array("q"), 0
        for due_ms, version in ascending:
            self._dues.append(due_ms)
            self._versions.append(version)

    def __len__(self) -> int:
        return len(self._dues) - self._first

    def at(self, place: int) -> Timer:
        """Return the timer at `place`, 0 being the first to resolve; FAR behind the last."""
        index = self._first + place
        return (self._dues[index], self._versions[index]) if index < len(self._dues) else FAR

    def apply(self, change: TimerChange) -> None:
        """Make the change of a step; versions of new timers lie above those of all others."""
        self._first += change.taken
        if self._first > _COMPACT_AT and self._first * 2 > len(self._dues):
            del self._dues[: self._first], self._versions[: self._first]
            self._first = 0
        dues, versions = self._dues, self._versions
        for due_ms, version in change.added:
            place = bisect_right(dues, due_ms, self._first)
            dues.insert(place, due_ms)
            versions.insert(place, version)


class StepTimers:
    """The timers as one step sees and changes them; those of the partition stay as they are."""

    __slots__ = ("_added", "_added_taken", "_last", "_new", "_old", "_taken", "_timers", "due_ms")

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._taken = 0
        self._added: list[Timer] = []
        self._added_taken = 0
        self._old = timers.at(0)
        self._new = FAR
        self._last = _FIRST
        self.due_ms = self._old[0]
        """When the first resolves."""

    def add(self, timer: Timer) -> None:
        """Add a timer whose version lies above all others'."""
        added = self._added
        if timer > self._last:
            added.append(timer)
            self._last = timer
        else:
            insort(added, timer, self._added_taken)
        if timer < self._new:
            self._new = timer
            self.due_ms = min(self.due_ms, timer[0])

    def take(self) -> Timer:
        """Remove and return the first timer; there must be one."""
        first = self._old
        if self._new < first:
            first = self._new
            self._added_taken += 1
            self._new = self._added[self._added_taken] if self._added_taken < len(self._added) else FAR
        else:
            self._taken += 1
            self._old = self._timers.at(self._taken)
        self.due_ms = self._old[0] if self._old < self._new else self._new[0]
        return first

    def change(self) -> TimerChange:
        """Return what the step changes."""
        return TimerChange(self._taken, self._added[self._added_taken :])
