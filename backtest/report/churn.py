"""Whether users came back: the hazard that draws logged against what happened, and what prices do to it.

A user stays away after a draw if no event of theirs lies on any of the horizon's days (UTC) after the draw's own
(features.churn). The effect of a discount is estimated from the draw's own randomness alone: prices of one draw differ by the
lot, whoever the user is, so E[(s - mean of s) (came - expected)] is the effect times the variance of s, both under the logged
probabilities, whatever is expected; what is expected here, 1 less the hazard, takes noise away. It is the mean effect over
draws weighted by that variance (as in Robinson 1988, "Root-N-consistent semiparametric regression", with known propensities).
"""

from __future__ import annotations

import numpy as np

from backtest.logged_draws import LoggedDraws
from backtest.report.draws import Draws, wilson
from backtest.report.facts import Bools, Decisions, Floats, Ints, floats_of, ints_of
from backtest.report.figures import Figures
from pricing.arms import SHIFTS_PER_LIST

BINS = 8
DRAWS_MIN = 100
"""Draws below which nothing is said."""
_DAY_MS = 86_400_000
_Z = 1.959963984540054


def churn_columns(
    figures: Figures, logged: LoggedDraws, kept: Ints, draws: Draws, events: Decisions
) -> dict[str, Floats]:
    """Add section churn; return `churn` and `stayed away` of every draw, (n,), not a number where they are not known.

    Args:
        figures: where to.
        logged: draws of the log.
        kept: which of them `draws` are.
        draws: to be labelled.
        events: of the log as it was.
    """
    hazard, days = floats_of(logged.table["churn"])[kept], ints_of(logged.table["churn_days"])[kept]
    away = stayed_away(draws, days, events.user, events.time_ms)
    describe_churn(figures, draws, hazard, away)
    return {"churn": hazard, "stayed away": away}


def stayed_away(draws: Draws, days: Ints, users: Ints, times_ms: Ints) -> Floats:
    """Return 1 where a draw's user has no event on the days after the draw's, 0 where one, (n,).

    Args:
        draws: to be labelled.
        days: horizon of each, (n,); where it is -1, and where the log ends before it is over, the label is not a number.
        users: of all events of the log, codes as in `draws`.
        times_ms: of all events.
    """
    day, drawn = times_ms // _DAY_MS, draws.time_ms // _DAY_MS
    last = int(day.max())  # may have ended early, so nobody is known to have stayed away on it
    span = max(last, int(drawn.max())) + int(days.max()) + 2
    keys = np.unique(users * span + day)
    begins = np.searchsorted(keys, draws.user * span + drawn, side="right")
    ends = np.searchsorted(keys, draws.user * span + drawn + days, side="right")
    away = (ends == begins).astype(np.float64)
    return np.where((days > 0) & (drawn + days < last), away, np.nan)


def describe_churn(figures: Figures, draws: Draws, hazard: Floats, away: Floats) -> None:
    """Add section churn: calibration of the hazard, and the effect of a discount; or why there is none.

    Args:
        figures: where to.
        draws: of the log.
        hazard: of each, (n,); not a number where none was logged.
        away: as `stayed_away` gives it.
    """
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
    found = effect_of_discounts(draws.where(known), chance, gone)
    if found is not None:
        effect, half = found
        figures.add("churn", "slope_value", effect, effect - half, effect + half, unit="change")


def bins_of(hazard: Floats) -> Ints:
    """Return the bin of each draw, 0 to BINS - 1, by the rank of its hazard; equal hazards lie in one bin."""
    ordered = np.sort(hazard)
    twice = np.searchsorted(ordered, hazard, "left") + np.searchsorted(ordered, hazard, "right")
    places: Ints = np.minimum(BINS * twice // (2 * len(hazard)), BINS - 1)
    return places


def effect_of_discounts(draws: Draws, hazard: Floats, away: Floats) -> tuple[float, float] | None:
    """Return what a discount of 20 % of list adds to the chance to come back, and half of its 95 % interval, clustered by user.

    None where nothing was left to the lot. Arguments as of `describe_churn`, all of them numbers.
    """
    shift = SHIFTS_PER_LIST * (1.0 - draws.multiplier)
    rows = zip(draws.prices, draws.probabilities, draws.list_price, strict=True)
    means, variances = np.array(
        [_moments(SHIFTS_PER_LIST * (1.0 - prices / listed), p) for prices, p, listed in rows]
    ).T
    free: Bools = ~draws.forced
    surprise = np.where(free, (shift - means) * (hazard - away), 0.0)
    variances = np.where(free, variances, 0.0)
    total = float(variances.sum())
    if total <= 0.0:
        return None
    effect = float(surprise.sum()) / total
    sums = np.bincount(np.unique(draws.user, return_inverse=True)[1], surprise - effect * variances)
    return effect, _Z * float(np.sqrt((sums**2).sum())) / total


def _moments(shifts: Floats, chances: Floats) -> tuple[float, float]:
    """Return mean and variance of a draw's shifts."""
    mean = float((chances * shifts).sum())
    return mean, float((chances * (shifts - mean) ** 2).sum())
