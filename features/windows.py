"""Rolling windows by event time: 1 hour in minute tiles, 24 hours in hour tiles, 30 days in day tiles; sparse.

An event is counted once, in the finest tile whose window it still falls into; a tile that leaves its window moves into
the coarser one. So a window's total is the sum over its own tiles and the finer ones, and a late event counts wherever it
still belongs.

A tile is 32 bytes, read as one big-endian integer: its index (event time // tile length), then a field each for spend,
dwell, purchases, clicks and views. An event is such a number, too (`increment`): counting it is one addition. Tiles stand
in ascending order. The fields never carry into each other below 2^25 events of one user in a window, each at the greatest
price and quantity that contracts.events allows (spend: 2^72 / 10^14).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from contracts.events import Click, Purchase, ShopEvent, View
from features.state import UserState

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
MINUTES, HOURS, DAYS = 60, 24, 30
"""Tiles per window, the newest one, which is not over yet, included."""
TILE_BYTES = 32

_INDEX_SHIFT = 224
_SPEND_SHIFT, _DWELL_SHIFT, _PURCHASES_SHIFT, _CLICKS_SHIFT = 152, 96, 64, 32
_COUNT = (1 << 32) - 1
_DWELL = (1 << (_SPEND_SHIFT - _DWELL_SHIFT)) - 1
_COUNTERS = (1 << _INDEX_SHIFT) - 1
_ONE = {View: 1, Click: 1 << _CLICKS_SHIFT, Purchase: 1 << _PURCHASES_SHIFT}
_from_bytes = int.from_bytes
_each_tile = Struct(f"{TILE_BYTES}s").iter_unpack


class Totals(NamedTuple):
    """What a window holds."""

    views: int
    clicks: int
    purchases: int
    """Purchase events, whatever their quantity."""
    spend: int
    """Price times quantity, in minor units."""
    dwell_ms: int


def increment(event: ShopEvent) -> int:
    """Return what `event` adds to the fields of its tiles."""
    one = _ONE[type(event)]
    if type(event) is Purchase:
        one += event.price * event.quantity << _SPEND_SHIFT
    if event.dwell_ms is not None:
        one += event.dwell_ms << _DWELL_SHIFT
    return one


def count(state: UserState, event: ShopEvent) -> None:
    """Count `event` in; state.last_ms is the newest time seen, the event's own included.

    A window reaches back from state.last_ms by its number of tiles; an event of before the 30 days is not counted.
    """
    minute = event.event_time_ms // MINUTE_MS
    amount = increment(event)
    tiles = state.minutes
    last = _from_bytes(tiles[-TILE_BYTES:], "big")
    last_minute = last >> _INDEX_SHIFT
    if last_minute == minute:
        state.minutes = tiles[:-TILE_BYTES] + (last + amount).to_bytes(TILE_BYTES, "big")
        return
    gone = state.last_ms // MINUTE_MS - MINUTES
    if minute <= gone:
        _count_hour(state, minute // 60, amount)
    elif minute < last_minute:
        state.minutes = _add(tiles, minute, amount)
    else:
        if tiles and _from_bytes(tiles[:4], "big") <= gone:
            tiles = _retire(state, tiles, gone, 60, _count_hour)
        state.minutes = tiles + (minute << _INDEX_SHIFT | amount).to_bytes(TILE_BYTES, "big")


def _count_hour(state: UserState, hour: int, amount: int) -> None:
    """Count what the 1-hour window does not hold (any more) into its hour, or into its day."""
    gone = state.last_ms // HOUR_MS - HOURS
    if hour <= gone:
        _count_day(state, hour // 24, amount)
        return
    tiles = state.hours
    if tiles and _from_bytes(tiles[:4], "big") <= gone:
        tiles = _retire(state, tiles, gone, 24, _count_day)
    state.hours = _add(tiles, hour, amount)


def _count_day(state: UserState, day: int, amount: int) -> None:
    """Count what the 24-hour window does not hold (any more) into its day, or nowhere."""
    gone = state.last_ms // DAY_MS - DAYS
    if day > gone:
        state.days = _add(state.days[_end_of(state.days, gone) :], day, amount)


def _retire(
    state: UserState, tiles: bytes, gone: int, per_coarse: int, count_coarse: Callable[[UserState, int, int], None]
) -> bytes:
    """Return `tiles` without those up to `gone`, which `count_coarse` has counted `per_coarse` to a coarser tile."""
    end = _end_of(tiles, gone)
    coarse, amount = -1, 0
    for start in range(0, end, TILE_BYTES):
        tile = _from_bytes(tiles[start : start + TILE_BYTES], "big")
        index = (tile >> _INDEX_SHIFT) // per_coarse
        if index != coarse:
            if amount:
                count_coarse(state, coarse, amount)
            coarse, amount = index, 0
        amount += tile & _COUNTERS
    count_coarse(state, coarse, amount)
    return tiles[end:]


def _add(tiles: bytes, index: int, amount: int) -> bytes:
    """Return `tiles` with `amount` added to the tile `index`, which may have to be made."""
    end = _end_of(tiles, index)
    start = max(end - TILE_BYTES, 0)
    tile = _from_bytes(tiles[start:end], "big")
    if tile >> _INDEX_SHIFT != index:
        start, tile = end, index << _INDEX_SHIFT
    return tiles[:start] + (tile + amount).to_bytes(TILE_BYTES, "big") + tiles[end:]


def _end_of(tiles: bytes, index: int) -> int:
    """Return the position in `tiles` after the last tile at or below `index`."""
    if _from_bytes(tiles[-TILE_BYTES : 4 - TILE_BYTES], "big") <= index:  # the most frequent case
        return len(tiles)
    starts = range(0, len(tiles), TILE_BYTES)
    return TILE_BYTES * bisect_right(starts, index, key=lambda start: _from_bytes(tiles[start : start + 4], "big"))


def events_in(state: UserState, minute: int) -> int:
    """Return how many events the 1-hour window counts in `minute`, 0 if that is not in it."""
    end = _end_of(state.minutes, minute)
    tile = _from_bytes(state.minutes[max(end - TILE_BYTES, 0) : end], "big")
    if tile >> _INDEX_SHIFT != minute:
        return 0
    return (tile & _COUNT) + (tile >> _CLICKS_SHIFT & _COUNT) + (tile >> _PURCHASES_SHIFT & _COUNT)


def totals(state: UserState, now_ms: int) -> tuple[Totals, Totals, Totals]:
    """Return the totals of the last 1 hour, 24 hours and 30 days as of `now_ms`, >= state.last_ms.

    A window is its number of whole tiles, the one that `now_ms` lies in included.
    """
    minute, hour = now_ms // MINUTE_MS - MINUTES, now_ms // HOUR_MS - HOURS
    in_hours = _sum(state.hours, hour) + _sum(state.minutes, hour * 60 + 59)
    return _unpack(_sum(state.minutes, minute)), _unpack(in_hours), month(state, now_ms)


def month(state: UserState, now_ms: int) -> Totals:
    """Return the totals of the last 30 days alone, as `totals` has them."""
    day = now_ms // DAY_MS - DAYS
    total = _sum(state.minutes, day * 1440 + 1439)
    if state.hours or state.days:
        total += _sum(state.days, day) + _sum(state.hours, day * 24 + 23)
    return _unpack(total)


def _sum(tiles: bytes, gone: int) -> int:
    """Return the sum of the counters of the tiles after `gone`."""
    if tiles and _from_bytes(tiles[:4], "big") <= gone:  # not the most frequent case
        tiles = tiles[_end_of(tiles, gone) :]
    total = 0
    for (tile,) in _each_tile(tiles):
        total += _from_bytes(tile)
    return total & _COUNTERS  # the indices, which stand above the counters, have been added up, too


def _unpack(total: int) -> Totals:
    return Totals(  # names would cost as much again
        total & _COUNT,
        total >> _CLICKS_SHIFT & _COUNT,
        total >> _PURCHASES_SHIFT & _COUNT,
        total >> _SPEND_SHIFT,
        total >> _DWELL_SHIFT & _DWELL,
    )
