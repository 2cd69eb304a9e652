"""Whether users came back: the hazard that draws logged against what happened, and what prices do to it.

A user stays away after a draw if no event of theirs lies on any of the horizon's days (UTC) after the draw's own
(features.churn). The effect of a discount is estimated from the draw's own randomness alone: prices of one draw differ by the
lot, whoever the user is, so E[(s - mean of s) (came - expected)] is the effect times the variance of s, both under the logged
probabilities, whatever is expected; what is expected here, 1 less the hazard, takes noise away. It is the mean effect over
draws weighted by that variance (as in Robinson 1988, "Root-N-consistent semiparametric regression", with known propensities).
"""

from __future__ import annotations

import numpy as np

from backtest.report.clusters import Z
from backtest.report.draws import LOGGED, PRICES, Draws, wilson
from backtest.report.facts import Bools, Floats, Ints
from backtest.report.figures import Figures
from backtest.report.spill import Spill
from pricing.arms import SHIFTS_PER_LIST

BINS = 8
DRAWS_MIN = 100
"""Draws below which nothing is said."""
_DAY_MS = 86_400_000


def churn_columns(figures: Figures, draws: Draws, events: Spill, last_ms: int) -> dict[str, Floats]:
    """Add section churn; return `churn` and `stayed away` of every draw, (n,), not a number where they are not known.

    Args:
        figures: where to.
        draws: to be labelled.
        events: of the log as it was: (user, time), by user.
        last_ms: time of the last of them.
    """
    away = stayed_away(draws, events, last_ms)
    describe_churn(figures, draws, away)
    return {"churn": draws.churn, "stayed away": away}


def stayed_away(draws: Draws, events: Spill, last_ms: int) -> Floats:
    """Return 1 where a draw's user has no event on the days after the draw's, 0 where one, (n,).

    Args:
        draws: to be labelled; where their horizon is -1, and where the log ends before it is over, the label is not a number.
        events: of the log: (user, time), by user; codes as in `draws`.
        last_ms: time of the last of them.
    """
    days, drawn = draws.churn_days, draws.time_ms // _DAY_MS
    last = last_ms // _DAY_MS  # may have ended early, so nobody is known to have stayed away on it
    span = max(last, int(drawn.max(initial=0))) + int(days.max(initial=0)) + 2
    away = np.ones(len(draws))
    for number, (users, times_ms) in enumerate(rows.T for rows in events):
        mine = np.flatnonzero(draws.user % events.parts == number)
        keys = np.unique(users * span + times_ms // _DAY_MS)
        at = draws.user[mine] * span + drawn[mine]
        begins = np.searchsorted(keys, at, side="right")
        away[mine] = np.searchsorted(keys, at + days[mine], side="right") == begins
    return np.where((days > 0) & (drawn + days < last), away, np.nan)


def describe_churn(figures: Figures, draws: Draws, away: Floats) -> None:
    """Add section churn: calibration of the hazard, and the effect of a discount; or why there is none.

    Args:
        figures: where to.
        draws: of the log; their hazard is not a number where none was logged.
        away: as `stayed_away` gives it.
    """
    hazard = draws.churn
    if not np.isfinite(hazard).any():
        return
    known = np.isfinite(hazard) & np.isfinite(away)
    count = int(known.sum())
    if count < DRAWS_MIN:
        text = f"{count:,} draws with a churn hazard have their whole horizon in this log: {DRAWS_MIN} are needed to say more."
        figures.add("churn", "note", unit="text", text=text)
        return
    chance, gone = hazard[known], away[known]
    low, high = wilson(int(gone.sum()), count)
    figures.add("churn", "draws", count, unit="count")
    figures.add("churn", "hazard", float(chance.mean()), unit="share")
    figures.add("churn", "stayed away", float(gone.mean()), low, high, unit="share")
    place = bins_of(chance)
    for number in range(BINS):
        rows = place == number
        if not rows.any():
            continue
        size, group = int(rows.sum()), f"{number + 1} of {BINS}"
        low, high = wilson(int(gone[rows].sum()), size)
        figures.add("churn", "draws", size, group=group, unit="count")
        figures.add("churn", "hazard", float(chance[rows].mean()), group=group, unit="share")
        figures.add("churn", "stayed away", float(gone[rows].mean()), low, high, group=group, unit="share")
    found = effect_of_discounts(draws.where(known), gone)
    if found is not None:
        effect, half = found
        figures.add("churn", "slope_value", effect, effect - half, effect + half, unit="change")


def bins_of(hazard: Floats) -> Ints:
    """Return the bin of each draw, 0 to BINS - 1, by the rank of its hazard; equal hazards lie in one bin."""
    ordered = np.sort(hazard)
    twice = np.searchsorted(ordered, hazard, "left") + np.searchsorted(ordered, hazard, "right")
    places: Ints = np.minimum(BINS * twice // (2 * len(hazard)), BINS - 1)
    return places


def effect_of_discounts(draws: Draws, away: Floats) -> tuple[float, float] | None:
    """Return what a discount of 20 % of list adds to the chance to come back, and half of its 95 % interval, clustered by user.

    None where nothing was left to the lot. Arguments as of `describe_churn`, with all hazards known.
    """
    shift = SHIFTS_PER_LIST * (1.0 - draws.multiplier)
    means, variances = np.zeros(len(draws)), np.zeros(len(draws))
    for part in draws.lattices.parts():
        shifts = SHIFTS_PER_LIST * (1.0 - part[PRICES] / draws.list_price[part.rows][part.row])
        means[part.rows] = part.sums(part[LOGGED] * shifts)
        variances[part.rows] = part.sums(part[LOGGED] * (shifts - means[part.rows][part.row]) ** 2)
    free: Bools = ~draws.forced
    surprise = np.where(free, (shift - means) * (draws.churn - away), 0.0)
    variances = np.where(free, variances, 0.0)
    total = float(variances.sum())
    if total <= 0.0:
        return None
    effect = float(surprise.sum()) / total
    sums = np.bincount(np.unique(draws.user, return_inverse=True)[1], surprise - effect * variances)
    return effect, Z * float(np.sqrt((sums**2).sum())) / total
