"""Runs peers in an environment of their own, and our policies in this one, in the same simulated worlds and seeds.

The environment is made once, under the user's cache. Not here: the peers (benchmarks.bandit_peers), the table (bench_policies).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from backtest.simulation import Player, Score, decision_ids, drawn, is_held_out, score, yardsticks_of
from backtest.worlds import world_of
from contracts.policies import Policy
from pricing.draws import uniforms

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pricetide"
REQUIREMENTS = ("vowpalwabbit==9.11.9", "mabwiser==2.7.4", "river==0.26.1", "numpy==2.4.6")
SINGLE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Job(NamedTuple):
    """One policy's or peer's run."""

    world: str
    seed: int
    visits: int
    discount_only: bool = False


class Run(NamedTuple):
    """What came out of a job."""

    score: Score
    p99_us: float
    """Of one decision with its update, CPU."""


def environment() -> Path:
    """Return the Python of the peers' environment; the first call makes it, from the package index."""
    name = "peers-" + sha256("\n".join((sys.version, *REQUIREMENTS)).encode()).hexdigest()[:12]
    directory = CACHE / name
    python, made = directory / "bin" / "python", directory / "made"
    if not made.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        made.write_text("\n".join(REQUIREMENTS) + "\n")
    return python


def run_peer(name: str, jobs: Sequence[Job], python: Path) -> list[Run]:
    """Return what the peer `name` made of `jobs`."""
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    told = subprocess.run(
        [str(python), "-m", "benchmarks.bandit_peers", name],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | SINGLE | {"PYTHONPATH": str(ROOT)},
    )
    return [_run_of(name, job, json.loads(line)) for job, line in zip(jobs, told.stdout.splitlines(), strict=True)]


def _run_of(name: str, job: Job, told: dict[str, float]) -> Run:
    """Return the score of a peer, from the sums that it sent."""
    world = world_of(job.world, job.seed, job.visits)
    world = world.without_raises() if job.discount_only else world
    first = min(1_000, job.visits)
    early = told["value"] - told["late"]
    rest = told["late"] / max(job.visits - first, 1)
    earned = np.concatenate((np.full(first, early / first), np.full(job.visits - first, rest)))
    return Run(score(job.world, job.seed, name, yardsticks_of(world), earned, told["seconds"]), told["p99_us"])


def run_peers(names: Sequence[str], jobs: Sequence[Job], at_once: int) -> dict[str, list[Run]]:
    """Return what every peer made of `jobs`, the jobs of a peer spread over `at_once` processes."""
    python = environment()
    with ThreadPoolExecutor(at_once) as pool:
        parts = {
            name: [pool.submit(run_peer, name, jobs[part::at_once], python) for part in range(at_once)]
            for name in names
        }
        found: dict[str, list[Run]] = {}
        for name, waiting in parts.items():
            runs: list[Run | None] = [None] * len(jobs)
            for part, done in enumerate(waiting):
                runs[part::at_once] = done.result()
            found[name] = [run for run in runs if run is not None]
    return found


def run_timed(policy: Policy, job: Job, holdout: float = 0.0) -> Run:
    """Play `policy` one visit at a time, every decision with its update on the clock; a share of visits pays list price."""
    world = world_of(job.world, job.seed, job.visits)
    world = world.without_raises() if job.discount_only else world
    player, ids = Player(policy, world.permille), decision_ids(job.seed, job.visits)
    numbers = uniforms(policy.seed, ids)
    listed = [float(arm == world.list_arm) for arm in range(len(world.permille))]
    earned, seconds = np.empty(job.visits), np.empty(job.visits)
    rewards = world.rewards
    for visit, u in enumerate(numbers):
        begun = time.thread_time()
        chances = player.weigh(world.x[visit])
        if holdout and is_held_out(ids[visit], holdout):
            chances = listed
        arm = drawn(chances, u)
        player.learn(arm, bool(world.luck[visit] < world.chances[visit, arm]))
        seconds[visit] = time.thread_time() - begun
        earned[visit] = float((np.array(chances) * rewards[visit]).sum())
    told = score(job.world, job.seed, policy.version, yardsticks_of(world), earned, float(seconds.sum()))
    return Run(told, float(np.percentile(seconds, 99)) * 1e6)
