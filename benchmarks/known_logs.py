"""Simulated logs whose truth is known exactly: what a target would earn, how much more than the logged policy, and how surely.

Each log has rates, logged policy and target of its own. Truth is the mean over the logged states of what is expected there;
where users have tastes that no state shows, over all users. Not here: what an evaluation makes of them
(benchmarks.bench_coverage).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from backtest.feedback import Feedback, Floats, Ints, feedback_of
from backtest.simulation import Player, decision_ids, drawn
from backtest.worlds import margins, world_of
from contracts.policies import Policy
from contracts.rules import Thompson
from pricing.draws import uniforms

ARMS = 6
SPREAD = 0.8
"""Standard deviation of what tells one user's taste for an action from another's, relative."""


class Known(NamedTuple):
    """A log and its truth, per draw."""

    feedback: Feedback
    value: float
    """Of the target."""
    lifts: Floats
    """Over the logged policy, of each draw, (n,)."""
    error: float
    """The standard error that an estimate of the lift has, by the true variances."""

    @property
    def lift(self) -> float:
        """Of the whole log, per draw."""
        return float(self.lifts.mean())


class Kind(NamedTuple):
    """A family of logs."""

    name: str
    adaptive: bool
    make: Callable[[int, int], Iterator[Known]]
    """From a seed and a number of logs to the logs."""


def kinds(draws: int) -> tuple[Kind, ...]:
    """Return the families, with logs of about `draws` draws."""
    return (
        Kind("fixed, 10 to 30 %", False, lambda seed, logs: _tables(seed, logs, draws, 0.1, 0.3)),
        Kind("fixed, about 1 %", False, lambda seed, logs: _tables(seed, logs, 2 * draws, 0.005, 0.015)),
        Kind("fixed, lognormal money", False, lambda seed, logs: _tables(seed, logs, draws, 0.1, 0.3, money=True)),
        Kind("fixed, 10 draws a user", False, lambda seed, logs: _tables(seed, logs, draws, 0.1, 0.3, per_user=10)),
        Kind(
            "the same, 10 % held out",
            False,
            lambda seed, logs: _tables(seed, logs, draws, 0.1, 0.3, per_user=10, held=0.1),
        ),
        Kind("learning, 10 to 30 %", True, lambda seed, logs: _learning(seed, logs, draws, 0.1, 0.3)),
        Kind("learning, about 1 %", True, lambda seed, logs: _learning(seed, logs, 2 * draws, 0.005, 0.015)),
        Kind("learning, drift", True, lambda seed, logs: _learning(seed, logs, draws, 0.1, 0.3, drift=True)),
        Kind("Thompson, LOGIT", True, lambda seed, logs: _ours("LOGIT", seed, logs, draws)),
        Kind("Thompson, MIS", True, lambda seed, logs: _ours("MIS", seed, logs, draws)),
    )


class _Truth(NamedTuple):
    """What nobody who evaluates sees; each (n, K)."""

    logged: Floats
    """Probabilities of the logged policy."""
    target: Floats
    mean: Floats
    """Expected reward."""
    square: Floats
    """Expected squared reward."""


def _known(
    truth: _Truth, arm: Ints, reward: Floats, adaptive: bool, users: Ints | None = None, shared: float = 0.0
) -> Known:
    """Return a log with its truth; `shared` is what draws of one user have in common, added to the variance of the sum."""
    n = len(arm)
    rows = np.arange(n)
    value = float((truth.target * truth.mean).sum() / n)
    centre = float((truth.logged * truth.mean).sum() / n)
    ratio = truth.target / truth.logged - 1.0
    second = (truth.logged * ratio**2 * (truth.square - 2.0 * centre * truth.mean + centre**2)).sum(1)
    first = ((truth.target - truth.logged) * (truth.mean - centre)).sum(1)
    more = {} if users is None else {"users": users}
    log = feedback_of(reward, truth.logged[rows, arm], truth.target[rows, arm], adaptive=adaptive, **more)
    error = float((second - first**2).sum() + shared) ** 0.5 / n
    return Known(log, value, ((truth.target - truth.logged) * truth.mean).sum(1), error)


def _softmax(values: Floats) -> Floats:
    raised = np.exp(values - values.max(-1, keepdims=True))
    shares: Floats = raised / raised.sum(-1, keepdims=True)
    return shares


def _draw(random: np.random.Generator, chances: Floats) -> Ints:
    """Return an arm for each row of `chances`, (n, K)."""
    below: Ints = (random.random(len(chances))[:, None] > chances.cumsum(-1)[:, :-1]).sum(-1)
    return below


def _target(random: np.random.Generator, rates: Floats) -> Floats:
    """Return a policy that leans towards the better arms, or the worse ones, more or less strongly."""
    order = (rates - rates.mean()) / rates.std()
    return 0.9 * _softmax(random.uniform(-2.5, 2.5) * order) + 0.1 / len(rates)


def _tables(
    seed: int,
    logs: int,
    draws: int,
    low: float,
    high: float,
    money: bool = False,
    per_user: int = 1,
    held: float = 0.0,
) -> Iterator[Known]:
    """A policy that never changes; rewards of 0 and 1, or a purchase of lognormal money; users with tastes of their own.

    The share `held` of users, drawn once for all their draws, gets the first arm; propensities are those of not knowing who.
    """
    for number in range(logs):
        random = np.random.Generator(np.random.Philox(key=[seed, number]))
        rates = random.uniform(low, high, ARMS)
        ways = np.array([0.8 * _softmax(random.normal(0.0, 1.2, ARMS)) + 0.2 / ARMS, np.eye(ARMS)[0]])
        logged = (1.0 - held) * ways[0] + held * ways[1]
        target = _target(random, rates)
        users = np.arange(draws) // per_user
        out = random.random(users[-1] + 1) < held if held else np.zeros(users[-1] + 1, np.bool_)
        arm = _draw(random, ways[out[users].astype(np.intp)])
        wide = [np.broadcast_to(each, (draws, ARMS)) for each in (logged, target, rates)]
        chance = rates[arm]
        if per_user > 1:
            taste = random.gamma(SPREAD**-2, SPREAD**2, (draws // per_user + 1, ARMS))
            chance = np.minimum(chance * taste[users, arm], 1.0)
        bought = random.random(draws) < chance
        paid = np.exp(random.normal(-0.5, 1.0, draws)) if money else np.ones(draws)
        square = wide[2] * (np.e if money else 1.0)
        shared = draws * (per_user - 1) * _alike(ways, held, target, rates)
        truth = _Truth(wide[0], wide[1], wide[2], square)
        yield _known(truth, arm, bought * paid, False, users if per_user > 1 else None, shared)


def _alike(ways: Floats, held: float, target: Floats, rates: Floats) -> float:
    """Return the covariance of what two draws of a user add to the lift: by the user's taste, and by being held out or not.

    `ways` are the probabilities of those who are not held out and of those who are, (2, K).
    """
    shares = np.array([1.0 - held, held])
    logged = shares @ ways
    centre = float(logged @ rates)
    pulls = ways * (target / logged - 1.0)
    means = pulls @ (rates - centre)
    return float(shares @ ((pulls * rates) ** 2).sum(1) * SPREAD**2 + held * (1.0 - held) * (means[0] - means[1]) ** 2)


def _learning(seed: int, logs: int, draws: int, low: float, high: float, drift: bool = False) -> Iterator[Known]:
    """A policy that leans towards what has paid so far, anew every 20 draws; all logs are played side by side."""
    random = np.random.Generator(np.random.Philox(seed))
    rates = random.uniform(low, high, (logs, ARMS))
    later = random.uniform(low, high, (logs, ARMS)) if drift else rates
    targets = np.array([_target(random, each) for each in rates])
    chances, arms, rewards = np.empty((draws, logs, ARMS)), np.empty((draws, logs), np.int64), np.empty((draws, logs))
    means, rows = np.empty((draws, logs, ARMS)), np.arange(logs)
    times, earned = np.ones((logs, ARMS)), np.full((logs, ARMS), (low + high) / 2.0)
    for draw in range(draws):
        if draw % 20 == 0:
            ahead = earned / times - (earned / times).mean(-1, keepdims=True)
            sure = np.sqrt(draw / draws)
            now = 0.8 * _softmax(8.0 * sure * ahead / ((high - low) / 2.0)) + 0.2 / ARMS
        chances[draw], means[draw] = now, rates + (later - rates) * draw / draws
        arms[draw] = _draw(random, now)
        rewards[draw] = random.random(logs) < means[draw, rows, arms[draw]]
        times[rows, arms[draw]] += 1.0
        earned[rows, arms[draw]] += rewards[draw]
    for log in range(logs):
        target = np.broadcast_to(targets[log], (draws, ARMS))
        yield _known(_Truth(chances[:, log], target, means[:, log], means[:, log]), arms[:, log], rewards[:, log], True)


def _ours(world_name: str, seed: int, logs: int, draws: int) -> Iterator[Known]:
    """The default policy with more exploration, in a world of shoppers; targets lean towards or away from the oracle's price."""
    for number in range(logs):
        random = np.random.Generator(np.random.Philox(key=[seed, number]))
        world = world_of(world_name, 1_000 * seed + number, draws)
        policy = Policy(name="logged", number=1, rule=Thompson(temper=1.0, explore=0.2), seed=number)
        player = Player(policy, world.permille)
        logged, arm = np.empty_like(world.chances), np.empty(draws, np.int64)
        for visit, u in enumerate(uniforms(policy.seed, decision_ids(number, draws))):
            chances = player.weigh(world.x[visit])
            arm[visit] = drawn(chances, u)
            player.learn(int(arm[visit]), bool(world.luck[visit] < world.chances[visit, arm[visit]]))
            logged[visit] = chances
        paid = margins(world.permille)
        reward = (world.luck < world.chances[np.arange(draws), arm]) * paid[arm]
        rewards = world.rewards
        lean = (rewards - rewards.mean(-1, keepdims=True)) / rewards.std(-1, keepdims=True)
        target = 0.9 * _softmax(random.uniform(-2.0, 3.0) * lean) + 0.1 / len(paid)
        yield _known(_Truth(logged, target, rewards, world.chances * paid**2), arm, reward, True)
