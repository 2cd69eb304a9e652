"""What a policy publishes: price paths, multipliers, rails, dispersion, parity between groups, tenure. Needs no outcomes.

Shares are of the prices of views and clicks: a purchase or a withdrawal only returns an item to its list price. Decisions are
taken in chunk by chunk; what is kept of them are sums. Not here: what prices earn (values).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from backtest.report.clusters import Slope, UserSums
from backtest.report.divisions import Divisions, Extent, groups_of, tenure_bands
from backtest.report.facts import Bools, Decisions, Floats, Ints
from backtest.report.figures import Figures
from backtest.report.spill import Spill

PATH_ITEMS = 4
"""Items whose price paths are drawn: those with most prices."""
PATH_STEPS = 48
GROUP_MIN = 30
"""Prices below which a group's mean is not compared."""
_HOUR_MS = 3_600_000
_STEPS = 40
"""Of a histogram of multipliers, between 0 and 1."""


class PriceTally:
    """What a policy published in one run."""

    def __init__(self, divisions: Divisions, extent: Extent, scratch: Path, rows: int) -> None:
        """Begin.

        Args:
            divisions: of the log.
            extent: of the logged run.
            scratch: a directory for what does not fit into memory.
            rows: decisions that will come at most.
        """
        self._divisions = divisions
        self._users = np.zeros(0, np.bool_)
        self._counts: Counter[str] = Counter()
        self._sum = 0.0
        self._multipliers: Counter[int] = Counter()
        self._rails: Counter[str] = Counter()
        self._binding: Counter[str] = Counter()
        self._cells = Spill(scratch, "item-hours", 5, rows)
        self._groups: dict[tuple[str, str], UserSums] = {}
        self._tenure = Slope()
        self.paths = Paths(extent)

    def add(self, run: Decisions) -> None:
        """Take some decisions in."""
        priced = run.offered
        multiplier, user = run.multiplier[priced], run.user[priced]
        self._users = _marked(self._users, user)
        drawn = priced & (run.status == "drawn")
        self._counts.update(
            prices=len(multiplier), draws=int((run.status == "drawn").sum()), below=int((multiplier < 1.0).sum()),
            above=int((multiplier > 1.0).sum()), forced=int(run.forced[priced].sum()),
        )  # fmt: skip
        self._sum += float(multiplier.sum())
        _count(self._multipliers, np.round(multiplier * _STEPS).astype(np.int64))
        bits = run.rails[priced]
        for place, name in enumerate(run.rail_names):
            self._rails[name] += int((bits >> place & 1).sum())
        self._binding.update(dict(zip(*_counted(run.binding[priced]), strict=True)))
        item, hour = run.item[priced], run.time_ms[priced] // _HOUR_MS
        self._cells.append(item, np.stack([item, hour, user, run.price[priced], run.list_price[priced]], axis=1))
        self._add_groups(run, drawn)
        self.paths.add(run)

    def _add_groups(self, run: Decisions, drawn: Bools) -> None:
        segments = self._divisions.segments(run.item, run.market, run.list_price, run.sequence, run.intent)
        segments["tenure"] = tenure_bands(np.maximum(run.sequence, 1))
        multiplier, user = run.multiplier[drawn], run.user[drawn]
        for segment, groups in segments.items():
            for group, rows in groups.where(drawn).present():
                self._groups.setdefault((segment, group), UserSums()).add(multiplier[rows], user[rows])
        self._tenure.add(np.log10(np.maximum(run.sequence[drawn], 1)), multiplier, user)

    def describe(self, figures: Figures, policy: str) -> None:
        """Add sections prices, multipliers, rails, dispersion, parity, gaps and tenure."""
        self._totals(figures, policy)
        self._describe_rails(figures, policy)
        self._dispersion(figures, policy)
        self._parity(figures, policy)

    def _share(self, count: int) -> float | None:
        return count / self._counts["prices"] if self._counts["prices"] else None

    def _totals(self, figures: Figures, policy: str) -> None:
        count, whole = self._counts, self._counts["prices"]
        figures.add("prices", "prices", whole, policy=policy, unit="count")
        figures.add("prices", "users", int(self._users.sum()), policy=policy, unit="count")
        figures.add("prices", "draws", count["draws"], policy=policy, unit="count")
        figures.add("prices", "below list", self._share(count["below"]), policy=policy, unit="share")
        figures.add("prices", "above list", self._share(count["above"]), policy=policy, unit="share")
        mean = 1_000 * self._sum / whole if whole else None
        figures.add("prices", "mean price over list", mean, policy=policy, unit="permille")
        figures.add("prices", "one feasible price only", self._share(count["forced"]), policy=policy, unit="share")
        for step, times in sorted(self._multipliers.items()):
            place = step / _STEPS
            figures.add(
                "multipliers", "share of prices", times / whole, policy=policy, x=1_000 * place, unit="share",
                group=f"{place:.1%}",
            )  # fmt: skip

    def _describe_rails(self, figures: Figures, policy: str) -> None:
        for rail in sorted((self._rails.keys() | self._binding.keys()) - {""}):
            removed, ruled = self._rails[rail], self._binding[rail]
            if not removed + ruled:
                continue  # of decisions that are not counted here
            figures.add("rails", "took prices away", self._share(removed), policy=policy, group=rail, unit="share")
            figures.add("rails", "decided the price", self._share(ruled), policy=policy, group=rail, unit="share")

    def _dispersion(self, figures: Figures, policy: str) -> None:
        ratio = np.concatenate([dispersions(*rows.T) for rows in self._cells])
        figures.add("dispersion", "item-hours with two users or more", len(ratio), policy=policy, unit="count")
        for name, share in (("median", 0.5), ("95th percentile", 0.95), ("highest", 1.0)):
            figures.add("dispersion", name, float(np.quantile(ratio, share)) if len(ratio) else None, policy=policy)
        same = float((ratio == 1.0).mean()) if len(ratio) else None
        figures.add("dispersion", "one price for all", same, policy=policy, unit="share")

    def _parity(self, figures: Figures, policy: str) -> None:
        for segment in dict.fromkeys(segment for segment, _ in self._groups):
            means = []
            section = "tenure" if segment == "tenure" else "parity"
            for group in groups_of(name for one, name in self._groups if one == segment):
                sums = self._groups[segment, group]
                mean, half = sums.mean()
                figures.add(section, "draws", sums.count, policy=policy, segment=segment, group=group, unit="count")
                figures.add(
                    section, "mean price over list", 1_000 * mean, 1_000 * (mean - half), 1_000 * (mean + half), policy=policy,
                    segment=segment, group=group, unit="permille",
                )  # fmt: skip
                if sums.count >= GROUP_MIN:
                    means.append(mean)
            if len(means) > 1:
                gap = 1_000 * (max(means) - min(means))
                figures.add("gaps", "largest gap", gap, policy=policy, segment=segment, unit="permille")
        self._tenure_verdict(figures, policy)

    def _tenure_verdict(self, figures: Figures, policy: str) -> None:
        """Add whether longer-known users pay more: the slope of the multiplier in log10 of their events."""
        if self._tenure.count < GROUP_MIN or not self._tenure.varies:
            return
        slope, half = self._tenure.fit()
        rises = slope - half > 0.0
        figures.add(
            "tenure", "change of price over list per tenfold events", 1_000 * slope, 1_000 * (slope - half),
            1_000 * (slope + half), policy=policy, unit="permille",
            text="rises with tenure" if rises else "does not rise with tenure",
        )  # fmt: skip


def dispersions(item: Ints, hour: Ints, user: Ints, price: Ints, list_price: Ints) -> Floats:
    """Return, of every item and hour with prices for two users or more, the highest over the lowest price over list."""
    _, cell = np.unique(np.stack([item, hour], axis=1), axis=0, return_inverse=True)
    cell, multiplier = cell.reshape(-1), price / list_price
    high, low = np.zeros(cell.max(initial=-1) + 1), np.full(cell.max(initial=-1) + 1, np.inf)
    np.maximum.at(high, cell, multiplier)
    np.minimum.at(low, cell, multiplier)
    pairs = np.unique(np.stack([cell, user], axis=1), axis=0)
    several = np.bincount(pairs[:, 0], minlength=len(high)) > 1
    ratio: Floats = high[several] / low[several]
    return ratio


class Paths:
    """The price paths of the items that the logged run priced most: lowest, mean and highest price in equal steps of time."""

    def __init__(self, extent: Extent) -> None:
        self._items = extent.busiest(PATH_ITEMS)
        self._first_ms = extent.first_ms
        self._step_ms = max(1, -(-(extent.last_ms - extent.first_ms + 1) // PATH_STEPS))
        shape = len(self._items), PATH_STEPS
        self._count, self._sum, self._listed = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._low, self._high = np.full(shape, np.inf), np.full(shape, -np.inf)

    def add(self, run: Decisions) -> None:
        """Take some decisions in."""
        for place, item in enumerate(self._items):
            rows = np.flatnonzero(run.offered & (run.item == item))
            step = np.clip((run.time_ms[rows] - self._first_ms) // self._step_ms, 0, PATH_STEPS - 1)
            price = run.price[rows].astype(np.float64)
            np.add.at(self._count[place], step, 1.0)
            np.add.at(self._sum[place], step, price)
            np.add.at(self._listed[place], step, run.list_price[rows].astype(np.float64))
            np.minimum.at(self._low[place], step, price)
            np.maximum.at(self._high[place], step, price)

    def describe(self, figures: Figures, policy: str, names: dict[int, str], minor: int) -> None:
        """Add section paths; `names` are those of the items, by code."""
        for place, item in enumerate(self._items):
            for step in np.flatnonzero(self._count[place]).tolist():
                count = self._count[place, step]
                x = self._first_ms + (step + 0.5) * self._step_ms
                figures.add(
                    "paths", "price", self._sum[place, step] / count / minor, self._low[place, step] / minor,
                    self._high[place, step] / minor, policy=policy, segment="item", group=names[item], x=x, unit="money",
                )  # fmt: skip
                figures.add(
                    "paths", "list price", self._listed[place, step] / count / minor, policy=policy, segment="item",
                    group=names[item], x=x, unit="money",
                )  # fmt: skip


def _marked(seen: Bools, codes: Ints) -> Bools:
    """Return, by code, whether it was seen before or is now."""
    longer = np.zeros(max(len(seen), int(codes.max(initial=-1)) + 1), np.bool_)
    longer[: len(seen)] = seen
    longer[codes] = True
    return longer


def _count(counts: Counter[int], values: Ints) -> None:
    found, times = np.unique(values, return_counts=True)
    counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))


def _counted(values: object) -> tuple[list[str], list[int]]:
    found, times = np.unique(np.asarray(values), return_counts=True)
    return found.tolist(), times.tolist()
