"""Value over time in a simulated shop as a picture: the policy against the oracle, list price and the best fixed price.

SVG by hand, four lines: no library is worth its weight here. Not here: the account (backtest.truth).
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path

from backtest.truth import Account, Period
from contracts.errors import BadInput

LINES = (
    ("oracle", "#0f766e", "6 4"),
    ("policy", "#1d4ed8", ""),
    ("best_fixed", "#c2410c", "2 3"),
    ("list_price", "#64748b", ""),
)
"""Field of a period, colour, dashes."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 900, 380, 70, 50, 60, 40


def write_plot(account: Account, title: str, file: Path) -> None:
    """Write expected margin per draw by period as SVG; equal accounts give equal bytes.

    Raises:
        BadInput: no draw was seen and has resolved.
    """
    periods = [each for each in account.periods if each.draws]
    if not periods:
        raise BadInput("No draw was seen and has resolved: there is nothing to plot; use more --events")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_drawn(periods, title), encoding="utf-8")


def _drawn(periods: list[Period], title: str) -> str:
    lines = {name: [getattr(each, name) / each.draws / 100.0 for each in periods] for name, _, _ in LINES}
    low, high = min(map(min, lines.values())), max(map(max, lines.values()))
    spread = (high - low) or 1.0
    first, last = periods[0].from_ms, periods[-1].until_ms

    def x(ms: float) -> float:
        return float(round(_LEFT + (ms - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT), 1))

    def y(value: float) -> float:
        return float(round(_TOP + (high - value) / spread * (_HEIGHT - _TOP - _BOTTOM), 1))

    shapes = [f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for number in range(5):
        value, ms = low + spread * number / 4, first + (last - first) * number / 4
        shapes.append(f'<path d="M{_LEFT} {y(value)}H{_WIDTH - _RIGHT}" stroke="#e2e8f0"/>')
        shapes.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4}" text-anchor="end">{value:,.3g}</text>')
        when = f"{datetime.fromtimestamp(ms / 1000.0, UTC):%m-%d %H:%M}"
        shapes.append(f'<text x="{x(ms)}" y="{_HEIGHT - 14}" text-anchor="middle">{when}</text>')
    for number, (name, colour, dashes) in enumerate(LINES):
        middles = [(each.from_ms + each.until_ms) / 2 for each in periods]
        points = " ".join(f"{x(ms)},{y(value)}" for ms, value in zip(middles, lines[name], strict=True))
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"'
        shapes.append(f'<polyline id="{name}" points="{points}" {style}/>')
        shapes.append(f'<path d="M{_LEFT + 150 * number} 40h26" {style}/>')
        shapes.append(f'<text x="{_LEFT + 150 * number + 32}" y="44">{name.replace("_", " ")}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">'
    note = f'<text x="{_WIDTH - _RIGHT}" y="20" text-anchor="end">expected margin per draw seen</text>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *shapes, note, "</svg>"]) + "\n"
