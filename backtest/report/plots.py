"""The plots of a report, drawn from its figures as SVG inside the page: text stays text, equal figures give equal bytes.

matplotlib draws. Not here: which plots stand where, and the words around them (page).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from backtest.report.figures import Figure, Figures
from contracts.errors import BadInput

COLOURS = ("#1d4ed8", "#c2410c", "#0f766e", "#7e22ce", "#a16207", "#be123c")
_GREY, _INK = "#94a3b8", "#1e293b"
_STYLE = {
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "pricetide", "font.family": "sans-serif", "font.size": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _GREY, "axes.labelcolor": _INK,
    "axes.grid": True, "grid.color": "#e2e8f0", "grid.linewidth": 0.7, "axes.axisbelow": True, "xtick.color": "#475569",
    "ytick.color": "#475569", "text.color": _INK, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "legend.frameon": False, "legend.fontsize": 9, "figure.constrained_layout.use": True, "lines.linewidth": 1.6,
}  # fmt: skip
_WIDTH, _HEIGHT = 9.4, 3.1
_ROOT_TICKS = (0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares that do not touch each other on an axis of square roots."""
_DAY_MS = 86_400_000
_YARDSTICKS: dict[str, dict[str, Any]] = {
    "oracle": {"color": "#0f172a", "linestyle": "-", "linewidth": 2.2},
    "best fixed price, in hindsight": {"color": "#65a30d", "linestyle": (0, (7, 2)), "marker": "D"},
    "logged policy": {"color": "#64748b", "linestyle": "--"},
    "list price": {"color": "#64748b", "linestyle": ":"},
    "best uniform price, as chosen from the log": {"color": "#64748b", "linestyle": "-."},
}
"""What policies are held against in plots of the truth: each is told from the others without colour, too."""
_IDS = re.compile(r' id="[A-Za-z0-9.]+_\d+"')


def require_matplotlib() -> Any:  # noqa: ANN401 - typed by whoever has it installed
    """Return the module matplotlib, drawing to files only, or raise BadInput that says how to get it."""
    try:
        import matplotlib as mpl
        import matplotlib.figure
        import matplotlib.ticker
    except ImportError:
        raise BadInput("A report needs matplotlib: pip install 'pricetide[report]'") from None
    return mpl


@contextmanager
def _canvas(
    columns: int = 1,
    rows: int = 1,
    height: float = _HEIGHT,
    width: float = _WIDTH,
    **more: Any,  # noqa: ANN401 - options of subplots
) -> Iterator[tuple[list[Any], list[str]]]:
    """Yield the axes, row by row, and a list that the SVG is put into at the end."""
    mpl = require_matplotlib()
    with mpl.rc_context(_STYLE):
        drawing = mpl.figure.Figure(figsize=(width, height * rows))
        axes = drawing.subplots(rows, columns, squeeze=False, **more).ravel().tolist()
        made: list[str] = []
        yield axes, made
        file = io.StringIO()
        drawing.savefig(
            file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
        text = file.getvalue()
        made.append(_IDS.sub("", text[text.index("<svg") :]))


def _percent(axis: Any, decimals: int | None = None) -> None:  # noqa: ANN401 - an axis of matplotlib
    axis.set_major_formatter(require_matplotlib().ticker.PercentFormatter(1.0, decimals))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _currency(figures: Figures) -> str:
    return next((row.text for _, row in figures.where("log", measure="currency")), "")


def _times(axis: Any, values: Sequence[float]) -> None:  # noqa: ANN401 - an axis of matplotlib
    """Label an axis of ms of event time: at most seven ticks, no two of the same label."""
    first, last = min(values), max(values)
    form = "%H:%M" if last - first < _DAY_MS else "%m-%d\n%H:%M" if last - first < 7 * _DAY_MS else "%m-%d"
    ticks = [first + (last - first) * one / 6 for one in range(7)] if last > first else [first]
    axis.set_ticks(ticks, [f"{datetime.fromtimestamp(one / 1000, UTC):{form}}" for one in ticks])


def _band(axes: Any, rows: Sequence[Figure], colour: str, label: str) -> None:  # noqa: ANN401 - axes of matplotlib
    rows = [row for row in rows if row.value is not None]
    x = [row.x or 0.0 for row in rows]
    axes.plot(x, [(row.value or 0.0) for row in rows], marker="o", color=colour, label=label, markersize=3.5)
    known = [row for row in rows if row.low is not None and row.high is not None]
    axes.fill_between(
        [row.x or 0.0 for row in known],
        [(row.low or 0.0) for row in known],
        [(row.high or 0.0) for row in known],
        color=colour,
        alpha=0.13,
        linewidth=0,
    )


def lifts(figures: Figures, measure: str) -> str:
    """Return the lifts of all policies with their intervals, a row each."""
    policies = [name for name in figures.names("value", "policy", measure=measure) if name]
    with _canvas(height=0.55 + 0.36 * len(policies)) as ((axes,), made):
        for place, policy in enumerate(policies):
            (_, row), *_ = figures.where("value", policy=policy, measure=measure)
            _, anytime = (figures.where("value", policy=policy, measure=f"{measure}, anytime-valid") or [(0, row)])[0]
            _whisker(axes, anytime, place, _GREY, 1.4)
            _whisker(axes, row, place, _colour(place), 4.0)
            axes.plot([(row.value or 0.0)], [place], "o", color="white", markeredgecolor=_colour(place), markersize=6)
        axes.axvline(0.0, color=_INK, linewidth=0.9)
        axes.set_yticks(range(len(policies)), [figures.label(policy).replace(" (", "\n(") for policy in policies])
        axes.set_ylim(len(policies) - 0.4, -0.6)
        axes.set_xlabel(f"{_currency(figures)} per draw")
    return made[0]


def _whisker(axes: Any, row: Figure, place: float, colour: str, width: float) -> None:  # noqa: ANN401 - axes of matplotlib
    if row.low is not None and row.high is not None:
        axes.plot([row.low, row.high], [place, place], color=colour, linewidth=width, solid_capstyle="round")


def estimators(figures: Figures, policies: Sequence[str]) -> str:
    """Return every estimator's value with its interval, a panel per policy."""
    with _canvas(columns=len(policies), height=2.6, sharey=True, sharex=True) as (panels, made):
        for axes, policy, number in zip(panels, policies, range(len(policies)), strict=True):
            names = figures.names("estimators", "group", policy=policy, measure="value")
            for place, name in enumerate(names):
                (_, row), *_ = figures.where("estimators", policy=policy, measure="value", group=name)
                _whisker(axes, row, place, _colour(number), 2.5)
                if row.value is not None:
                    axes.plot([row.value], [place], "o", color=_colour(number), markersize=4.5)
            logged = figures.where("value", policy=policy, measure="logged value")
            if logged and logged[0][1].value is not None:
                axes.axvline(logged[0][1].value, color=_INK, linewidth=0.9, linestyle="--")
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_title(figures.label(policy))
            axes.set_xlabel(f"{_currency(figures)} per draw; dashed: logged")
    return made[0]


def weights(figures: Figures) -> str:
    """Return the histograms of importance weights, side by side."""
    policies = figures.names("weights", "policy")
    groups = figures.names("weights", "group")
    with _canvas(height=2.6) as ((axes,), made):
        width = 0.8 / len(policies)
        for number, policy in enumerate(policies):
            rows = [row for _, row in figures.where("weights", policy=policy)]
            places = [one + (number - (len(policies) - 1) / 2) * width for one in range(len(rows))]
            axes.bar(places, [row.value or 0.0 for row in rows], width * 0.92, color=_colour(number), label=policy)
        axes.set_xticks(range(len(groups)), groups, fontsize=8.5)
        axes.set_xlabel("importance weight: target probability over logged probability")
        axes.set_ylabel("share of draws")
        _percent(axes.yaxis)
        axes.grid(visible=False, axis="x")
        axes.legend()
    return made[0]


def truth(figures: Figures) -> str:
    """Return the true value of each period: of policies, and of what they are held against."""
    with _canvas(height=3.3) as ((axes,), made):
        asked = figures.names("verdict", "policy", measure="verdict")
        for policy in figures.names("truth", "policy"):
            rows = [row for _, row in figures.where("truth", policy=policy, measure="true value of the period")]
            style = {"color": _colour(asked.index(policy)), "marker": "o"} if policy in asked else _YARDSTICKS[policy]
            x = [row.x for row in rows]
            axes.plot(x, [row.value for row in rows], label=policy, markersize=3.5, **style)
        axes.set_ylabel(f"{_currency(figures)} per draw")
        _times(axes.xaxis, [row.x or 0.0 for _, row in figures.where("truth", measure="true value of the period")])
        axes.figure.legend(loc="outside upper left", ncols=3)
    return made[0]


def demand(figures: Figures) -> str:
    """Return the demand curves with intervals: all draws, and by intent."""
    with _canvas(columns=2, sharey=True) as ((whole, parts), made):
        _band(whole, [row for _, row in figures.where("demand", measure="share bought", segment="")], _colour(0), "all")
        whole.set_title("All draws")
        whole.set_ylabel("share that bought")
        for number, group in enumerate(figures.names("demand", "group", measure="share bought", segment="intent")):
            rows = [row for _, row in figures.where("demand", measure="share bought", segment="intent", group=group)]
            _band(parts, rows, _colour(number), group)
        parts.set_title("By intent")
        parts.legend(ncols=2)
        for axes in (whole, parts):
            axes.set_xlabel("price over list")
            axes.xaxis.set_major_formatter(require_matplotlib().ticker.PercentFormatter(1_000.0, None))
            _percent(axes.yaxis)
            axes.set_ylim(bottom=0.0)
    return made[0]


def multipliers(figures: Figures) -> str:
    """Return how often each share of list price is asked, per policy."""
    policies = figures.names("multipliers", "policy")
    places = sorted({row.x or 0.0 for _, row in figures.where("multipliers")})
    with _canvas(height=2.6) as ((axes,), made):
        width = 0.8 / len(policies)
        for number, policy in enumerate(policies):
            share = {row.x: row.value or 0.0 for _, row in figures.where("multipliers", policy=policy)}
            at = [one + (number - (len(policies) - 1) / 2) * width for one in range(len(places))]
            axes.bar(at, [share.get(place, 0.0) for place in places], width * 0.92, color=_colour(number), label=policy)
        axes.set_xticks(range(len(places)), [f"{place / 10:g} %" for place in places])
        axes.set_xlabel("price over list, to the nearest 2.5 %")
        axes.set_ylabel("share of prices")
        axes.grid(visible=False, axis="x")
        _percent(axes.yaxis, 0)
        axes.legend()
    return made[0]


def paths(figures: Figures) -> str:
    """Return price paths: a panel per item; the mean price of each policy, and thin the lowest and the highest."""
    items, policies = figures.names("paths", "group"), figures.names("paths", "policy")
    with _canvas(columns=2, rows=(len(items) + 1) // 2, height=2.2, sharex=True) as (panels, made):
        for axes, item in zip(panels, items, strict=False):
            listed = [row for _, row in figures.where("paths", group=item, measure="list price", policy=policies[0])]
            axes.step(
                [row.x for row in listed], [row.value for row in listed], where="mid", color=_INK, linewidth=1.0, linestyle="--",
                label="list price",
            )  # fmt: skip
            for number, policy in enumerate(policies):
                rows = [row for _, row in figures.where("paths", group=item, measure="price", policy=policy)]
                x = [row.x for row in rows]
                axes.plot(x, [row.value for row in rows], color=_colour(number), label=policy)
                for ends in ([row.low for row in rows], [row.high for row in rows]):
                    axes.plot(x, ends, color=_colour(number), linewidth=0.6, alpha=0.55)
            axes.set_title(item if len(item) < 48 else f"{item[:46]}…")
            _times(axes.xaxis, [row.x or 0.0 for _, row in figures.where("paths")])
        for axes in panels[len(items) :]:
            axes.set_visible(False)
        panels[0].figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(policies) + 1
        )
    return made[0]


def growth(figures: Figures) -> str:
    """Return the lift over the logged policy: of each period, and from the beginning up to its end."""
    policies = figures.names("growth", "policy")
    with _canvas(columns=2, sharex=True) as ((each, whole), made):
        for number, policy in enumerate(policies):
            rows = [row for _, row in figures.where("parts", policy=policy, segment="", measure="lift")]
            _band(each, rows, _colour(number), policy)
            _band(whole, [row for _, row in figures.where("growth", policy=policy)], _colour(number), policy)
        each.set_title("Each period")
        whole.set_title("From the beginning until then")
        each.set_ylabel(f"{_currency(figures)} per draw")
        for axes in (each, whole):
            axes.axhline(0.0, color=_INK, linewidth=0.9)
            _times(axes.xaxis, [row.x or 0.0 for _, row in figures.where("growth")])
        whole.legend(fontsize=8)
    return made[0]


def calibration(figures: Figures, section: str) -> str:
    """Return reliability diagrams: observed against predicted share, both axes as square roots."""
    methods = figures.names(section, "policy", measure="observed share")
    with _canvas(height=4.2, width=4.6) as ((axes,), made):
        root: tuple[Callable[[Any], Any], Callable[[Any], Any]] = (lambda one: abs(one) ** 0.5, lambda one: one**2)
        top = max(
            (max(row.value or 0.0, row.x or 0.0) for _, row in figures.where(section, measure="observed share")),
            default=1.0,
        )
        axes.set_xscale("function", functions=root)
        axes.set_yscale("function", functions=root)
        axes.plot([0.0, top], [0.0, top], color=_GREY, linestyle="--", linewidth=1.0)
        for number, name in enumerate(methods):
            _band(
                axes,
                [row for _, row in figures.where(section, policy=name, measure="observed share")],
                _colour(number),
                name,
            )
        axes.set_xlabel("predicted share")
        axes.set_ylabel("observed share")
        for axis in (axes.xaxis, axes.yaxis):
            _percent(axis)
            if top > 0.1:
                axis.set_ticks([one for one in _ROOT_TICKS if one <= top])
        axes.set_aspect("equal")
        axes.legend(loc="upper left")
    return made[0]
