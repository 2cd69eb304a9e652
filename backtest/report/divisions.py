"""How a report divides a log: segments of users and items, and periods of time. One division for all policies.

Not here: what is computed of a part (prices, values).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from backtest.report.facts import Bools, Decisions, Floats, Ints, Names
from backtest.report.figures import format_value

NEW_USER_EVENTS = 10
"""A user with fewer events than these by then is new."""
TENURE_BANDS = ((1, "1–4 events"), (5, "5–19 events"), (20, "20–99 events"), (100, "100 events or more"))
"""Least number of the user's events, and the band's name."""
CATEGORIES_MAX = 8
INTENT_TOP = 5
"""Levels from here on are one group: few sessions get there."""
PERIODS_MAX = 12
SEGMENTS = ("market", "category", "user", "intent", "list price")
_REST = "other"
_MINUTE_MS = 60_000
_STEPS_MS = tuple(
    minutes * _MINUTE_MS for minutes in (1, 5, 15, 30, 60, 180, 360, 720, 1_440, 2 * 1_440, 7 * 1_440, 28 * 1_440)
)


@dataclass(frozen=True, slots=True)
class Groups:
    """Which group of a segment every row is in."""

    names: tuple[str, ...]
    code: Ints
    """Places in `names`, (n,)."""

    def where(self, rows: Bools | Ints) -> Groups:
        """Return some of the rows."""
        return Groups(self.names, self.code[rows])

    def present(self) -> Iterator[tuple[str, Bools]]:
        """Yield every group that has rows, in the order people read them, and which rows they are."""
        there = [self.names[one] for one in np.flatnonzero(np.bincount(self.code, minlength=1)).tolist()]
        for name in groups_of(there):
            yield name, self.code == self.names.index(name)

    def texts(self) -> Names:
        """Return the name of every row's group."""
        return np.array(self.names, np.str_)[self.code]


@dataclass(frozen=True, slots=True)
class Divisions:
    """The parts of a log."""

    categories: Mapping[int, str]
    """By item code; of items that are not here, `other`."""
    price_edges: Ints
    """Inner edges of the bands of list price, minor units, ascending."""
    minor: int
    """Minor units of the currency in a whole one."""
    step_ms: int
    """Length of a period, aligned to the epoch."""

    def segments(self, item: Ints, market: Names, list_price: Ints, sequence: Ints, intent: Ints) -> dict[str, Groups]:
        """Return per segment the groups of the rows."""
        markets, place = np.unique(market, return_inverse=True)
        return {
            "market": Groups(tuple(markets.tolist()), place.reshape(-1)),
            "category": self._category(item),
            "user": Groups(("new", "returning"), (sequence >= NEW_USER_EVENTS).astype(np.int64)),
            "intent": Groups(_LEVELS, np.clip(intent, -1, INTENT_TOP) + 1),
            "list price": Groups(self._price_bands(), np.searchsorted(self.price_edges, list_price, side="right")),
        }

    def _category(self, item: Ints) -> Groups:
        names = tuple(dict.fromkeys((*self.categories.values(), _REST)))
        code = np.full(int(item.max(initial=0)) + 1, names.index(_REST), np.int64)
        places = {name: place for place, name in enumerate(names)}
        known = [(one, places[name]) for one, name in self.categories.items() if one < len(code)]
        if known:
            items, values = np.array(known, np.int64).T
            code[items] = values
        return Groups(names, code[item])

    def periods(self, time_ms: Ints) -> Ints:
        """Return the start of every row's period, ms of event time."""
        return time_ms // self.step_ms * self.step_ms

    def _price_bands(self) -> tuple[str, ...]:
        money = [format_value(edge / self.minor, "money") for edge in self.price_edges.tolist()]
        if not money:
            return ("all",)
        inner = [f"{low} to {high}" for low, high in pairwise(money)]
        return (f"below {money[0]}", *inner, f"{money[-1]} and more")


@dataclass(slots=True)
class Extent:
    """What has to be known of all decisions of a log before they can be divided."""

    decisions: int = 0
    first_ms: int = 0
    last_ms: int = 0
    items: Counter[int] = field(default_factory=Counter)
    """Decisions, by item."""
    offered: Counter[int] = field(default_factory=Counter)
    """Those that price an item for somebody who looks at it."""
    list_prices: Counter[int] = field(default_factory=Counter)

    def add(self, run: Decisions) -> None:
        """Take some decisions in."""
        first, last = int(run.time_ms.min()), int(run.time_ms.max())
        self.first_ms = min(self.first_ms, first) if self.decisions else first
        self.last_ms = max(self.last_ms, last)
        self.decisions += len(run.user)
        for counts, values in (
            (self.items, run.item),
            (self.offered, run.item[run.offered]),
            (self.list_prices, run.list_price),
        ):
            found, times = np.unique(values, return_counts=True)
            counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))

    def busiest(self, count: int) -> list[int]:
        """Return the items that are priced most often, as many as `count`."""
        return sorted(self.offered, key=lambda item: (-self.offered[item], item))[:count]


def divide(extent: Extent, category_of: Mapping[int, str], minor: int) -> Divisions:
    """Return the divisions of a log by its own decisions.

    Args:
        extent: of the logged run; not empty.
        category_of: by item code.
        minor: minor units of the currency in a whole one.
    """
    common: Counter[str] = Counter()
    for item, count in extent.items.items():
        common[category_of.get(item, _REST) or _REST] += count
    kept = {name for name, _ in common.most_common(CATEGORIES_MAX)}
    edges = np.unique([int(_quantile(extent.list_prices, share)) for share in (0.25, 0.5, 0.75)])
    span_ms = extent.last_ms - extent.first_ms
    step_ms = next((step for step in _STEPS_MS if span_ms < step * (PERIODS_MAX - 1)), _STEPS_MS[-1])
    return Divisions(
        categories={item: name for item, name in category_of.items() if name in kept},
        price_edges=edges[edges > min(extent.list_prices)],
        minor=minor,
        step_ms=step_ms,
    )


def _quantile(counts: Mapping[int, int], share: float) -> float:
    """Return a quantile of values that occur so often, linear between neighbours (as numpy.quantile)."""
    values = sorted(counts)
    ends: Floats = np.cumsum([counts[one] for one in values]).astype(np.float64)
    at = share * (ends[-1] - 1.0)
    low, high = (values[int(np.searchsorted(ends, place, side="right"))] for place in (np.floor(at), np.ceil(at)))
    return low + (high - low) * float(at - np.floor(at))


_LEVELS = ("unknown", *(f"level {one}" for one in range(INTENT_TOP)), f"level {INTENT_TOP} or more")


def tenure_bands(sequence: Ints) -> Groups:
    """Return the bands of counts of events, at least 1 each."""
    bands = np.searchsorted([least for least, _ in TENURE_BANDS], sequence, side="right") - 1
    return Groups(tuple(name for _, name in TENURE_BANDS), bands)


def period_name(start_ms: float, step_ms: int) -> str:
    """Return a period's name: the date, and the time of day where periods are shorter than that."""
    when = datetime.fromtimestamp(start_ms / 1000, UTC)
    return f"{when:%Y-%m-%d}" if step_ms >= 1_440 * _MINUTE_MS else f"{when:%m-%d %H:%M}"


def groups_of(names: Iterable[str]) -> list[str]:
    """Return the groups in the order people read them."""
    found = sorted(set(names))
    bands = [name for _, name in TENURE_BANDS]
    return sorted(
        found, key=lambda one: (one in (_REST, "unknown"), bands.index(one) if one in bands else -1, _natural(one))
    )


def _natural(name: str) -> tuple[float, str]:
    """Sort bands of money by their numbers, `below` first."""
    head = name.partition(" to ")[0].partition(" and ")[0].replace(",", "")
    if name.startswith("below "):
        return -1.0, name
    try:
        return float(head), name
    except ValueError:
        return 0.0, name
