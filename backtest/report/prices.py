"""What a policy publishes: price paths, multipliers, rails, dispersion, parity between groups, tenure. Needs no outcomes.

Shares are of the prices of views and clicks: a purchase or a withdrawal only returns an item to its list price. Intervals
of means are clustered by user: a user's prices depend on each other. Not here: what prices earn (values).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from backtest.report.divisions import Divisions, groups_of, tenure_bands
from backtest.report.facts import Bools, Decisions, Floats, Ints
from backtest.report.figures import Figures

PATH_ITEMS = 4
"""Items whose price paths are drawn: those with most prices."""
PATH_STEPS = 48
GROUP_MIN = 30
"""Prices below which a group's mean is not compared."""
_Z = 1.959963984540054
_HOUR_MS = 3_600_000


def describe_prices(figures: Figures, policy: str, run: Decisions, divisions: Divisions) -> None:
    """Add what `policy` published in `run`: sections prices, rails, dispersion, parity, tenure and paths."""
    priced = offered(run)
    _totals(figures, policy, run, priced)
    _rails(figures, policy, run, priced)
    _dispersion(figures, policy, run, priced)
    _parity(figures, policy, run, priced, divisions)


def offered(run: Decisions) -> Bools:
    """Return which decisions price an item for somebody who looks at it, or has just withdrawn consent."""
    priced: Bools = run.binding != "purchase"
    return priced


def _totals(figures: Figures, policy: str, run: Decisions, priced: Bools) -> None:
    multiplier = run.multiplier[priced]
    figures.add("prices", "prices", len(multiplier), policy=policy, unit="count")
    figures.add("prices", "users", len(np.unique(run.user[priced])), policy=policy, unit="count")
    figures.add("prices", "draws", int((run.status == "drawn").sum()), policy=policy, unit="count")
    figures.add("prices", "below list", _mean(multiplier < 1.0), policy=policy, unit="share")
    figures.add("prices", "above list", _mean(multiplier > 1.0), policy=policy, unit="share")
    figures.add("prices", "mean price over list", 1_000 * _mean(multiplier), policy=policy, unit="permille")
    figures.add("prices", "one feasible price only", _mean(run.forced[priced]), policy=policy, unit="share")
    permille = np.round(multiplier * 40) / 40
    for place, count in zip(*np.unique(permille, return_counts=True), strict=True):
        figures.add(
            "multipliers", "share of prices", count / len(multiplier), policy=policy, x=1_000 * place, unit="share",
            group=f"{place:.1%}",
        )  # fmt: skip


def _rails(figures: Figures, policy: str, run: Decisions, priced: Bools) -> None:
    bits, decided = run.rails[priced], Counter(run.binding[priced].tolist())
    removed = {name: int((bits >> place & 1).sum()) for place, name in enumerate(run.rail_names)}
    for rail in sorted((removed.keys() | decided.keys()) - {""}):
        share, ruled = removed.get(rail, 0) / len(bits), decided[rail] / len(bits)
        if not share + ruled:
            continue  # of decisions that are not counted here
        figures.add("rails", "took prices away", share, policy=policy, group=rail, unit="share")
        figures.add("rails", "decided the price", ruled, policy=policy, group=rail, unit="share")


def item_hours(run: Decisions, priced: Bools) -> tuple[Floats, Ints]:
    """Return of every item and hour with prices for two users or more: highest over lowest price over list; and users."""
    keys = np.stack([run.item[priced], run.time_ms[priced] // _HOUR_MS], axis=1)
    _, cell = np.unique(keys, axis=0, return_inverse=True)
    multiplier = run.multiplier[priced]
    high, low = np.zeros(cell.max(initial=-1) + 1), np.full(cell.max(initial=-1) + 1, np.inf)
    np.maximum.at(high, cell, multiplier)
    np.minimum.at(low, cell, multiplier)
    pairs = np.unique(np.stack([cell, run.user[priced]], axis=1), axis=0)
    users = np.bincount(pairs[:, 0], minlength=len(high))
    several = users > 1
    return high[several] / low[several], users[several]


def _dispersion(figures: Figures, policy: str, run: Decisions, priced: Bools) -> None:
    ratio, _ = item_hours(run, priced)
    figures.add("dispersion", "item-hours with two users or more", len(ratio), policy=policy, unit="count")
    for name, share in (("median", 0.5), ("95th percentile", 0.95), ("highest", 1.0)):
        figures.add("dispersion", name, float(np.quantile(ratio, share)) if len(ratio) else None, policy=policy)
    figures.add("dispersion", "one price for all", _mean(ratio == 1.0), policy=policy, unit="share")


def _parity(figures: Figures, policy: str, run: Decisions, priced: Bools, divisions: Divisions) -> None:
    segments = divisions.segments(run.item, run.market, run.list_price, run.sequence, run.intent)
    segments["tenure"] = tenure_bands(np.maximum(run.sequence, 1))
    drawn = priced & (run.status == "drawn")
    for segment, names in segments.items():
        means = []
        for group in groups_of(names[drawn]):
            rows = drawn & (names == group)
            mean, half = clustered_mean(run.multiplier[rows], run.user[rows])
            count = int(rows.sum())
            section = "tenure" if segment == "tenure" else "parity"
            figures.add(section, "draws", count, policy=policy, segment=segment, group=group, unit="count")
            interval = (1_000 * (mean - half), 1_000 * (mean + half))
            figures.add(
                section, "mean price over list", 1_000 * mean, *interval, policy=policy, segment=segment, group=group,
                unit="permille",
            )  # fmt: skip
            if count >= GROUP_MIN:
                means.append(mean)
        if len(means) > 1:
            figures.add(
                "gaps",
                "largest gap",
                1_000 * (max(means) - min(means)),
                policy=policy,
                segment=segment,
                unit="permille",
            )
    _tenure_verdict(figures, policy, run, drawn)


def _tenure_verdict(figures: Figures, policy: str, run: Decisions, drawn: Bools) -> None:
    """Add whether longer-known users pay more: the slope of the multiplier in log10 of their events, clustered by user."""
    if drawn.sum() < GROUP_MIN or len(np.unique(run.sequence[drawn])) < 2:
        return
    tenure = np.log10(np.maximum(run.sequence[drawn], 1))
    centred, y = tenure - tenure.mean(), run.multiplier[drawn]
    spread = float((centred**2).sum())
    slope = float((centred * y).sum()) / spread
    residual = y - y.mean() - slope * centred
    scores = np.bincount(np.unique(run.user[drawn], return_inverse=True)[1], centred * residual)
    half = _Z * float(np.sqrt((scores**2).sum())) / spread
    rises = slope - half > 0.0
    figures.add(
        "tenure", "change of price over list per tenfold events", 1_000 * slope, 1_000 * (slope - half), 1_000 * (slope + half),
        policy=policy, unit="permille", text="rises with tenure" if rises else "does not rise with tenure",
    )  # fmt: skip


def describe_paths(
    figures: Figures, policy: str, run: Decisions, items: Ints, names: dict[int, str], minor: int
) -> None:
    """Add the price paths of `items`: lowest, mean and highest price, and list price, in equal steps of time."""
    priced = offered(run)
    first_ms, last_ms = int(run.time_ms.min()), int(run.time_ms.max())
    step_ms = max(1, -(-(last_ms - first_ms + 1) // PATH_STEPS))
    for item in items.tolist():
        rows = np.flatnonzero(priced & (run.item == item))
        step = (run.time_ms[rows] - first_ms) // step_ms
        for one in np.unique(step).tolist():
            inside = rows[step == one]
            price = run.price[inside] / minor
            figures.add(
                "paths", "price", float(price.mean()), float(price.min()), float(price.max()), policy=policy,
                segment="item", group=names[item], x=first_ms + (one + 0.5) * step_ms, unit="money",
            )  # fmt: skip
            figures.add(
                "paths", "list price", float(run.list_price[inside].mean()) / minor, policy=policy, segment="item",
                group=names[item], x=first_ms + (one + 0.5) * step_ms, unit="money",
            )  # fmt: skip


def busiest_items(run: Decisions) -> Ints:
    """Return the items with most prices."""
    counts = np.bincount(run.item[offered(run)], minlength=1)
    return np.argsort(-counts, kind="stable")[:PATH_ITEMS]


def clustered_mean(values: Floats, clusters: Ints) -> tuple[float, float]:
    """Return the mean, and half of its 95 % interval with a standard error clustered by user (Liang & Zeger 1986)."""
    if not len(values):
        return float("nan"), float("nan")
    mean = float(values.mean())
    scores = np.bincount(np.unique(clusters, return_inverse=True)[1], values - mean)
    return mean, _Z * float(np.sqrt((scores**2).sum())) / len(values)


def _mean(values: Floats | Bools) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
