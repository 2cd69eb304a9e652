"""How far the online posterior is from the true maximum-a-posteriori fit of the same outcomes, and how well it is calibrated.

In a world where nothing changes (the first half of LOGIT, and OWN): Thompson sampling draws the prices and learns; then the
same outcomes are fitted at once (Newton's method, the same prior, nothing forgotten), and both predict visits that nobody has
learned from, at every price. True chances are known there, so luck is not in the calibration. LOGIT's response is exponential
in the features and the model's is linear, so that much of the error there is the model's; in OWN demand is what the model
takes it for. What is the model's shows in a third fit, of the true chances in the place of what came of them: no luck is in it.
Not here: what a policy earns (bench_policies).
"""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from backtest.simulation import Player, decision_ids, drawn
from backtest.worlds import WIDTH, World, world_of, world_with
from benchmarks.lab import Lab
from benchmarks.report import Cell, Report
from contracts.policies import Policy
from contracts.rules import Features, Prior, Thompson
from pricing.arms import SHIFTS_PER_LIST
from pricing.demand import Posterior
from pricing.draws import uniforms

Floats = NDArray[np.float64]

SEEDS, SEEDS_QUICK = range(4, 10), range(4, 6)
VISITS, VISITS_QUICK = 20_000, 4_000
HELD_BACK = 0.2
"""Share of the first half that is predicted, not learned."""
MEMORIES = (Prior().memory, 10_000_000)
BINS = 10
Z_90 = 1.6449


def run(lab: Lab) -> Report:
    """Compare posterior and fit, over the seeds, with the default memory and one that forgets next to nothing."""
    seeds, visits = (SEEDS_QUICK, VISITS_QUICK) if lab.quick else (SEEDS, VISITS)
    rows: list[tuple[Cell, ...]] = []
    for world in ("OWN", "LOGIT"):
        for memory in MEMORIES:
            found = np.array([measure(world, seed, visits, memory) for seed in seeds])
            rows.append((world, f"{memory:,}", *(float(value) for value in found.mean(0))))
    return Report(
        name="posterior",
        title=f"The online posterior beside the fit of the same {learned_of(visits):,} outcomes, {len(seeds)} seeds",
        columns=("world", "memory", "rms distance, sd", "largest, sd", "|chance - fit's|", "|chance - true|", "|fit's - true|",
                 "bins' error", "truth in the 90 % interval", "fit without luck in it", "misfit"),
        rows=rows,
        notes=[
            f"memory: outcomes after which half is forgotten; {Prior().memory:,} is the default.",
            "Distances of chances are means over visits and prices, in percentage points.",
            "Distances in sd are between the means of a weight and its fit, in standard deviations of the fit (Laplace).",
            f"bins' error: of {BINS} bins of the predicted chance, the mean distance to the mean true chance, by visits.",
            "truth in the 90 % interval: share of visits and prices whose true log-odds lie in the posterior's interval.",
            "fit without luck in it: the same for the log-odds that the model comes to when it is shown the chances themselves.",
            "misfit: root mean square of what is between those and the true ones, in log-odds; more outcomes do not take it away.",
        ],
    )  # fmt: skip


def measure(name: str, seed: int, visits: int, memory: int) -> list[float]:
    """Return the columns of the report for one seed."""
    policy = Policy(
        name="bench", number=1, rule=Thompson(features=Features(names=("vector",)), prior=Prior(memory=memory))
    )
    world = own_world(seed, visits) if name == "OWN" else world_of(name, seed, visits)
    learned = learned_of(visits)
    player, x, shifts, bought, chances = played(policy, world, seed, learned)
    posterior = player.knowledge
    assert isinstance(posterior, Posterior)
    z = np.concatenate((x, shifts[:, None] * x), axis=1)
    prior = Posterior(replace(Prior(), memory=memory), x.shape[1])
    fit, spread = fitted(z, bought, prior.mean, np.diag(prior.covariance))
    calm, _ = fitted(z, chances, prior.mean, np.diag(prior.covariance))
    distance = np.abs(posterior.mean - fit) / spread
    rest = slice(learned, visits // 2)
    mine, deviation, theirs, true = predicted(player, posterior, fit, world, rest)
    odds = np.log(true / (1.0 - true))
    corrected = _sigmoid(mine / np.sqrt(1.0 + np.pi * deviation**2 / 8.0))
    without_luck = predicted(player, posterior, calm, world, rest)[2]
    inside = [100.0 * float((np.abs(one - mine) <= Z_90 * deviation).mean()) for one in (odds, without_luck)]
    errors = [
        100.0 * np.abs(a - b).mean()
        for a, b in ((corrected, _sigmoid(theirs)), (corrected, true), (_sigmoid(theirs), true))
    ]
    return [float(np.sqrt((distance**2).mean())), float(distance.max()), *map(float, errors), binned(corrected, true),
            *inside, float(np.sqrt(((odds - without_luck) ** 2).mean()))]  # fmt: skip


def own_world(seed: int, visits: int) -> World:
    """Return a world in which log-odds are linear in the features and in the discount, about as uncertain as the prior says."""
    random = np.random.Generator(np.random.PCG64(4000 + seed))
    level, response = random.normal(0.0, 0.125, WIDTH), random.normal(0.0, 0.125, WIDTH)
    x = random.normal(0.0, 1.0, (visits, WIDTH))
    a, b = -1.0 + (x * level).sum(-1), 1.0 + (x * response).sum(-1)

    def demand(visit: NDArray[np.int64], m: Floats) -> Floats:
        return _sigmoid(a[visit, None] + b[visit, None] * SHIFTS_PER_LIST * (1.0 - m))

    return world_with(x, random.random(visits), demand)


def learned_of(visits: int) -> int:
    """Return how many visits are learned from."""
    return int(visits / 2 * (1 - HELD_BACK))


def played(policy: Policy, world: World, seed: int, visits: int) -> tuple[Player, Floats, Floats, Floats, Floats]:
    """Return the player after the first visits, and features (n, D), shifts, outcomes and true chances (n,) of its draws."""
    player, rows, shifts, bought, chances = Player(policy, world.permille), [], [], [], []
    for visit, u in enumerate(uniforms(policy.seed, decision_ids(seed, visits))):
        arm = drawn(player.weigh(world.x[visit]), u)
        buys = bool(world.luck[visit] < world.chances[visit, arm])
        player.learn(arm, buys)
        rows.append(player.x)
        shifts.append(float(player.arms.shifts[0, arm]))
        bought.append(float(buys))
        chances.append(float(world.chances[visit, arm]))
    return player, np.array(rows), np.array(shifts), np.array(bought), np.array(chances)


def fitted(z: Floats, bought: Floats, mean: Floats, variances: Floats) -> tuple[Floats, Floats]:
    """Return the maximum of the log posterior and its standard deviations there, by Newton's method; `bought` in 0 to 1."""
    weights = mean.copy()
    for _ in range(50):
        chances = _sigmoid((z * weights).sum(-1))
        gradient = (z * (bought - chances)[:, None]).sum(0) - (weights - mean) / variances
        hessian = (z * (chances * (1.0 - chances))[:, None]).T @ z + np.diag(1.0 / variances)
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if np.abs(step).max() < 1e-12:
            break
    return weights, np.sqrt(np.diag(np.linalg.inv(hessian)))


def predicted(
    player: Player, posterior: Posterior, fit: Floats, world: World, rest: slice
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return, over visits and prices: mean and deviation of the log-odds, those of the fit, and the true chances."""
    rows = []
    for vector in world.x[rest]:
        player.weigh(vector)
        rows.append(player.x)
    x, shifts = np.array(rows), player.arms.shifts[0]
    level, response, deviation, shared, own = (column[:, None] for column in posterior.project(x).T)
    width = x.shape[1]
    theirs = (x * fit[:width]).sum(-1)[:, None] + shifts * (x * fit[width:]).sum(-1)[:, None]
    spread = np.hypot(deviation + shifts * shared, shifts * own)
    return level + shifts * response, spread, theirs, world.chances[rest]


def binned(chances: Floats, true: Floats) -> float:
    """Return the mean distance of predicted and true chance over bins of the predicted one, in percentage points."""
    place = np.minimum((chances * BINS).astype(np.int64), BINS - 1).ravel()
    counts = np.bincount(place, minlength=BINS)
    gap = np.abs(np.bincount(place, chances.ravel(), BINS) - np.bincount(place, true.ravel(), BINS))
    return 100.0 * float(gap.sum() / counts.sum())


def _sigmoid(value: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-value))
