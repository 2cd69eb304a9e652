"""Policies beside other people's bandits, in worlds where the best possible prices are known: `python -m benchmarks policies`.

Defaults were chosen on seeds 1 to 3 and 1001 to 1060; what is reported are others, paired. Needs the package index once, for
the peers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
from scipy import stats

from backtest.scores import score_policy
from backtest.simulation import NEUTRAL_INTENT, Player, decision_ids, drawn
from backtest.worlds import LIST_PRICE, world_of
from benchmarks.bandit_peers import PEERS
from benchmarks.bandits import Job, Run, run_peers, run_timed
from benchmarks.lab import Lab
from benchmarks.report import Cell, Claim, Report
from contracts.policies import Policy, Rule, UniformRandom
from contracts.rules import Greedy, LinearQ, Sarsa, Thompson
from pricing.choosers import chooser_of, ignorance
from pricing.contexts import Seen, scene_of
from pricing.demand import Posterior
from pricing.draws import uniforms

TUNED = (1, 2, 3, *range(1_001, 1_061))
"""Seeds that the defaults were chosen on, and that are never reported."""
SEEDS = tuple(range(401, 421))
VISITS = 20_000
OURS = "Thompson (ours, default)"
BATCH = 1_000
GAMMA = 0.9
HOLDOUT = 0.1
CHEAPER = ", prices up to list only"
"""Behind the name of whoever plays a world without raises, against the oracle that has none, either."""


def _policy(rule: Rule, number: int = 1) -> Policy:
    return Policy(name="bench", number=number, rule=rule)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return (mean, half of its 95 % interval by Student's t)."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    return mean, error * float(stats.t.ppf(0.975, len(values) - 1))


def _plus_minus(values: Sequence[float]) -> str:
    mean, half = _interval(values)
    return f"{mean:.1f} ±{half:.1f}"


def _shares(runs: Sequence[Run], world: str) -> list[float]:
    return [run.score.share for run in runs if run.score.world == world]


def run(lab: Lab) -> Report:
    """Play everybody; see the module."""
    seeds, visits = (SEEDS[:3], 2_000) if lab.quick else (SEEDS, VISITS)
    jobs = [Job(world, seed, visits) for world in ("LOGIT", "MIS") for seed in seeds]
    ours: dict[str, Rule] = {
        OURS: Thompson(),
        "greedy (ours)": Greedy(),
        "linear Q = SARSA at gamma 0 (ours)": LinearQ(),
        "uniform random": UniformRandom(),
    }
    runs = {name: [run_timed(_policy(rule), job) for job in jobs] for name, rule in ours.items()}
    runs |= run_peers(list(PEERS), jobs, max((os.cpu_count() or 2) // 2, 1))
    rows = [_row(name, runs[name], runs[OURS]) for name in runs]
    rows.insert(1, _best_fixed("best fixed price, in hindsight", runs[OURS]))
    rows += _restricted(jobs)
    rate = decisions_per_second(BATCH if lab.quick else 20 * BATCH)
    notes, null = _other_worlds(seeds, visits)
    return Report(
        name="policies",
        title=f"Share of the oracle's gain over list price, %, {len(seeds)} seeds of {visits:,} visits; 95 % intervals",
        columns=("", "LOGIT", "MIS", "ours ahead, LOGIT", "ours ahead, MIS", "events/s, one by one", "p99 µs"),
        rows=rows,
        claims=_claims(runs, null, rate),
        notes=[
            "events/s and p99: one decision with its update at a time, CPU; the luck of a visit is the same for everybody. "
            f"Seeds {seeds[0]} to {seeds[-1]}; defaults were chosen on seeds 1 to 3 and 1001 to 1060.",
            *notes,
        ],
    )


def _row(name: str, runs: Sequence[Run], ours: Sequence[Run]) -> tuple[Cell, ...]:
    cells: list[Cell] = [name]
    for world in ("LOGIT", "MIS"):
        cells.append(_plus_minus(_shares(runs, world)))
    for world in ("LOGIT", "MIS"):
        ahead = [a - b for a, b in zip(_shares(ours, world), _shares(runs, world), strict=True)]
        cells.append(None if runs is ours else _plus_minus(ahead))
    rate = float(np.median([run.score.events_per_second for run in runs]))
    return (*cells, rate, float(np.median([run.p99_us for run in runs])))


def _restricted(jobs: Sequence[Job]) -> list[tuple[Cell, ...]]:
    """Return the rows of the worlds without raises, and of the default with a holdout that it learns from, too."""
    cheaper = [job._replace(discount_only=True) for job in jobs]
    ours = [run_timed(_policy(Thompson()), job) for job in cheaper]
    bag = run_peers(["VW bag 5"], cheaper, max((os.cpu_count() or 2) // 2, 1))["VW bag 5"]
    held = [run_timed(_policy(Thompson()), job, HOLDOUT) for job in jobs]
    return [
        _row(OURS + CHEAPER, ours, ours),
        _best_fixed("best fixed price" + CHEAPER, ours),
        _row("VW bag 5" + CHEAPER, bag, ours),
        _row(f"{OURS}, {HOLDOUT:.0%} of visits held out at list price", held, held),
    ]


def _best_fixed(name: str, ours: Sequence[Run]) -> tuple[Cell, ...]:
    shares = {w: [run.score.best_fixed_share for run in ours if run.score.world == w] for w in ("LOGIT", "MIS")}
    ahead = {w: [a - b for a, b in zip(_shares(ours, w), shares[w], strict=True)] for w in shares}
    cells = [_plus_minus(values) for values in (*shares.values(), *ahead.values())]
    return (name, *cells, None, None)


def _claims(runs: dict[str, list[Run]], null: float, rate: float) -> list[Claim]:
    bag, mine = runs["VW bag 5"], runs[OURS]
    ahead = {w: [a - b for a, b in zip(_shares(mine, w), _shares(bag, w), strict=True)] for w in ("LOGIT", "MIS")}
    mean, half = _interval(ahead["LOGIT"])
    p99 = float(np.median([run.p99_us for run in mine]))
    rows = (
        ("Share of the oracle's gain in LOGIT", _interval(_shares(mine, "LOGIT"))[0], 74.0, "%", True),
        ("Share of the oracle's gain in MIS", _interval(_shares(mine, "MIS"))[0], 64.0, "%", True),
        ("Ahead of VW bag 5 in LOGIT, lower end of the paired interval", mean - half, 0.0, "points", True),
        ("Ahead of VW bag 5 in MIS", _interval(ahead["MIS"])[0], -3.0, "points", True),
        ("Lost on list price in NULL after 1,000 visits", null, 2.0, "%", False),
        ("Decisions with updates as in the engine, one core", rate, 20_000.0, "per second", True),
        ("One decision with its update, p99", p99, 200.0, "µs", False),
    )
    return [Claim(what=w, measured=m, limit=x, unit=u, at_least=least) for w, m, x, u, least in rows]


def _other_worlds(seeds: Sequence[int], visits: int) -> tuple[list[str], float]:
    """Return notes on the default elsewhere and on looking ahead, and the mean loss in NULL, in percent."""
    notes = []
    lost = [score_policy(_policy(Thompson()), "NULL", seed, visits).loss_after_1000 or 0.0 for seed in seeds]
    notes.append(f"NULL, lost on list price after 1,000 visits, %: {_plus_minus(lost)}, worst seed {max(lost):.1f}.")
    near, far = (
        [score_policy(_policy(Sarsa(discount=gamma)), "CARRY", seed, visits) for seed in seeds]
        for gamma in (0.0, GAMMA)
    )
    gains = [100.0 * (b.policy_value / a.policy_value - 1.0) for a, b in zip(near, far, strict=True)]
    notes.append(
        f"CARRY, SARSA with gamma {GAMMA} against gamma 0, expected margin, %: {_plus_minus(gains)}; in % of list price, gamma "
        f"{GAMMA}: {_plus_minus([100.0 * s.policy_value / s.list_value for s in far])}, "
        f"gamma 0: {_plus_minus([100.0 * s.policy_value / s.list_value for s in near])}, "
        f"oracle: {_plus_minus([100.0 * s.oracle_value / s.list_value for s in far])}."
    )
    return notes, float(np.mean(lost))


def decisions_per_second(visits: int) -> float:
    """Return decisions with updates per second of CPU, as the engine makes them: features and moments of a batch at once,
    then price by price.
    """
    policy = _policy(Thompson())
    world = world_of("LOGIT", TUNED[0], visits)
    knowledge = ignorance(policy.rule)
    assert isinstance(knowledge, Posterior)
    chooser, arms = chooser_of(policy, knowledge), Player(policy, world.permille).arms
    numbers = uniforms(policy.seed, decision_ids(TUNED[0], visits))
    shifts = arms.shifts[0].tolist()
    begun = time.process_time()
    for at in range(0, visits, BATCH):
        seen = [Seen(LIST_PRICE, NEUTRAL_INTENT, None, x) for x in world.x[at : at + BATCH]]
        scene = scene_of(chooser.features, seen)
        rows = chooser.project(scene)
        taken = [drawn(chooser.weigh(rows[n : n + 1], arms)[0].tolist(), numbers[at + n]) for n in range(len(seen))]
        for n, arm in enumerate(taken):
            visit = at + n
            knowledge.learn(scene.x[n], shifts[arm], bool(world.luck[visit] < world.chances[visit, arm]))
    return visits / (time.process_time() - begun)
