"""What the guard would have said of recorded decisions, for people: the range of every figure beside its limit, and what of
it is a breach. Offline: nothing is thrown. Not here: the live guard (streams.guard).
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.decisions import Decision, DecisionRecord
from contracts.policies import PolicyBook
from pricing.price_watch import Breach, PriceWatch, Window, breaches
from pricing.tenure import Tenure, TenureWatch
from streams.guard import Guarded

SHOWN = 5
"""Breaches shown one by one."""


class Review(Struct, frozen=True, kw_only=True):
    """What a watch over all of them found."""

    windows: tuple[Window, ...]
    """With enough draws to be judged."""
    breaches: tuple[Breach, ...]
    tenure: tuple[Tenure, ...]

    @property
    def alarm(self) -> bool:
        """Whether anything is beyond its limit."""
        return bool(self.breaches) or any(verdict.alarm for verdict in self.tenure)


def review(records: Iterable[DecisionRecord], guarded: Guarded, book: PolicyBook) -> Review:
    """Watch recorded decisions, in the order of each user; `book` has the policies that they name, as far as known."""
    prices, tenure = PriceWatch(guarded.prices), TenureWatch(guarded.tenure)
    for record in records:
        if isinstance(record, Decision):
            prices.add(record, book.find(record.policy))
            tenure.add(record)
    windows = [window for window in prices.ended() if window.draws >= guarded.prices.draws_min]
    found = [breach for window in windows for breach in breaches(window, guarded.prices)]
    return Review(windows=tuple(windows), breaches=tuple(found), tenure=tuple(tenure.ended()))


def page(found: Review, guarded: Guarded) -> RenderableType:
    """Return a review for people."""
    limits = guarded.prices
    table = Table(title=f"{len(found.windows)} windows of {limits.window_ms / 60_000:g} min with {limits.draws_min} draws or more",
                  title_justify="left")  # fmt: skip
    for name in ("", "least", "median", "most", "limit"):
        table.add_column(name, justify="left" if not name else "right")
    means = f"{limits.mean_min_permille} to {limits.mean_max_permille}"
    table.add_row("mean multiplier, permille", *_range([one.mean_permille for one in found.windows], "{:.0f}"), means)
    for name, values, limit in (
        ("draws at the lowest feasible price", [one.lowest_share for one in found.windows], limits.lowest_share_max),
        (
            "repeated decisions with another price",
            [one.changed_share for one in found.windows],
            limits.changed_share_max,
        ),
    ):
        table.add_row(name, *_range(values, "{:.1%}"), f"{limit:.1%}")
    lines = [f"beyond its limit: {breach.sentence}" for breach in found.breaches[:SHOWN]]
    if len(found.breaches) > SHOWN:
        lines.append(f"and {len(found.breaches) - SHOWN} more")
    lines += [verdict.sentence for verdict in found.tenure]
    return Group(table, Text("\n".join(lines)))


def _range(values: list[float], form: str) -> list[str]:
    if not values:
        return ["", "", ""]
    return [form.format(value) for value in (min(values), median(values), max(values))]
