"""A report on an experiment as tables for the terminal. Not here: what it says (backtest.experiment_report)."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from backtest.experiment_report import SAMPLE_RATIO_P, Arm, Lift, Report

_COLOURS = {"promote": "bold green", "stop": "bold red", "continue": "bold yellow", "broken": "bold red"}


def page_of(report: Report) -> RenderableType:
    """Return the whole report."""
    head = Text.assemble(f"{report.experiment}, {report.metric} per user: ", (report.verdict, _COLOURS[report.verdict]))
    if report.winner is not None:
        head.append(f" {report.winner} ({report.policy})")
    lines = [Text(f"  {one}") for one in report.why]
    if report.withheld:
        lines.append(Text(f"  {report.withheld:,} users came too late to be counted: their horizon is not over"))
    parts: list[RenderableType] = [head, *lines, _arms(report), _lifts(report)]
    if report.guardrails:
        parts.append(_guardrails(report))
    fair = "as assigned" if report.sample_ratio_p >= SAMPLE_RATIO_P else "NOT as assigned"
    parts.append(Text(f"sample ratio: {fair} (p = {report.sample_ratio_p:.3g}, alarm below {SAMPLE_RATIO_P})"))
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _money(minor: float | None) -> str:
    return "not available" if minor is None else f"{minor / 100:,.2f}"


def _arms(report: Report) -> Table:
    table = _table(
        "arms", "arm", "policy", "users", "asked for", "draws", "exposed", "resolved", "purchases", "bought",
        "revenue / user", "margin / user",
    )  # fmt: skip
    users = sum(one.users for one in report.arms) or 1
    for one in report.arms:
        table.add_row(*_arm_cells(one, users))
    return table


def _arm_cells(one: Arm, users: int) -> list[str]:
    counts = [f"{number:,}" for number in (one.draws, one.exposed, one.resolved, one.purchases)]
    shares = [f"{one.users:,} ({one.users / users:.1%})", f"{one.expected_share:.1%}"]
    return [one.name, one.policy, *shares, *counts, f"{one.conversion:.1%}", _money(one.revenue), _money(one.margin)]


def _lifts(report: Report) -> Table:
    sequence = f"confidence sequence, {1 - report.alpha:.0%}"
    table = _table(
        f"lift of {report.metric} per user", "arm", "against", "lift", sequence, "one look, 95%", "p", "CUPED"
    )
    for one in report.lifts:
        table.add_row(one.arm, one.against, *_lift_cells(one))
    return table


def _lift_cells(one: Lift) -> list[str]:
    if one.lift is None or one.p is None or one.cuped is None:
        return ["not available", one.why, "", "", ""]
    return [
        f"{one.lift:+.1%}",
        f"{one.low:+.1%} to {one.high:+.1%}",
        f"{one.fixed_low:+.1%} to {one.fixed_high:+.1%}",
        f"{one.p:.2g}",
        f"-{one.cuped:.0%} variance",
    ]


def _guardrails(report: Report) -> Table:
    table = _table("guardrails, one-sided", "arm", "metric", "tolerated", "lift is below", "")
    for one in report.guardrails:
        high = "not available" if one.high is None else f"{one.high:+.1%}"
        says = "BREACHED" if one.breached else "unknown" if one.high is None else "holds"
        table.add_row(one.arm, one.metric, f"-{one.worse_by:.1%}", high, says)
    return table
