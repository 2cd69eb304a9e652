"""What is held against the logged policy: the policies asked about, the list price, and the best uniform price.

The best uniform price is one share of list price for everybody, inside the log's feasible prices. A user's draws are judged
at the share that earned most on the draws of *other* users, so that being chosen for luck does not pay. Not here: what
the targets earn (values).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtest.logged_draws import LoggedDraws
from backtest.report.draws import BAND_PERMILLE, Draws
from backtest.report.facts import Floats, Ints, rows_of

FOLDS = 5
LIST_PRICE = "list price"
BEST_UNIFORM = "best uniform price"
ESS_MIN = 50.0
"""Draws, in effect, that a share of list price must have been seen at before it can be the best one."""


@dataclass(frozen=True, slots=True)
class Target:
    """A policy at the logged draws, (n,) each."""

    name: str
    probability: Floats
    """Of the logged price."""
    choices: NDArray[np.object_]
    """Of each feasible price, (k,) each."""
    unsupported: Floats
    """Of prices that the logged policy could not draw."""
    says: str = ""
    """What it is, if that takes a sentence."""

    def where(self, rows: Ints) -> Target:
        """Return the policy at some of the draws."""
        return Target(self.name, self.probability[rows], self.choices[rows], self.unsupported[rows], self.says)


def asked(logged: LoggedDraws, name: str) -> Target:
    """Return a target policy of `logged`."""
    choices = rows_of(logged.table[f"targets.{name}"], np.float64)
    return Target(name, logged.target(name), choices, np.clip(logged.unsupported(name), 0.0, 1.0))


def list_price(draws: Draws) -> Target:
    """Return the policy that always asks the list price."""
    return _fixed(draws, np.full(len(draws), 1_000), LIST_PRICE)


def best_uniform(draws: Draws, reward: Floats) -> Target:
    """Return the policy that asks the best share of list price, chosen for each fold of users on the other folds."""
    fold = folds_of(draws.user)
    shares = np.unique(np.round(1_000 * draws.multiplier / BAND_PERMILLE).astype(np.int64) * BAND_PERMILLE)
    chosen = np.full(len(draws), 1_000, np.int64)
    each = {share: _fixed(draws, np.full(len(draws), share), "").probability for share in shares.tolist()}
    for one in range(FOLDS):
        earned = {share: _earned(hit[fold != one], draws, reward, fold != one) for share, hit in each.items()}
        chosen[fold == one] = max(earned, key=lambda share: (earned[share], share), default=1_000)
    picked = " or ".join(f"{share / 10:g} %" for share in np.unique(chosen).tolist())
    return _fixed(draws, chosen, BEST_UNIFORM, f"{picked} of list price, as chosen on the draws of other users")


def _earned(hit: Floats, draws: Draws, reward: Floats, inside: NDArray[np.bool_]) -> float:
    """Return the self-normalised value of a fixed price; minus infinity where the log has seen too little of it."""
    weight = hit / draws.propensity[inside]
    total, square = float(weight.sum()), float((weight**2).sum())
    if square == 0.0 or total**2 / square < ESS_MIN:
        return float("-inf")
    return float((weight * reward[inside]).sum()) / total


def _fixed(draws: Draws, permille: Ints, name: str, says: str = "") -> Target:
    """Return the policy that asks the feasible price nearest to a share of list price, the higher one of two."""
    choices = np.empty(len(draws), np.object_)
    probability, unsupported = np.zeros(len(draws)), np.zeros(len(draws))
    wanted = draws.list_price * permille / 1_000
    for row, (prices, logged) in enumerate(zip(draws.prices, draws.probabilities, strict=True)):
        at = len(prices) - 1 - int(np.argmin(np.abs(prices[::-1] - wanted[row])))
        choices[row] = np.eye(len(prices))[at]
        probability[row] = prices[at] == draws.price[row]
        unsupported[row] = logged[at] <= 0.0
    return Target(name, probability, choices, unsupported, says)


def folds_of(users: Ints) -> Ints:
    """Return the fold of every draw: by a hash of its user's code, so that no user is in two."""
    mixed = (users.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(FOLDS)).astype(np.int64)
