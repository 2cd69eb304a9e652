"""Linear Q-learning and SARSA(lambda): one step by hand, what gamma 0 means, traces, bounds, exact bytes."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.errors import BadReference
from contracts.rules import LinearQ, Sarsa
from pricing.arms import one
from pricing.contexts import Scene
from pricing.q_linear import Next, Values, weigh

X = np.array([1.0, 2.0])
Y = np.array([1.0, -1.0])


def phi(x, t):
    return np.array([x, t * x, t * t * x])


def test_one_outcome_moves_the_value_by_its_error():
    values = Values(2)
    values.learn(LinearQ(rate=0.1), X, 0.5, 0.4, None, None)
    assert values.weights == pytest.approx(phi(X, 0.5) * 0.1 * 0.4 / 2)


def test_with_gamma_0_q_learning_and_sarsa_are_one_and_ignore_the_next_draw():
    after = Next(1_000, Y, 1.0, np.array([0.0, 1.0]))
    a, b, c = Values(2), Values(2), Values(2)
    for reward in (0.4, 0.0, 0.2):
        a.learn(LinearQ(), X, 0.5, reward, after, None)
        b.learn(Sarsa(), X, 0.5, reward, after, None)
        c.learn(Sarsa(), X, 0.5, reward, None, None)
    assert a.encode() == b.encode() == c.encode()


def test_q_learning_credits_the_best_next_price_and_sarsa_the_one_drawn():
    start = np.array([[1.0, 0.0], [0.5, 0.0], [-0.4, 0.0]])
    shifts = np.array([0.0, 0.5, 1.0])
    reach = 0.5 ** (2_000 / 1_000)
    for rule, credited in (
        (LinearQ(discount=0.5, tau_ms=1_000, rate=0.1), max(1.0 + 0.5 * t - 0.4 * t * t for t in shifts)),
        (Sarsa(discount=0.5, tau_ms=1_000, rate=0.1, trace=0.0), 1.0 + 0.5 - 0.4),
    ):
        values = Values(2)
        values.weights = start.copy()
        values.learn(rule, X, 0.0, 0.3, Next(2_000, Y, 1.0, shifts), None)
        assert values.weights - start == pytest.approx(phi(X, 0.0) * 0.1 / 2 * (0.3 + reach * credited - 1.0))


def test_a_trace_credits_the_draws_before():
    rule = Sarsa(discount=0.5, tau_ms=1_000, trace=0.8, rate=0.1)
    values = Values(2)
    trace = values.learn(rule, X, 0.0, 0.0, Next(1_000, Y, 1.0, np.zeros(1)), None)
    assert trace == pytest.approx(phi(X, 0.0) * 0.5 * 0.8)
    values.learn(rule, Y, 1.0, 0.4, None, trace)
    assert values.weights == pytest.approx((phi(X, 0.0) * 0.4 + phi(Y, 1.0)) * 0.1 * 0.4 / 2)


def test_a_next_draw_is_credited_with_no_more_than_its_bound():
    values = Values(2)
    values.weights[0, 0] = 1e6
    rule = LinearQ(discount=0.9, value_max=0.5, rate=0.1)
    before = values.weights.copy()
    values.learn(rule, np.array([0.0, 1.0]), 0.0, 0.0, Next(0, X, 0.0, np.zeros(1)), None)
    assert (values.weights - before)[0, 1] == pytest.approx(0.1 * 0.5 / 2)


def test_the_price_of_the_highest_value_gets_all_but_the_explored_share():
    values = Values(2)
    values.weights[:, 0] = (0.0, 1.0, -1.0)  # highest at a shift of one half, 10 % below list
    arms = one([8_000, 9_000, 9_500, 10_000], 10_000, 6_000, LinearQ().money)
    rows = values.project(Scene(X[None], np.zeros(1, dtype=np.int64)).x)
    assert weigh(LinearQ(explore=0.2), rows, arms)[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])


@pytest.mark.parametrize("rate", [0.02, 1.0])
@pytest.mark.parametrize("lowest", [1.25, 4.0])  # shift: a quarter, and four fifths off
def test_values_stay_bounded_at_any_rate_and_any_discount(rate, lowest):
    random = np.random.default_rng(1)
    bandit, chained = Values(8), Values(8)
    alone, follows = LinearQ(rate=rate), Sarsa(rate=rate, discount=0.99, trace=0.8)
    trace, x, shift = None, np.ones(8), 0.0
    for draw in range(2_000):
        bought = float(random.random() < 0.3)
        later = np.append(1.0, np.clip(0.9 * x[1:] + 0.4 * random.standard_normal(7), -4.0, 4.0))
        after = Next(1_000, later, float(random.uniform(0.0, lowest)), np.zeros(1)) if draw % 20 < 19 else None
        bandit.learn(alone, x, shift, bought, None, None)
        left = chained.learn(follows, x, shift, bought, after, trace)
        trace = None if after is None else left
        x, shift = later, float(random.uniform(0.0, lowest))
    assert np.abs(bandit.weights).max() < 10.0
    assert np.abs(chained.weights).max() < 50.0


def test_a_step_corrects_the_whole_error_at_most():
    values = Values(2)
    values.learn(LinearQ(rate=1.0), X, 2.0, 0.4, None, None)  # of a size of 105, where 2 is typical
    assert float((values.weights * phi(X, 2.0)).sum()) == pytest.approx(0.4)


def test_it_finds_the_best_price_of_a_quadratic_world():
    values, random = Values(1), np.random.default_rng(1)
    for _ in range(20_000):
        t = float(random.uniform(-1, 2))
        values.learn(LinearQ(rate=0.05), np.ones(1), t, 0.3 - 0.1 * (t - 1.0) ** 2, None, None)
    _, slope, curve = values.weights[:, 0]
    assert -slope / (2.0 * curve) == pytest.approx(1.0, abs=0.02)


def test_bytes_restore_the_values_and_others_are_refused():
    values, twin = Values(3), Values(3)
    values.learn(LinearQ(), np.ones(3), 0.5, 0.4, None, None)
    twin.restore(values.encode())
    assert (twin.encode(), twin.digest(), twin.outcomes) == (values.encode(), values.digest(), 1)
    with pytest.raises(BadReference, match="are not 6 weights"):
        Values(2).restore(values.encode())
    with pytest.raises(BadReference, match="not finite"):
        twin.restore(values.encode()[:8] + np.full(9, np.nan).tobytes())
