"""An off-policy evaluation as a page for the terminal: the verdict and its why first. Not here: any number."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from backtest.confidence_sequences import when_it_holds
from backtest.estimates import Diagnostics, Estimate, Evaluation, Gate, Interval, Lift
from backtest.gates import tail_aside

_COLOURS = {"ADOPT_TO_AB": "bold green", "REJECT": "bold red", "INCONCLUSIVE": "bold yellow", "REFUSE": "bold red"}
_NAMES = {
    "logged": "logged policy",
    "ips": "IPS",
    "snips": "SNIPS",
    "clipped_ips": "clipped IPS",
    "dm": "DM",
    "dr": "DR",
    "sndr": "SNDR",
    "switch_dr": "Switch-DR",
    "dros": "DRos",
}


def page_of(found: Evaluation) -> RenderableType:
    """Return the whole page."""
    head = Text.assemble("verdict: ", (found.verdict, _COLOURS[found.verdict]))
    parts: list[RenderableType] = [head, *(Text(f"  {one}") for one in found.why)]
    parts.append(Text(f"estimated: {found.estimand}", style="dim"))
    if found.lift is not None:
        parts.append(_lift(found, found.lift))
        parts.append(Text(f"the anytime-valid interval holds {when_it_holds(found.planned)}", style="dim"))
    if found.logged is not None:
        parts.append(_estimates(found, found.logged))
    parts.append(_gates(found.gates))
    if found.diagnostics is not None:
        parts.append(_diagnostics(found.diagnostics))
    return Group(*parts)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _lift(found: Evaluation, lift: Lift) -> Table:
    share = f"{1 - found.alpha:.0%}"
    marks = {found.judged_by: " (judges)"}
    table = _table(
        "lift over the logged policy, per draw", "", "lift", "standard error",
        f"{share}, users resampled{marks.get('bootstrap', '')}", f"{share}, anytime-valid{marks.get('anytime', '')}", "widened",
    )  # fmt: skip
    relative = "" if lift.relative is None else f"{lift.relative:+.1%}"
    cells = [f"{lift.value:+.6g}", f"{lift.error:.6g}", _range(lift.bootstrap), _range(lift.anytime)]
    table.add_row(relative, *cells, f"x {lift.widened:.2f}")
    return table


def _estimates(found: Evaluation, logged: Estimate) -> Table:
    share = f"{1 - found.alpha:.0%}"
    table = _table(
        "value, per draw",
        "estimator",
        "value",
        "standard error",
        f"{share}, users resampled",
        f"{share}, anytime-valid",
    )
    for one in (logged, *found.estimates):
        name = _NAMES[one.name] if one.parameter is None else f"{_NAMES[one.name]}, {one.parameter:g}"
        error = "" if one.error is None else f"{one.error:.8f}"
        table.add_row(name, f"{one.value:.8f}", error, _range(one.interval), _range(one.anytime))
    return table


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.6g} to {interval.high:.6g}"


def _gates(gates: tuple[Gate, ...]) -> Table:
    table = Table(title="gates", title_justify="left")
    table.add_column("gate", no_wrap=True)
    table.add_column("")
    table.add_column("found")
    for one in gates:
        table.add_row(one.name, Text("passed", "green") if one.passed else Text("FAILED", "bold red"), one.says)
    return table


def _tail(found: Diagnostics) -> str:
    if found.pareto_k is None:
        return "no tail"
    return ", ".join(filter(None, (f"{found.pareto_k:.3f}", tail_aside(found))))


def _diagnostics(found: Diagnostics) -> Table:
    table = _table("diagnostics", "", "")
    rows = {
        "draws judged, users": f"{found.draws:,}, {found.users:,}",
        "forced, left out": f"{found.forced_share:.2%}",
        "effective sample size": f"{found.ess:,.2f} ({found.ess_share:.2%})",
        "mean weight": f"{found.weight_mean:.6f} (z {found.weight_z:+.2f})",
        "largest weight, its share": f"{found.weight_max:,.3f}, {found.weight_share:.2%}",
        "largest share of weighted reward": f"{found.reward_share:.1%}",
        "Pareto k of the weights": _tail(found),
        "target's choices never drawn": f"{found.unsupported:.2%}",
        "IPS at clips": ", ".join(f"{one.clip:g}: {one.value:.6g}" for one in found.clips),
        "DM minus IPS": "no model" if found.model_gap is None else f"{found.model_gap:+.2f} standard errors of IPS",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
