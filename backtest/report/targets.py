"""What is held against the logged policy: the policies asked about, the list price, and the best uniform price.

A share of list price asks the feasible price nearest at or below it, the lowest if all lie above: the rule of logged policies
(pricing.policies), and of `simulate`. The best uniform price is one share of list price for everybody. A user's draws are judged
at the share that earned most on the draws of *other* users, so that being chosen for luck does not pay. Not here: what the targets
earn (values), the share that truly was best (truth).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest.report.draws import BAND_PERMILLE, LOGGED, PRICES, Draws, Wishes
from backtest.report.facts import Bools, Floats, Ints
from backtest.report.lattices import Part

FOLDS = 5
LIST_PRICE = "list price"
BEST_UNIFORM = "best uniform price, as chosen from the log"
ESS_MIN = 50.0
"""Draws, in effect, that a share of list price must have been seen at before it can be the best one."""
NO_UNIFORM = (
    "This log cannot tell a best uniform price: without the users who are judged by it, a fifth of all, the draws at no share of "
    f"list price are worth {ESS_MIN:g} unweighted ones."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A policy at the logged draws, (n,) each."""

    name: str
    probability: Floats
    """Of the logged price."""
    unsupported: Floats
    """Of prices that the logged policy could not draw."""
    place: Ints | None = None
    """Of the one price that it asks, among the feasible ones; None: its probabilities are a column of the lattices."""
    says: str = ""
    """What it is, if that takes a sentence."""

    def choices(self, part: Part) -> Floats:
        """Return its probability of every feasible price of some draws, (m,)."""
        if self.place is None:
            return part[self.name]
        chosen = np.zeros(len(part.row))
        chosen[part.starts + self.place[part.rows]] = 1.0
        return chosen


def asked(name: str, wishes: Wishes, rows: Ints) -> Target:
    """Return a target policy at some of the draws."""
    return Target(name, wishes.probability[rows], wishes.unsupported[rows])


def list_price(draws: Draws) -> Target:
    """Return the policy that always asks the list price."""
    return fixed_price(draws, np.full(len(draws), 1_000), LIST_PRICE)


def best_uniform(draws: Draws, reward: Floats) -> Target | None:
    """Return the policy that asks the best share of list price, chosen for each fold of users on the other folds.

    None where the other folds of one have too little of every share: the log cannot tell which is best. Forced draws say nothing.
    """
    fold = folds_of(draws.user)
    shares = np.unique(_least_share(draws)[~draws.forced]).tolist()
    earned = {share: _earned(_hits(draws, np.full(len(draws), share)), draws, reward, fold) for share in shares}
    chosen = np.zeros(len(draws), np.int64)
    for one in range(FOLDS):
        best = max(shares, key=lambda share: (earned[share][one], share), default=None)
        if best is None or earned[best][one] == -np.inf:
            return None
        chosen[fold == one] = best
    picked = " or ".join(f"{share / 10:g} %" for share in np.unique(chosen).tolist())
    return fixed_price(draws, chosen, BEST_UNIFORM, f"{picked} of list price, as chosen on the draws of other users")


def _least_share(draws: Draws) -> Ints:
    """Return the lowest share of list price, in steps of BAND_PERMILLE, that asks the drawn price, rounding and all, (n,)."""
    steps: Ints = -((1 - 2 * draws.price) * 500 // (draws.list_price * BAND_PERMILLE))
    return steps * BAND_PERMILLE


def _earned(hit: Bools, draws: Draws, reward: Floats, fold: Ints) -> list[float]:
    """Return, for each fold, the self-normalised value of a fixed price on the others; minus infinity where too little was seen."""
    weight = (hit & ~draws.forced) / draws.propensity
    sums = np.array([np.bincount(fold, one, FOLDS) for one in (weight, weight**2, weight * reward)])
    total, square, value = sums @ (1.0 - np.eye(FOLDS))
    enough = (square > 0.0) & (total**2 >= ESS_MIN * square)
    found: list[float] = np.where(enough, value / np.where(enough, total, 1.0), -np.inf).tolist()
    return found


def fixed_price(draws: Draws, permille: Ints, name: str, says: str = "") -> Target:
    """Return the policy that asks a share of list price, in permille, of each draw, (n,)."""
    place, hit, unsupported = np.zeros(len(draws), np.int64), np.zeros(len(draws)), np.zeros(len(draws))
    for part in draws.lattices.parts():
        at = place_of_share(draws, permille, part)
        place[part.rows] = at
        hit[part.rows] = part[PRICES][part.starts + at] == draws.price[part.rows]
        unsupported[part.rows] = part[LOGGED][part.starts + at] <= 0.0
    return Target(name, hit, unsupported, place, says)


def _hits(draws: Draws, permille: Ints) -> Bools:
    """Return where the drawn price is the one that a share of list price asks."""
    hit = np.zeros(len(draws), np.bool_)
    for part in draws.lattices.parts():
        at = place_of_share(draws, permille, part)
        hit[part.rows] = part[PRICES][part.starts + at] == draws.price[part.rows]
    return hit


def place_of_share(draws: Draws, permille: Ints, part: Part) -> Ints:
    """Return which of its feasible prices a share of list price asks of each draw of a part: the nearest at or below it.

    Args:
        draws: all of them.
        permille: the shares, (n,).
        part: of the draws' lattices.
    """
    exact = draws.list_price[part.rows] * permille[part.rows]
    return part.at_or_below(part[PRICES], (exact + 500) // 1_000)  # rounded as pricing.lattice.scaled does


def folds_of(users: Ints) -> Ints:
    """Return the fold of every draw: by a hash of its user's code, so that no user is in two."""
    mixed = (users.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(40)) % np.uint64(FOLDS)).astype(np.int64)
