"""What a recorded log says of its shop's traffic: how often people come, what they look at, what of it they buy, at which prices.

Shares and quantiles only, nothing of anybody: categories with few views are one. What a log without price variation cannot say is
how demand answers to prices: that is a parameter of the simulated shop (backtest.street), to be swept. The numbers belong to
whoever owns the log; none are shipped but those of a shop that was made up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from contracts.errors import BadInput
from contracts.log import Log, open_log
from contracts.log_rows import EventRow

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]

HOUR_MS = 3_600_000
LOOKS_MAX = 40
"""Longer sessions count as this long."""
VIEWS_MIN = 200
"""A category with fewer views in the log is part of `other`."""
CATEGORIES_MAX = 40
QUANTILES = tuple(np.linspace(0.0, 1.0, 11).tolist())
GAP_MS = 1_800_000
"""Silence that ends a session which the log does not name."""


class Category(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One category, as people look at it."""

    name: str
    share: Share
    """Of all views."""
    items: Annotated[int, Meta(ge=1)]
    """Different ones that were looked at."""
    list_prices: Annotated[tuple[Positive, ...], Meta(min_length=2)]
    """Quantiles of the price at a view, evenly spaced from the lowest to the highest, in minor units."""
    carts: Share
    """Per view."""
    purchases: Share
    """Per view."""


class Habits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The traffic of a shop."""

    source: str
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"
    sessions_per_hour: Annotated[tuple[Annotated[float, Meta(ge=0.0)], ...], Meta(min_length=24, max_length=24)]
    """By hour of the day, UTC; hours that the log does not cover have the mean of those that it does."""
    sessions_per_user: Annotated[float, Meta(ge=1.0)]
    looks: Annotated[tuple[Share, ...], Meta(min_length=1)]
    """Share of sessions with 1, 2, 3, ... views."""
    pauses_ms: Annotated[tuple[Positive, ...], Meta(min_length=2)]
    """Quantiles of the time between two views of a session."""
    searches: Share
    """Of sessions, with a search query."""
    grants: Share
    denies: Share
    """Of users: what they said of personal prices first. The others said nothing."""
    categories: Annotated[tuple[Category, ...], Meta(min_length=1)]


MADE_UP = Habits(
    source="made up",
    sessions_per_hour=(
        60, 40, 30, 20, 20, 40, 80, 120, 150, 170, 180, 190, 200, 190, 180, 180, 190, 220, 260, 280, 260, 200, 140, 90,
    ),
    sessions_per_user=1.4,
    looks=(0.4, 0.2, 0.12, 0.08, 0.06, 0.05, 0.04, 0.03, 0.01, 0.01),
    pauses_ms=(3_000, 15_000, 40_000, 120_000, 900_000),
    searches=0.35,
    grants=0.8,
    denies=0.1,
    categories=(
        Category(
            name="phones", share=0.4, items=60, list_prices=(1_500, 19_900, 89_900), carts=0.12, purchases=0.05
        ),
        Category(
            name="kitchen", share=0.35, items=80, list_prices=(900, 5_900, 34_900), carts=0.1, purchases=0.06
        ),
        Category(name="toys", share=0.25, items=60, list_prices=(500, 2_900, 9_900), carts=0.15, purchases=0.08),
    ),
)  # fmt: skip
"""A shop that does not exist."""


def read_habits(file: Path) -> Habits:
    """Return what `write_habits` wrote.

    Raises:
        BadInput: it cannot be read, or is none.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=Habits)
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}; `pricetide calibrate` writes one") from None
    except msgspec.DecodeError as error:
        raise BadInput(f"{file} is no statistics of a log: {error}; write it with `pricetide calibrate`") from None


def write_habits(habits: Habits, file: Path) -> None:
    """Write `habits` as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(habits), indent=2) + b"\n")


def habits_of(directory: Path) -> Habits:
    """Return the habits in the log at `directory`. Memory: a little per session and per item of the log.

    Raises:
        BadInput: it is no log, or nobody looks at anything in it.
    """
    log = open_log(directory)
    return _Survey(log).habits()


class _Session(Struct, gc=False):
    begun_ms: int
    last_ms: int
    looks: int = 0
    searched: bool = False


class _Survey:
    """Counts a log in one pass."""

    def __init__(self, log: Log) -> None:
        self._manifest = log.manifest
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._latest: dict[str, tuple[str, int]] = {}
        """Of users without session ids: the session made up for them, and their last event."""
        self._said: dict[str, bool] = {}
        self._users: set[str] = set()
        self._pauses: list[int] = []
        self._views: Counter[str] = Counter()
        self._carts: Counter[str] = Counter()
        self._purchases: Counter[str] = Counter()
        self._prices: dict[str, list[int]] = defaultdict(list)
        self._items: dict[str, set[str]] = defaultdict(set)
        self._category = {
            row.item: row.category or "other" for rows in log.catalogue() for row in rows if row.item is not None
        }
        for row in log.rows():
            self._take(row)

    def _take(self, row: EventRow) -> None:
        if row.user is None or row.event_time_ms is None:
            return
        if row.type == "consent":
            self._said.setdefault(row.user, bool(row.granted))
            return
        category = self._category.get(row.item or "")
        if category is None or not row.price or row.price <= 0 or row.currency != self._manifest.semantics.currency:
            return
        assert row.item is not None
        if row.type == "view":
            self._views[category] += 1
            self._prices[category].append(row.price)
            self._items[category].add(row.item)
            self._look(row.user, row.session, row.event_time_ms, row.query is not None)
        elif row.type == "purchase":
            self._purchases[category] += 1
        elif row.action == "add_to_cart":
            self._carts[category] += 1

    def _look(self, user: str, name: str | None, now_ms: int, searched: bool) -> None:
        self._users.add(user)
        if name is None:
            made_up, last_ms = self._latest.get(user, ("", -GAP_MS))
            name = made_up if now_ms - last_ms < GAP_MS else f"from {now_ms}"
            self._latest[user] = (name, now_ms)
        session = self._sessions.get((user, name))
        if session is None:
            session = self._sessions[user, name] = _Session(now_ms, now_ms)
        elif now_ms > session.last_ms:
            self._pauses.append(now_ms - session.last_ms)
        session.looks += 1
        session.last_ms = max(session.last_ms, now_ms)
        session.searched |= searched

    def habits(self) -> Habits:
        """Return what was counted."""
        sessions = list(self._sessions.values())
        if not sessions or not self._pauses:
            raise BadInput("The log has no views of items in its catalogue, or no two in a session: use a larger one")
        lengths = Counter(min(session.looks, LOOKS_MAX) for session in sessions)
        users = len(self._users)
        granted = sum(self._said.get(user, False) for user in self._users)
        denied = sum(not self._said.get(user, True) for user in self._users)
        return Habits(
            source=self._manifest.source,
            currency=self._manifest.semantics.currency,
            sessions_per_hour=_by_hour([session.begun_ms for session in sessions]),
            sessions_per_user=len(sessions) / users,
            looks=tuple([lengths[length] / len(sessions) for length in range(1, max(lengths) + 1)]),
            pauses_ms=_quantiles(self._pauses),
            searches=sum(session.searched for session in sessions) / len(sessions),
            grants=granted / users,
            denies=denied / users,
            categories=self._categories(),
        )

    def _categories(self) -> tuple[Category, ...]:
        large = [name for name, views in self._views.most_common(CATEGORIES_MAX - 1) if views >= VIEWS_MIN]
        groups = [(name, [name]) for name in large if name != "other"]
        rest = [name for name in self._views if name not in large or name == "other"]
        if rest:
            groups.append(("other", rest))
        whole = self._views.total()
        found = []
        for name, members in groups:
            views = sum(self._views[each] for each in members)
            found.append(
                Category(
                    name=name,
                    share=views / whole,
                    items=sum(len(self._items[each]) for each in members),
                    list_prices=_quantiles([price for each in members for price in self._prices[each]]),
                    carts=min(sum(self._carts[each] for each in members) / views, 1.0),
                    purchases=min(sum(self._purchases[each] for each in members) / views, 1.0),
                )
            )
        return tuple(found)


def _quantiles(values: list[int]) -> tuple[float, ...]:
    return tuple(np.quantile(np.array(values, dtype=np.float64), QUANTILES).tolist())


def _by_hour(begun_ms: list[int]) -> tuple[float, ...]:
    """Return sessions per hour of the day, as a mean over the days on which the log covers that hour."""
    hours = Counter(at // HOUR_MS for at in begun_ms)
    covered = range(min(hours), max(hours) + 1)
    by_hour: dict[int, list[int]] = defaultdict(list)
    for hour in covered:
        by_hour[hour % 24].append(hours[hour])
    mean = len(begun_ms) / len(covered)
    return tuple([float(np.mean(by_hour[hour])) if by_hour[hour] else mean for hour in range(24)])
