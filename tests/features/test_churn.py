"""features.churn: the days that a state knows, and the chance to stay away, against a plain count and exact integrals."""

from __future__ import annotations

import random
from math import exp, lgamma

import pytest

from contracts.events import View
from contracts.rules import Churn
from contracts.semantics import Semantics
from features.churn import hazard_of, tiles_of
from features.fold import fold
from features.state import UserState

DAY_MS = 86_400_000
START_MS = 18_000 * DAY_MS
SEMANTICS = Semantics(consent_default=True)


def view(number: int, at_ms: int) -> View:
    return View(event_id=f"e{number}", user="ann", item="lamp", event_time_ms=at_ms, price=100, currency="USD")


def state_of(times_ms: list[int]) -> UserState:
    state = UserState()
    for number, at_ms in enumerate(times_ms):
        fold(state, view(number, at_ms), None, SEMANTICS)
    return state


def hazard_by_integral(churn: Churn, came: int, days: int) -> float:
    """E[(1 - p)^h] for p from the beta posterior, as a ratio of beta functions."""
    a, b = churn.returns + came, churn.absences + days - came
    h = churn.horizon_days

    def log_beta(x: float, y: float) -> float:
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    return exp(log_beta(a, b + h) - log_beta(a, b))


@pytest.mark.parametrize("seed", range(40))
def test_it_counts_the_days_of_thirty_on_which_the_user_came_late_events_among_them(seed):
    rnd = random.Random(seed)
    churn = Churn(horizon_days=rnd.randrange(1, 31), absences=3.0)
    now_ms, times = START_MS, []
    for _ in range(rnd.randrange(1, 60)):
        now_ms += int(rnd.choice([1e3, 1e6, 2e7, 1e8, 1e9]) * rnd.random())
        times.append(now_ms - (rnd.randrange(3 * DAY_MS) if rnd.random() < 0.2 else 0))
    last = max(times)
    came = {at // DAY_MS for at in times if at // DAY_MS > last // DAY_MS - 30}
    expected = hazard_by_integral(churn, len(came) - 1, last // DAY_MS - min(came))
    state = state_of(times)
    assert hazard_of(churn, tiles_of(state), state.last_ms) == pytest.approx(expected, abs=1e-6)


def test_who_came_on_more_days_is_likelier_to_come_back_and_a_longer_horizon_is_easier():
    rare = state_of([START_MS, START_MS + 20 * DAY_MS])
    frequent = state_of([START_MS + day * DAY_MS for day in range(21)])
    hazards = [hazard_of(Churn(), tiles_of(state), state.last_ms) for state in (frequent, rare)]
    assert hazards == sorted(hazards)
    assert hazards[0] < hazards[1]
    ahead = [hazard_of(Churn(horizon_days=days), tiles_of(rare), rare.last_ms) for days in (1, 7, 30)]
    assert ahead == sorted(ahead, reverse=True)


def test_of_a_new_user_it_is_the_priors():
    churn = Churn(returns=1.0, absences=4.0, horizon_days=2)
    new = state_of([START_MS])
    assert hazard_of(churn, tiles_of(new), new.last_ms) == pytest.approx(4 / 5 * 5 / 6)
    assert hazard_of(churn, tiles_of(UserState()), 0) == hazard_of(churn, tiles_of(new), new.last_ms)


def test_what_was_noted_of_a_state_stays_as_it_was_then():
    state = state_of([START_MS])
    noted, last_ms = tiles_of(state), state.last_ms
    before = hazard_of(Churn(), noted, last_ms)
    for day in range(1, 9):
        fold(state, view(day, START_MS + day * DAY_MS), None, SEMANTICS)
    assert hazard_of(Churn(), noted, last_ms) == before
    assert hazard_of(Churn(), tiles_of(state), state.last_ms) != before
