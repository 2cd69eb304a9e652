"""Values and lifts as two tables: with the interval that judges, and with the other one. Not here: what they are (values)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from backtest.report.blocks import EMPTY, Row, Table, cell_of, row_of
from backtest.report.draws import LOGGED
from backtest.report.figures import Figures
from backtest.report.values import ANYTIME, RESAMPLED


def both_intervals(figures: Figures, heads: Mapping[str, str]) -> tuple[Table, Table]:
    """Return a table of the section `value`, a row per policy, with each interval; colours are by the one that judges.

    Args:
        figures: of a report that has values.
        heads: of the columns, by measure; those without intervals are in the first table only.
    """
    anytime = any(row.text == "anytime" for _, row in figures.where("scope", measure="judged by"))
    judge, other = (ANYTIME, RESAMPLED) if anytime else (RESAMPLED, ANYTIME)
    ahead = "" if anytime else "; its estimates do not look ahead, so they differ a little"
    beside = {one: f"{one}, {other}" for one in heads if figures.where("value", measure=f"{one}, {other}")}
    plain = [
        replace(row, cells=[replace(one, tone="") for one in row.cells])
        for row in _rows(figures, list(beside.values()), f"logged value, {other}")
    ]
    return (
        Table(
            ("SNIPS", *heads.values()),
            _rows(figures, list(heads), "logged value"),
            f"With the interval that judges: {judge}",
        ),
        Table(("SNIPS", *(heads[one] for one in beside)), plain, f"With the other interval: {other}{ahead}"),
    )


def _rows(figures: Figures, measures: list[str], logged: str) -> list[Row]:
    first = cell_of(figures, "value", measure=logged)
    policies = figures.names("value", "policy")
    return [
        Row(LOGGED, [first, *[EMPTY] * (len(measures) - 1)]),
        *(_row(figures, policy, measures) for policy in policies),
    ]


def _row(figures: Figures, policy: str, measures: list[str]) -> Row:
    """Return what a policy earns; the numbers of a refused one have no colour that says good or bad."""
    row = row_of(figures, figures.label(policy), "value", measures, policy=policy)
    return replace(row, cells=[replace(one, tone="refused") for one in row.cells]) if figures.refused(policy) else row
