"""Figures: every number of a report, one row each, as files beside the page; the page shows figures and nothing else.

A figure says what it is (section, measure), of what (policy, segment, group, period), and its value with an interval. The
page is a function of the figures alone: whoever has the JSON has the page. Not here: what computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import floor, isfinite, log10
from pathlib import Path
from typing import Literal, TypedDict

import msgspec
from msgspec import Struct

from contracts.errors import BadInput
from contracts.log_files import require_pyarrow

Unit = Literal[
    "count", "share", "change", "change of share", "money", "change of money", "permille", "number", "change of number", "text",
]  # fmt: skip
"""How a value is shown. share: a fraction, as percent; change: the same with a sign; change of share: in points; money: whole
units of the log's currency; permille: of list price; text: only `text`."""

STAYS_AWAY = "users who do not come back"
"""The only figure of a policy that is the worse the higher it is."""
PROVED = "recorded outcomes, held against the replay"
"""The proof of the logged propensities."""


class Figure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure."""

    section: str
    measure: str
    policy: str = ""
    """Whose figure it is; empty: the log's."""
    segment: str = ""
    """What the rows are divided by (`category`); empty: not at all."""
    group: str = ""
    """The part of that division (`shoes`)."""
    period: str = ""
    """Part of the log's time; empty: all of it."""
    x: float | None = None
    """Place on the axis of a plot; in permille for multipliers, ms of event time for times."""
    value: float | None = None
    """None: not available; `text` says why."""
    low: float | None = None
    """Interval of 95 %; of a gate its limits."""
    high: float | None = None
    unit: Unit = "number"
    text: str = ""


class Place(TypedDict, total=False):
    """What several figures are of, for `Figures.add(..., **place)`."""

    policy: str
    segment: str
    group: str
    period: str


class Figures:
    """A collection of figures, in the order in which they were added."""

    def __init__(self, rows: Iterable[Figure] = ()) -> None:
        self.rows = list(rows)
        self._index: dict[tuple[str, str | None, str | None], list[tuple[int, Figure]]] = {}
        self._indexed = 0

    def add(
        self,
        section: str,
        measure: str,
        value: float | None = None,
        low: float | None = None,
        high: float | None = None,
        *,
        policy: str = "",
        segment: str = "",
        group: str = "",
        period: str = "",
        x: float | None = None,
        unit: Unit = "number",
        text: str = "",
    ) -> None:
        """Append a figure; what is not finite is not available."""
        value, low, high, x = (
            float(one) if one is not None and isfinite(one) else None for one in (value, low, high, x)
        )
        self.rows.append(
            Figure(
                section=section, measure=measure, policy=policy, segment=segment, group=group, period=period, x=x,
                value=value, low=low, high=high, unit=unit, text=text,
            )
        )  # fmt: skip

    def where(self, section: str, **wanted: str) -> list[tuple[int, Figure]]:
        """Return the figures of a section whose fields equal `wanted`, each with its number."""
        for number in range(self._indexed, len(self.rows)):
            row = self.rows[number]
            for measure in (None, row.measure):
                for policy in (None, row.policy):
                    self._index.setdefault((row.section, measure, policy), []).append((number, row))
        self._indexed = len(self.rows)
        near = self._index.get((section, wanted.pop("measure", None), wanted.pop("policy", None)), [])
        return [one for one in near if all(getattr(one[1], name) == value for name, value in wanted.items())]

    def drop(self, unwanted: Callable[[Figure], bool]) -> None:
        """Take figures away; the others have new numbers."""
        self.rows = [row for row in self.rows if not unwanted(row)]
        self._index, self._indexed = {}, 0

    def names(self, section: str, field: str, **wanted: str) -> list[str]:
        """Return the distinct values of a field among the figures of `where`, in their order."""
        return list(dict.fromkeys(getattr(row, field) for _, row in self.where(section, **wanted)))

    def label(self, policy: str) -> str:
        """Return a policy's name, with a warning where its numbers are no evidence."""
        return f"{policy} (REFUSE: no evidence)" if self.refused(policy) else policy

    def refused(self, policy: str) -> bool:
        """Return whether a policy, or a price that policies are held against, fails its gates."""
        verdicts = [row.text for _, row in self.where("verdict", policy=policy, measure="verdict")]
        return "REFUSE" in verdicts or bool(self.where("targets", policy=policy, measure="refused"))

    def __iter__(self) -> Iterator[Figure]:
        """Yield the figures."""
        return iter(self.rows)


_COLUMNS = tuple(Figure.__struct_fields__)
_NUMBERS = {"x", "value", "low", "high"}


def write_figures(figures: Figures, as_json: Path, as_parquet: Path) -> None:
    """Write the figures as a JSON array and as Parquet; `number` is a figure's place, as the page names it."""
    pa = require_pyarrow()
    as_json.write_bytes(msgspec.json.format(msgspec.json.encode(figures.rows), indent=1) + b"\n")
    schema = pa.schema(
        [("number", pa.int64()), *((name, pa.float64() if name in _NUMBERS else pa.string()) for name in _COLUMNS)]
    )
    columns = [list(range(len(figures.rows))), *([getattr(row, name) for row in figures] for name in _COLUMNS)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pa.parquet.write_table(pa.Table.from_arrays(arrays, schema=schema), as_parquet, compression="zstd")


def read_figures(as_json: Path) -> Figures:
    """Return the figures in a JSON file.

    Raises:
        BadInput: it cannot be read, or holds something else.
    """
    try:
        return Figures(msgspec.json.decode(as_json.read_bytes(), type=list[Figure]))
    except (OSError, msgspec.DecodeError) as error:
        raise BadInput(f"{as_json} holds no figures ({error}): write the report anew") from None


def shown(figure: Figure) -> str:
    """Return a figure's value as the page shows it."""
    if figure.unit == "text":
        return figure.text
    return "–" if figure.value is None else format_value(figure.value, figure.unit, _size(figure))


def shown_interval(figure: Figure) -> str:
    """Return a figure's interval as the page shows it; empty if there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return " to ".join(format_value(one, figure.unit, _size(figure)) for one in (figure.low, figure.high))


def _size(figure: Figure) -> float:
    """Return what decides how many decimals a figure and its interval have: the largest of them."""
    return max(abs(one) for one in (figure.value, figure.low, figure.high) if one is not None)


def format_value(value: float, unit: Unit, size: float | None = None) -> str:
    """Return a value in words of its unit, to about three digits of `size`; minus is a minus sign.

    Args:
        value: to show.
        unit: of it.
        size: magnitude of what stands beside it; None: the value's own.
    """
    size = abs(value) if size is None else size
    sign = "+" if unit.startswith("change") else ""
    if unit == "count" or (unit == "number" and size == 0.0):
        text = f"{value:,.0f}"
    elif unit in ("share", "change"):
        text = f"{100.0 * value:{sign}.{_decimals(100.0 * size, 3)}f}\u202f%"
    elif unit == "change of share":
        text = f"{100.0 * value:+.{_decimals(100.0 * size, 3)}f}\u202fpoints"
    elif unit == "permille":
        text = f"{value / 10:,.{max(1, _decimals(size / 10, 3))}f}\u202f%"
    elif unit in ("money", "change of money"):
        text = f"{value:{sign},.{max(2, _decimals(size, 3))}f}"
    else:
        text = f"{value:{sign},.{_decimals(size, 3) if size != int(size) or size < 1 else 0}f}"
    return text.replace("-", "−")


def _decimals(size: float, digits: int) -> int:
    """Return how many decimals show `digits` digits of a number; at most six."""
    return 0 if size == 0.0 else min(6, max(0, digits - 1 - floor(log10(size))))
