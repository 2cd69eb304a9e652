"""A watch on loyalty: whether those who have been customers for longer pay more for it. Pure.

Per period of event time, one draw of each user (the first), by band of tenure: how many events of the user had been applied
(`sequence`). The multiplier is regressed on the number of the band; the test is one-sided, with standard errors that allow each
band its own spread. One draw per user, so draws are independent; one test per period, so `alpha` is the chance of a false
alarm per period. Whatever the reason: a policy that never reads tenure may still charge by something that goes with it.
Source: White 1980, "A heteroskedasticity-consistent covariance matrix estimator" (HC0), here over sums per band.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Annotated

from msgspec import Meta, Struct

from contracts.decisions import Decision

PPM = 1_000_000
USERS_MAX = 200_000
"""Users of a period who count; later ones do not."""


class TenureTest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stated test."""

    period_ms: Annotated[int, Meta(ge=60_000)] = 86_400_000
    bands: tuple[Annotated[int, Meta(gt=1)], ...] = (10, 100, 1_000)
    """First event of each band but the lowest: 1-9, 10-99, 100-999, 1000 and more events."""
    users_min: Annotated[int, Meta(ge=2)] = 30
    """A band with fewer users is left out."""
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.001
    """Chance of a false alarm per period."""
    rise_min_permille: Annotated[float, Meta(ge=0.0)] = 5.0
    """A rise from the lowest to the highest band below this is no alarm, however sure."""

    def __post_init__(self) -> None:
        if not self.bands or list(self.bands) != sorted(set(self.bands)):
            raise ValueError("tenure.bands must name at least one event count, ascending without repeats")


class Band(Struct, frozen=True, kw_only=True):
    """One band of tenure in one period."""

    first: int
    """Events from which on a user is in it."""
    users: int
    mean_permille: float
    """Multiplier."""


class Tenure(Struct, frozen=True, kw_only=True):
    """The verdict on one period."""

    end_ms: int
    bands: tuple[Band, ...]
    """With a user at least, ascending."""
    rise_permille: float | None
    """From the lowest to the highest band with enough users, by the regression; None with fewer than two such bands."""
    z: float | None
    """The rise over its standard error."""
    alarm: bool

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        means = ", ".join(f"{band.first}+: {band.mean_permille:.1f} ({band.users})" for band in self.bands)
        if self.rise_permille is None:
            return f"too few users to compare; multiplier in permille by events so far (users): {means}"
        word = "rises" if self.alarm else "does not rise beyond noise"
        return (
            f"price {word} with tenure: {self.rise_permille:+.1f} permille of list from the newest to the most loyal "
            f"(z = {self.z:.1f}); by events so far (users): {means}"
        )


class _Period:
    __slots__ = ("counts", "squares", "sums", "users")

    def __init__(self, bands: int) -> None:
        self.users: set[str] = set()
        self.counts, self.sums, self.squares = [0] * bands, [0] * bands, [0] * bands


class TenureWatch:
    """Takes decisions in the order of each user; gives the verdicts on periods that have ended."""

    def __init__(self, test: TenureTest) -> None:
        self.test = test
        self._periods: dict[int, _Period] = {}
        self._ended = -1

    def add(self, decision: Decision) -> None:
        """Count one decision, if it is the first price of its user that was chosen in its period."""
        if decision.status != "drawn" or decision.forced or decision.held_out:
            return
        number = decision.event_time_ms // self.test.period_ms
        if number <= self._ended:
            return
        period = self._periods.get(number)
        if period is None:
            period = self._periods[number] = _Period(len(self.test.bands) + 1)
        if decision.user in period.users or len(period.users) >= USERS_MAX:
            return
        period.users.add(decision.user)
        band = sum(decision.sequence >= first for first in self.test.bands)
        ppm = decision.price * PPM // decision.list_price
        period.counts[band] += 1
        period.sums[band] += ppm
        period.squares[band] += ppm * ppm

    def ended(self, now_ms: int | None = None) -> Iterator[Tenure]:
        """Yield the verdicts on the periods that have ended by event time `now_ms`, each once; by default on all."""
        last = max(self._periods, default=-1) if now_ms is None else now_ms // self.test.period_ms - 1
        for number in sorted(number for number in self._periods if number <= last):
            yield self._verdict(number, self._periods.pop(number))
        self._ended = max(self._ended, last)

    def _verdict(self, number: int, period: _Period) -> Tenure:
        test = self.test
        firsts = (1, *test.bands)
        rows = list(zip(firsts, period.counts, period.sums, period.squares, strict=True))
        bands = [Band(first=first, users=n, mean_permille=s / n / 1000) for first, n, s, _ in rows if n]
        compared = [(place, *row[1:]) for place, row in enumerate(rows) if row[1] >= test.users_min]
        rise, z = trend(compared) if len(compared) > 1 else (None, None)
        alarm = False
        if rise is not None and z is not None:
            rise /= 1000
            alarm = z > NormalDist().inv_cdf(1.0 - test.alpha) and rise >= test.rise_min_permille
        end_ms = (number + 1) * test.period_ms
        return Tenure(end_ms=end_ms, bands=tuple(bands), rise_permille=rise, z=z, alarm=alarm)


def trend(groups: Sequence[tuple[int, int, int, int]]) -> tuple[float, float]:
    """Return (rise of y from the lowest x to the highest, by least squares; the rise over its HC0 standard error).

    Args:
        groups: (x, count, sum of y, sum of squares of y) of at least two different x, counts above 0.

    Returns:
        z is plus or minus infinity where there is no spread about the line, and 0 where there is no rise, either.
    """
    total = sum(n for _, n, _, _ in groups)
    x_mean = sum(x * n for x, n, _, _ in groups) / total
    y_mean = sum(s for _, _, s, _ in groups) / total
    spread = sum(n * (x - x_mean) ** 2 for x, n, _, _ in groups)
    slope = sum((x - x_mean) * (s - n * y_mean) for x, n, s, _ in groups) / spread
    meat = 0.0
    for x, n, s, squares in groups:
        fitted = y_mean + slope * (x - x_mean)
        within = (squares * n - s * s) / n  # about the group's own mean; exact in integers up to the division
        meat += (x - x_mean) ** 2 * (within + n * (s / n - fitted) ** 2)
    error = sqrt(meat) / spread
    reach = groups[-1][0] - groups[0][0]
    if error == 0.0:
        return slope * reach, 0.0 if slope == 0.0 else slope * float("inf")
    return slope * reach, slope / error
