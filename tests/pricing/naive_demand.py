"""The demand model once more, plainly: one pass over outcomes in the order of the formulas. Imports nothing of what it checks.

Ordinary matrix products, the covariance never made symmetric, forgetting as its own step.
"""

from __future__ import annotations

import math

import numpy as np


def naive_posterior(outcomes, width, *, level, level_spread, response, response_spread, features_spread, memory):
    """Return (mean, covariance) after `outcomes`, an iterable of (x, shift, bought)."""
    prior_mean = np.zeros(2 * width)
    prior_mean[0], prior_mean[width] = level, response
    each = features_spread**2 / max(width - 1, 1)
    variances = [level_spread**2] + [each] * (width - 1) + [response_spread**2] + [each] * (width - 1)
    prior = np.diag(variances)
    keep = 2.0 ** (-1.0 / memory)
    mean, covariance = prior_mean.copy(), prior.copy()
    for x, shift, bought in outcomes:
        z = np.array([*x, *(shift * value for value in x)])
        variance = z @ covariance @ z
        chance = 1.0 / (1.0 + math.exp(-(z @ mean) / math.sqrt(1.0 + math.pi * variance / 8.0)))
        weight = max(chance * (1.0 - chance), 1e-4)
        direction = covariance @ z
        mean = mean + direction * (float(bought) - chance) / (1.0 + weight * variance)
        covariance = covariance - np.outer(direction, direction) * weight / (1.0 + weight * variance)
        mean = prior_mean + keep * (mean - prior_mean)
        covariance = keep**2 * covariance + (1.0 - keep**2) * prior
    return mean, covariance


def best_fit(outcomes, width, prior_mean, prior_variances):
    """Return the maximum of the log posterior over all outcomes at once, by Newton's method; nothing is forgotten."""
    z = np.array([[*x, *(shift * value for value in x)] for x, shift, _ in outcomes])
    y = np.array([float(bought) for _, _, bought in outcomes])
    weights = prior_mean.copy()
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-(z @ weights)))
        gradient = z.T @ (y - p) - (weights - prior_mean) / prior_variances
        hessian = (z * (p * (1.0 - p))[:, None]).T @ z + np.diag(1.0 / prior_variances)
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-12:
            break
    return weights
