"""A table of values and lifts with both of their intervals, whichever of them judges. Not here: what they are (values)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backtest.report.blocks import EMPTY, Table, row_of
from backtest.report.figures import Figures
from backtest.report.values import ANYTIME, RESAMPLED


def both_intervals(figures: Figures, policies: list[str], measures: Sequence[str]) -> Table:
    """Return every number with both intervals; without colours, which are the judge's."""
    rows = []
    for policy in policies:
        for place, measure in enumerate(measures):
            names = [f"{measure}, {kind}" for kind in (RESAMPLED, ANYTIME)]
            row = row_of(figures, f"{policy}: {measure}", "value", names, place == 0, policy=policy)
            if any(one is not EMPTY for one in row.cells):
                rows.append(replace(row, cells=[replace(one, tone="") for one in row.cells]))
    return Table(
        ("SNIPS", RESAMPLED, ANYTIME),
        rows,
        "Both intervals; anytime-valid: around its own estimate, without looking ahead",
    )
