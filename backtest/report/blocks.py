"""What a page is made of: sections of tables, cards, plots and notes. Every number in them names its figure.

Not here: which sections there are (sections), how they look (page.html.jinja, style.css).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from backtest.report.figures import STAYS_AWAY, Figure, Figures, shown, shown_interval


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure, or words."""

    text: str
    interval: str = ""
    number: int | None = None
    """Of the figure."""
    tone: str = ""
    remark: str = ""
    """Words below the figure, which may take several lines."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table; `first` of a group of rows."""

    label: str
    cells: Sequence[Cell]
    first: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table."""

    head: Sequence[str]
    rows: Sequence[Row]
    caption: str = ""
    kind: str = "table"


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot."""

    svg: str
    caption: str
    kind: str = "plot"


@dataclass(frozen=True, slots=True)
class Notes:
    """Paragraphs, and points below them."""

    paragraphs: Sequence[str]
    points: Sequence[str] = ()
    kind: str = "notes"


@dataclass(frozen=True, slots=True)
class Line:
    """A figure with a label before it."""

    label: str
    text: str
    interval: str
    number: int


@dataclass(frozen=True, slots=True)
class Card:
    """A verdict."""

    policy: str
    verdict: str
    tone: str
    numbers: Sequence[Line]
    why: Sequence[str]


@dataclass(frozen=True, slots=True)
class Cards:
    """Verdicts, side by side."""

    cards: Sequence[Card]
    kind: str = "cards"


@dataclass(frozen=True, slots=True)
class More:
    """Tables that one opens."""

    summary: str
    tables: Sequence[Table]
    kind: str = "more"


Block = Table | Plot | Notes | Cards | More


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page."""

    name: str
    """Anchor in the page."""
    title: str
    reading: str
    """How to read it, in a sentence."""
    blocks: list[Block] = field(default_factory=list)


def cell(number: int, figure: Figure, interval: bool = True) -> Cell:
    """Return a figure as a cell; a change whose interval excludes zero has a tone: good up, but for users who stay away.

    What is said of a diagnostic, as that no gate judges it, stands below its number.
    """
    tone = "words" if figure.unit == "text" else ""
    if figure.unit.startswith("change") and figure.low is not None and figure.high is not None:
        up, down = ("bad", "good") if STAYS_AWAY in figure.group or STAYS_AWAY in figure.measure else ("good", "bad")
        tone = up if figure.low > 0.0 else down if figure.high < 0.0 else ""
    text = figure.text if figure.value is None and figure.text else shown(figure)
    below = shown_interval(figure) if interval else ""
    remarked = figure.section in ("diagnostics", "parts") and figure.value is not None and not below
    return Cell(text, below, number, tone, figure.text if remarked else "")


EMPTY = Cell("")


def row_of(
    figures: Figures, label: str, section: str, measures: Sequence[str], first: bool = False, **wanted: str
) -> Row:
    """Return the measures of whatever `wanted` names as a row; empty where there is no such figure."""
    return Row(label, [cell_of(figures, section, measure=measure, **wanted) for measure in measures], first)


def cell_of(figures: Figures, section: str, **wanted: str) -> Cell:
    """Return the first figure that has what is wanted; empty if none has."""
    found = figures.where(section, **wanted)
    return cell(*found[0]) if found else EMPTY
