"""Other people's bandits in the simulated worlds, each at the setting that did best for it; runs in an environment of its own.

`python -m benchmarks.bandit_peers PEER WORLD SEED VISITS FLAGS` prints one line of JSON: what was earned on average at every
visit as sums over blocks, and the seconds of CPU that decisions and updates took. Imports of pricetide only the worlds.
Every peer learns from its own draws alone, one by one, and sees the luck that the others see.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from backtest.worlds import PERMILLE, WORLDS, margins

M = np.array(PERMILLE) / 1000.0
WARM_UP = 100
"""Random visits before mabwiser, which must be fitted once."""


class Peer(Protocol):
    """A bandit; `weigh` gives the probability of each arm for a visit, `learn` takes the outcome of the arm drawn."""

    def weigh(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each arm, (K,), for a visit with `x`, (16,)."""

    def learn(self, x: np.ndarray, arm: int, reward: float, chance: float) -> None:
        """Take the reward of `arm`, which was drawn with probability `chance`."""


def one_hot(arm: int, arms: int) -> np.ndarray:
    """Return (arms,) zeros with a 1 at `arm`."""
    chances = np.zeros(arms)
    chances[arm] = 1.0
    return chances


class VowpalWabbit:
    """Contextual bandit with action-dependent features; `how` is its exploration."""

    def __init__(self, how: str, arms: int, seed: int) -> None:
        vw = importlib.import_module("vowpalwabbit")
        self._vw = vw.Workspace(f"--cb_explore_adf {how} -q UA --quiet --random_seed {seed}")
        self._actions = [f"|A m{arm} p:{(M[arm] - 1) * 5:.4f}" for arm in range(arms)]
        self._shared = ""

    def weigh(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each arm."""
        self._shared = "shared |U " + " ".join(f"x{number}:{value:.5f}" for number, value in enumerate(x))
        chances: np.ndarray = np.array(self._vw.predict([self._shared, *self._actions]))
        chances /= chances.sum()
        return chances

    def learn(self, x: np.ndarray, arm: int, reward: float, chance: float) -> None:
        """Take one outcome."""
        lines = list(self._actions)
        lines[arm] = f"{arm}:{-reward:.6f}:{chance:.6f} {lines[arm]}"
        self._vw.learn([self._shared, *lines])


class MabWiserLinTS:
    """mabwiser's linear Thompson sampling, one by one after a random start."""

    def __init__(self, arms: int, seed: int) -> None:
        mab = importlib.import_module("mabwiser.mab")
        self._arms = arms
        self._mab = mab.MAB(list(range(arms)), mab.LearningPolicy.LinTS(alpha=0.1), seed=seed)
        self._begun: list[tuple[int, float, np.ndarray]] = []

    def weigh(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each arm."""
        if len(self._begun) < WARM_UP:
            return np.full(self._arms, 1.0 / self._arms)
        return one_hot(int(self._mab.predict([_with_constant(x)])), self._arms)

    def learn(self, x: np.ndarray, arm: int, reward: float, chance: float) -> None:
        """Take one outcome."""
        if len(self._begun) >= WARM_UP:
            self._mab.partial_fit([arm], [reward], [_with_constant(x)])
            return
        self._begun.append((arm, reward, _with_constant(x)))
        if len(self._begun) == WARM_UP:
            drawn, rewards, contexts = zip(*self._begun, strict=True)
            self._mab.fit(list(drawn), list(rewards), list(contexts))


class RiverLinUCB:
    """river's disjoint LinUCB."""

    def __init__(self, arms: int, seed: int) -> None:
        bandit = importlib.import_module("river.bandit")
        self._policy = bandit.LinUCBDisjoint(alpha=1.0, seed=seed)
        self._arms = list(range(arms))

    def weigh(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each arm."""
        return one_hot(self._policy.pull(self._arms, context=_named(x)), len(self._arms))

    def learn(self, x: np.ndarray, arm: int, reward: float, chance: float) -> None:
        """Take one outcome."""
        self._policy.update(arm, _named(x), reward)


def _with_constant(x: np.ndarray) -> np.ndarray:
    """Return x behind a 1: neither library adds a constant, and without one an arm's mean cannot be learned."""
    return np.append(1.0, x)


def _named(x: np.ndarray) -> dict[int, float]:
    return dict(enumerate(_with_constant(x).tolist()))


class TabularQ:
    """Sixteen segments, the signs of the first four numbers; gamma 0, epsilon 0.1."""

    def __init__(self, arms: int) -> None:
        self._q, self._n = np.zeros((16, arms)), np.zeros((16, arms))

    def weigh(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each arm."""
        arms = self._q.shape[1]
        return one_hot(int(self._q[_segment(x)].argmax()), arms) * 0.9 + 0.1 / arms

    def learn(self, x: np.ndarray, arm: int, reward: float, chance: float) -> None:
        """Take one outcome."""
        at = _segment(x), arm
        self._n[at] += 1.0
        self._q[at] += max(1.0 / self._n[at], 0.01) * (reward - self._q[at])


def _segment(x: np.ndarray) -> int:
    return int((x[:4] > 0.0) @ (8, 4, 2, 1))


class LinearSarsa:
    """Weights per arm on [1, x]; gamma 0, so that traces have nothing to carry; epsilon 0.1, rate 0.01."""

    def __init__(self, arms: int) -> None:
        self._w = np.zeros((arms, 17))

    def weigh(self, x: np.ndarray) -> np.ndarray:
        """Return the probability of each arm."""
        return one_hot(int((self._w @ np.append(1.0, x)).argmax()), len(self._w)) * 0.9 + 0.1 / len(self._w)

    def learn(self, x: np.ndarray, arm: int, reward: float, chance: float) -> None:
        """Take one outcome."""
        f = np.append(1.0, x)
        self._w[arm] += 0.01 * (reward - self._w[arm] @ f) * f


PEERS: dict[str, Callable[[int, int], Any]] = {
    "VW bag 5": lambda arms, seed: VowpalWabbit("--bag 5", arms, seed),
    "VW squarecb": lambda arms, seed: VowpalWabbit("--squarecb", arms, seed),
    "mabwiser LinTS": MabWiserLinTS,
    "river LinUCB": RiverLinUCB,
    "tabular Q": lambda arms, seed: TabularQ(arms),
    "linear SARSA": lambda arms, seed: LinearSarsa(arms),
}


def play(name: str, world_name: str, seed: int, visits: int, discount_only: bool) -> tuple[list[float], list[float]]:
    """Return (expected margin of every visit, seconds of CPU of every decision with its update)."""
    world = WORLDS[world_name](seed, visits)
    if discount_only:
        world = world.without_raises()
    peer: Peer = PEERS[name](len(world.permille), seed)
    earns, random = margins(world.permille), np.random.default_rng(seed)
    rewards = world.rewards
    earned, seconds = [], []
    for visit, x in enumerate(world.x):
        begun = time.process_time()
        chances = peer.weigh(x)
        arm = min(int(np.searchsorted(np.cumsum(chances), random.random(), side="right")), len(chances) - 1)
        bought = world.luck[visit] < world.chances[visit, arm]
        peer.learn(x, arm, float(earns[arm]) if bought else 0.0, float(chances[arm]))
        seconds.append(time.process_time() - begun)
        earned.append(float((chances * rewards[visit]).sum()))
    return earned, seconds


def main() -> None:
    """Play one peer in the worlds that stdin names, a JSON array [world, seed, visits, discount_only] a line."""
    for line in sys.stdin:
        world, seed, visits, discount_only = json.loads(line)
        earned, seconds = play(sys.argv[1], world, seed, visits, discount_only)
        late = sum(earned[1_000:])
        p99 = float(np.percentile(seconds, 99)) * 1e6
        answer = {"value": sum(earned), "late": late, "seconds": sum(seconds), "p99_us": p99}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
