"""The demand model: equal to a naive pass, positive definite for ever, the same bits in any company, exact bytes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import BadReference
from contracts.rules import Money, Prior
from pricing.arms import one
from pricing.demand import Posterior, sigmoid, worths
from tests.pricing.naive_demand import best_fit, naive_posterior

PRIOR = Prior()


def outcomes(count, width=7, seed=0, spread=1.0):
    """Made-up outcomes of a logit demand that the model could have."""
    random = np.random.default_rng(seed)
    level, response = random.normal(0, 0.3, width), random.normal(0, 0.2, width)
    for _ in range(count):
        x = np.append(1.0, random.normal(0, spread, width - 1))
        shift = float(random.integers(-2, 5)) / 4.0
        odds = -1.0 + level @ x + (1.0 + response @ x) * shift
        yield x, shift, bool(random.random() < 1.0 / (1.0 + np.exp(-odds)))


def learned(count, width=7, prior=PRIOR, **more):
    posterior = Posterior(prior, width)
    for x, shift, bought in outcomes(count, width, **more):
        posterior.learn(x, shift, bought)
    return posterior


def smallest_eigenvalue(posterior):
    return float(np.linalg.eigvalsh(posterior.covariance)[0])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9), st.sampled_from([1_000, 100_000, 10_000_000]))
def test_the_posterior_equals_a_naive_pass(seed, width, memory):
    prior = Prior(memory=memory, level=-2.5, response=0.7)
    mine = learned(400, width, prior, seed=seed)
    mean, covariance = naive_posterior(outcomes(400, width, seed), width, **msgspec.structs.asdict(prior))
    np.testing.assert_allclose(mine.mean, mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mine.covariance, covariance, rtol=0, atol=1e-8)


def test_the_posterior_equals_a_naive_pass_after_ten_thousand_outcomes():
    mine = learned(10_000, 17)
    mean, covariance = naive_posterior(outcomes(10_000, 17), 17, **msgspec.structs.asdict(PRIOR))
    np.testing.assert_allclose(mine.mean, mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mine.covariance, covariance, rtol=0, atol=1e-8)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3], ids=str)
def test_the_same_outcome_over_and_over_leaves_it_positive_definite(size):
    # the worst case: all that is known lies in one direction, the rest of the prior is never touched
    posterior = Posterior(Prior(memory=10_000_000), 5)
    x = np.array([1.0, 1.0, -1.0, 0.5, 0.25]) * size
    for number in range(50_000):
        posterior.learn(x, 1.0, number % 9 == 0)
    assert smallest_eigenvalue(posterior) > 0.0
    assert (posterior.covariance == posterior.covariance.T).all()


def test_what_is_forgotten_keeps_the_covariance_above_a_floor_that_rounding_cannot_reach():
    # S' >= (1 - keep^2) S0, so no number of updates can take it away: hold it to half of that
    prior = Prior(memory=1_000)
    posterior = learned(20_000, 9, prior, spread=3.0)
    floor = (1.0 - 2.0 ** (-2.0 / prior.memory)) * prior.features_spread**2 / 8
    assert smallest_eigenvalue(posterior) > floor / 2.0


def test_it_approaches_the_best_fit_of_all_outcomes_at_once():
    prior = Prior(memory=10_000_000)
    mine = learned(8_000, 7, prior)
    fitted = best_fit(list(outcomes(8_000, 7)), 7, Posterior(prior, 7).mean, np.diag(Posterior(prior, 7).covariance))
    spread = np.sqrt(np.diag(mine.covariance))
    assert np.abs((mine.mean - fitted) / spread).max() < 0.5  # in standard deviations of the posterior


def test_it_forgets_towards_the_prior_what_is_never_seen_again():
    posterior = Posterior(Prior(memory=1_000), 2)
    for _ in range(300):
        posterior.learn(np.array([1.0, 2.0]), 0.0, True)
    knew = posterior.mean[1]
    for _ in range(3_000):
        posterior.learn(np.array([1.0, 0.0]), 0.0, False)
    assert abs(posterior.mean[1]) < knew / 3.0


@given(st.sampled_from([1, 7, 64, 1_000]), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_equal_contexts_have_equal_bits_in_any_company(batch, width, seed):
    posterior = learned(50, width, seed=seed)
    contexts = np.random.default_rng(seed).normal(0, 1, (1_000, width))
    alone = np.concatenate([posterior.project(contexts[at : at + 1]) for at in range(1_000)])
    parts = [posterior.project(contexts[at : at + batch]) for at in range(0, 1_000, batch)]
    assert (np.concatenate(parts) == alone).all()


def test_the_moments_of_a_draw_are_those_of_its_weights():
    posterior = learned(500, 5)
    x = np.array([1.0, 0.3, -1.0, 2.0, 0.0])
    both = np.zeros((2, 10))
    both[0, :5] = both[1, 5:] = x
    level, response, deviation, shared, own = posterior.project(x[None])[0]
    np.testing.assert_allclose([level, response], both @ posterior.mean, atol=1e-12)
    factor = np.array([[deviation, 0.0], [shared, own]])
    np.testing.assert_allclose(factor @ factor.T, both @ posterior.covariance @ both.T, atol=1e-12)


def test_no_contexts_have_no_moments():
    assert Posterior(PRIOR, 3).project(np.empty((0, 3))).shape == (0, 5)


def test_contributions_add_up_to_the_mean_log_odds():
    posterior = learned(300, 6)
    x = np.array([1.0, -0.5, 2.0, 0.1, 0.0, 1.5])
    level, response = posterior.contributions(x)
    moments = posterior.project(x[None])[0]
    assert sum(level) == pytest.approx(moments[0], abs=1e-9)
    assert sum(response) == pytest.approx(moments[1], abs=1e-9)


def unsound():
    """Return a posterior under spreads too far apart, which no policy file may have: rounding took away what it knew."""
    posterior, random = Posterior(Prior(features_spread=1e-9, level_spread=10.0), 7), np.random.default_rng(1)
    for _ in range(20):
        posterior.learn(np.append(1.0, random.normal(0, 1, 6)), 0.5, True)
    return posterior


@pytest.mark.parametrize("spread", [1e-3, 100.0])
@pytest.mark.parametrize("level_spread", [1e-3, 100.0])
@pytest.mark.parametrize("memory", [1_000, 10_000_000])
def test_under_every_prior_that_a_policy_may_have_it_stays_sound_and_every_draw_has_a_variance(
    spread, level_spread, memory
):
    random = np.random.default_rng(1)
    posterior = Posterior(Prior(features_spread=spread, level_spread=level_spread, memory=memory), 7)
    for number in range(400):
        x = np.append(1.0, random.choice([-4.0, 4.0], 6))
        posterior.learn(x, float(random.uniform(0, 1.25)), bool(random.random() < 0.3))
        if number in (0, 1, 10, 399):
            Posterior(PRIOR, 7).restore(posterior.encode())
            assert (posterior.project(np.column_stack([np.ones(20), random.normal(0, 4, (20, 6))]))[:, 2] > 0.0).all()


def test_its_bytes_restore_it_to_the_last_bit_and_learning_goes_on_as_if_nothing_had_happened():
    whole, first = learned(400, 5), learned(200, 5)
    second = Posterior(PRIOR, 5)
    second.restore(first.encode())
    assert second.digest() == first.digest()
    for x, shift, bought in list(outcomes(400, 5))[200:]:
        second.learn(x, shift, bought)
    assert second.encode() == whole.encode()
    assert second.outcomes == 400


def test_a_copy_goes_its_own_way():
    posterior = learned(10)
    before, twin = posterior.digest(), posterior.copy()
    twin.learn(np.ones(7), 0.5, True)
    assert posterior.digest() == before != twin.digest()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda b: b[:-8], "is not one over 14 weights"),
        (lambda b: b"", "is not one over 14 weights"),
        (lambda b: b[:8] + np.full(len(b) // 8 - 1, np.nan).tobytes(), "not finite and positive definite"),
        (lambda b: b[:120] + bytes(len(b) - 120), "not finite and positive definite"),
        (lambda b: unsound().encode(), "not finite and positive definite"),
    ],
)
def test_damaged_bytes_are_refused(damage, why):
    with pytest.raises(BadReference, match=why):
        Posterior(PRIOR, 7).restore(damage(learned(20).encode()))


def test_no_log_odds_are_too_large():
    assert sigmoid(0.0) == 0.5
    assert sigmoid(1e9) == 1.0
    assert 0.0 <= sigmoid(-1e9) < 1e-300


def test_a_price_still_wins_where_nobody_can_be_expected_to_buy():
    arms = one([8_000, 9_000, 10_000], 10_000, None, Money())
    worth = worths(np.array([[-5_000.0]]), np.array([[0.05]]), arms)[0, 0]
    assert (worth > 0.0).all() and worth.argmax() == 2


def test_a_level_and_a_response_that_always_go_together_have_no_deviation_of_their_own():
    posterior = Posterior(Prior(), 1)
    for variance in np.linspace(0.01, 3.0, 200):
        posterior.covariance[:] = variance
        moments = posterior.project(np.ones((1, 1)))[0]
        assert moments[3] == pytest.approx(moments[2])
        assert 0.0 <= moments[4] < 1e-7
