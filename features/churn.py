"""The churn hazard: the chance that a user does not come back, from the days on which they came. Logged, never priced by.

A user *stays away* after a draw if no event of theirs lies on any of the `horizon_days` days (UTC) after the draw's own. Every
day after the first one that the 30-day window knows is a trial: they came, or not. The chance to come on a day differs between
users as a beta distribution does; after r days on which they came, of A,

    hazard = product over i < horizon_days of (absences + A - r + i) / (returns + absences + A + i)

Source: the discrete-time model of Fader, Hardie and Shang 2010, "Customer-base analysis in a discrete-time noncontractual setting"
(BG/BB), without their users who are gone for good. Sums, products and quotients only: the same bits on every machine. Not here:
what came of it (backtest.report.churn), what it may weigh (contracts.rules.Churn).
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from contracts.rules import Churn
from features.state import UserState
from features.windows import DAY_MS, DAYS, TILE_BYTES

Tiles = tuple[bytes, bytes, bytes]
"""A state's minutes, hours and days. Bytes do not change: what is noted of a state here stays as it was then."""

DIGITS = 6
"""Decimals of a hazard."""
_TILE = Struct(f">I{TILE_BYTES - 4}x")
_index, _indices = _TILE.unpack_from, _TILE.iter_unpack


def tiles_of(state: UserState) -> Tiles:
    """Return what the hazard needs of `state`."""
    return state.minutes, state.hours, state.days


def hazard_of(churn: Churn, tiles: Tiles, last_ms: int) -> float:
    """Return the chance that the user stays away, 0 to 1, to DIGITS decimals.

    Args:
        churn: horizon and prior.
        tiles: of the state, right after the event was folded in.
        last_ms: its highest event time.
    """
    minutes, hours, days = tiles
    today = last_ms // DAY_MS
    came = [day for (day,) in _indices(days)]
    # neither of these windows is longer than a day, so its ends lie on all the days that it touches
    if hours:
        came += (_index(hours)[0] // 24, _index(hours, -TILE_BYTES)[0] // 24)
    if minutes:
        came += (_index(minutes)[0] // 1440, _index(minutes, -TILE_BYTES)[0] // 1440)
    known = {day for day in came if day > today - DAYS}
    return _hazard(churn, len(known) - 1, today - min(known)) if known else _hazard(churn, 0, 0)


@lru_cache(maxsize=4_096)
def _hazard(churn: Churn, came: int, days: int) -> float:
    """Return the hazard of a user who came on `came` of `days` days, the first one not counted."""
    hazard = 1.0
    for ahead in range(churn.horizon_days):
        hazard *= (churn.absences + (days - came) + ahead) / (churn.returns + churn.absences + days + ahead)
    return round(hazard, DIGITS)
