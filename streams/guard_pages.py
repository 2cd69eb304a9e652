"""What the guard would have said of recorded decisions, for people: the range of every figure beside its limit, and what of
it is a breach. Computes nothing (pricing.review does).
"""

from __future__ import annotations

from statistics import median

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pricing.review import Guarded, Review

SHOWN = 5
"""Breaches shown one by one."""


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
