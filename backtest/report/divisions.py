"""How a report divides a log: segments of users and items, and periods of time. One division for all policies.

Not here: what is computed of a part (prices, values).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from backtest.report.facts import Decisions, Ints, Names
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

    def segments(self, item: Ints, market: Names, list_price: Ints, sequence: Ints, intent: Ints) -> dict[str, Names]:
        """Return per segment the group of every row."""
        return {
            "market": market,
            "category": np.array([self.categories.get(one, _REST) for one in item.tolist()], np.str_),
            "user": np.where(sequence < NEW_USER_EVENTS, "new", "returning"),
            "intent": np.array([_level(one) for one in intent.tolist()], np.str_),
            "list price": self._price_bands()[np.searchsorted(self.price_edges, list_price, side="right")],
        }

    def periods(self, time_ms: Ints) -> Ints:
        """Return the start of every row's period, ms of event time."""
        return time_ms // self.step_ms * self.step_ms

    def _price_bands(self) -> Names:
        money = [format_value(edge / self.minor, "money") for edge in self.price_edges.tolist()]
        if not money:
            return np.array(["all"])
        inner = [f"{low} to {high}" for low, high in pairwise(money)]
        return np.array([f"below {money[0]}", *inner, f"{money[-1]} and more"])


def divide(decisions: Decisions, category_of: Mapping[int, str], minor: int) -> Divisions:
    """Return the divisions of a log by its own decisions.

    Args:
        decisions: of the logged run; not empty.
        category_of: by item code.
        minor: minor units of the currency in a whole one.
    """
    common = Counter(category_of.get(one, _REST) or _REST for one in decisions.item.tolist())
    kept = {name for name, _ in common.most_common(CATEGORIES_MAX)}
    edges = np.unique(np.quantile(decisions.list_price, (0.25, 0.5, 0.75)).astype(np.int64))
    span_ms = int(decisions.time_ms.max() - decisions.time_ms.min())
    step_ms = next((step for step in _STEPS_MS if span_ms < step * (PERIODS_MAX - 1)), _STEPS_MS[-1])
    return Divisions(
        categories={item: name for item, name in category_of.items() if name in kept},
        price_edges=edges[edges > decisions.list_price.min()],
        minor=minor,
        step_ms=step_ms,
    )


def _level(intent: int) -> str:
    return "unknown" if intent < 0 else f"level {intent}" if intent < INTENT_TOP else f"level {INTENT_TOP} or more"


def tenure_bands(sequence: Ints) -> Names:
    """Return the band of every count of events."""
    names = np.array([name for _, name in TENURE_BANDS])
    return names[np.searchsorted([least for least, _ in TENURE_BANDS], sequence, side="right") - 1]


def period_name(start_ms: float, step_ms: int) -> str:
    """Return a period's name: the date, and the time of day where periods are shorter than that."""
    when = datetime.fromtimestamp(start_ms / 1000, UTC)
    return f"{when:%Y-%m-%d}" if step_ms >= 1_440 * _MINUTE_MS else f"{when:%m-%d %H:%M}"


def groups_of(names: Names) -> Iterable[str]:
    """Return the groups in the order people read them."""
    found = np.unique(names).tolist()
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
