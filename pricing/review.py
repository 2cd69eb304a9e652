"""Published prices looked at as a whole: every window against its limits, and whether price rises with tenure. Pure.

What the guard judges by, live (streams.guard), and the same over recorded decisions, for a backtest or a report. Not here: the
windows (pricing.price_watch), the test (pricing.tenure).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from contracts.decisions import Decision, DecisionRecord
from contracts.policies import Policy
from pricing.price_watch import Breach, Limits, PriceWatch, Window, breaches
from pricing.tenure import Tenure, TenureTest, TenureWatch


class Guarded(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is judged by."""

    prices: Limits = Limits()
    tenure: TenureTest = TenureTest()

    def __post_init__(self) -> None:
        low, high = self.prices.mean_min_permille, self.prices.mean_max_permille
        if low > high:  # every window would be beyond one of them, and the kill switch thrown for nothing
            raise ValueError(f"prices.mean_min_permille, {low}, must not lie above prices.mean_max_permille, {high}")


class Review(Struct, frozen=True, kw_only=True):
    """What a watch over all decisions found."""

    windows: tuple[Window, ...]
    """With enough draws to be judged, oldest first."""
    breaches: tuple[Breach, ...]
    tenure: tuple[Tenure, ...]

    @property
    def alarm(self) -> bool:
        """Whether anything is beyond its limit."""
        return bool(self.breaches) or any(verdict.alarm for verdict in self.tenure)


def review(
    records: Iterable[DecisionRecord],
    guarded: Guarded,
    policy_of: Callable[[str], Policy | None] = lambda version: None,
) -> Review:
    """Watch recorded decisions.

    Args:
        records: in the order of each user; partitions may interleave in any way.
        guarded: what to judge by.
        policy_of: gives the policy of a version, None where it is not known: then draws whose price endings bind are left
            out of the share at the lowest price.
    """
    prices, tenure = PriceWatch(guarded.prices), TenureWatch(guarded.tenure)
    for record in records:
        if isinstance(record, Decision):
            prices.add(record, policy_of(record.policy))
            tenure.add(record)
    windows = [window for window in prices.ended(final=True) if window.draws >= guarded.prices.draws_min]
    found = [breach for window in windows for breach in breaches(window, guarded.prices)]
    return Review(windows=tuple(windows), breaches=tuple(found), tenure=tuple(tenure.ended()))
