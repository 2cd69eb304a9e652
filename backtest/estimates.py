"""What off-policy evaluation says: what a target policy would have earned at the logged draws, and whether the log can tell.

The estimand is the mean one-step reward at the logged states and feasible prices, not long-run value: no what-if changes
what users saw next. Rows that were forced are left out. Made by `backtest.evaluation`; nothing here computes.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Verdict = Literal["REFUSE", "REJECT", "INCONCLUSIVE", "ADOPT_TO_AB"]
"""The log cannot support an answer; it can, and the target is worse than the logged policy; it can, and there is no
answer yet; the target is better, and may meet customers in an A/B test."""

Judge = Literal["bootstrap", "anytime"]
"""Which interval of a lift carries a verdict: the bootstrap over users, or the anytime-valid one."""

ESTIMAND = (
    "mean one-step reward at the logged states and feasible actions, forced draws left out; not long-run value: what users "
    "would have seen and done next is not changed"
)


class Settings(Struct, frozen=True, kw_only=True):
    """How to evaluate; equal settings and feedback give equal results."""

    alpha: float = 0.05
    """Chance that an interval misses."""
    resamples: int = 1_000
    """Of the bootstrap."""
    seed: int = 12345
    """Of the bootstrap."""
    clip: float = 5.0
    """Largest weight of clipped IPS."""
    tau: float | None = None
    """Largest weight of Switch-DR; None: by SLOPE."""
    shrinkage: float | None = None
    """Lambda of DRos; None: by SLOPE."""
    planned: int | None = None
    """Draws with a choice at which the anytime-valid interval is meant to be tightest. Given, and the same at every look, the
    interval holds at all looks together, before and beyond that number. None: this log is judged once, at its length."""


class Interval(Struct, frozen=True):
    """A range."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Of an anytime-valid interval, the estimate that it is around: not the self-normalised one, which looks ahead."""
        return (self.low + self.high) / 2.0


class Estimate(Struct, frozen=True, kw_only=True):
    """The target's value by one estimator; in units of reward per draw."""

    name: str
    """ips, snips, clipped_ips, dm, dr, sndr, switch_dr, dros."""
    value: float
    error: float | None
    """Standard error by the influence of the draws, summed by user; None for dm, whose bias no draw shows."""
    interval: Interval | None
    """By a bootstrap that resamples users; None for dm, and where it is not defined on most resamples."""
    anytime: Interval | None = None
    """Holds also where the logged policy learned, and at every look if `Settings.planned` was given; for the logged policy, ips
    and snips."""
    widened: float = 1.0
    """How many times wider the intervals are than the draws that earned something say (backtest.rare_rewards)."""
    parameter: float | None = None
    """The clip, tau or lambda."""

    def by(self, judge: Judge) -> Interval | None:
        """Return one of the two intervals."""
        return self.anytime if judge == "anytime" else self.interval


class Lift(Struct, frozen=True, kw_only=True):
    """What the target earns more than another policy, per draw, on the same draws."""

    value: float
    error: float
    """Standard error, clustered by user."""
    bootstrap: Interval | None
    """Resamples users; of a log whose policy did not learn. None: not defined on most resamples."""
    anytime: Interval
    """As of an estimate; in the order of decisions."""
    widened: float
    """As of an estimate."""
    relative: float | None
    """Lift over the other policy's value; None where that is not above zero."""

    def by(self, judge: Judge) -> Interval | None:
        """Return one of the two intervals."""
        return self.anytime if judge == "anytime" else self.bootstrap


class Gate(Struct, frozen=True, kw_only=True):
    """A condition without which the log supports no answer."""

    name: str
    value: float
    limit: float
    passed: bool
    says: str
    """What was found and what was wanted, as a sentence."""


class Clipped(Struct, frozen=True):
    """Clipped IPS at one clip."""

    clip: float
    value: float
    error: float


class Diagnostics(Struct, frozen=True, kw_only=True):
    """What the weights look like."""

    draws: int
    """Rows that were judged."""
    users: int
    forced_share: float
    """Of the rows with a propensity."""
    ess: float
    """Effective sample size, (sum of w)^2 / sum of w^2."""
    ess_share: float
    weight_mean: float
    """1 in expectation."""
    weight_z: float
    """Standard errors that it is away from 1."""
    weight_max: float
    weight_share: float
    """Of the largest weight in the sum of weights."""
    reward_share: float
    """Of the largest |reward x weight| in their sum."""
    pareto_k: float | None
    """Shape of the generalised Pareto tail of the weights; None: too few of them differ to fit one."""
    unsupported: float
    """The target's mean probability of actions that the logged policy could not draw."""
    clips: tuple[Clipped, ...]
    """Clipped IPS over a grid of clips: what hangs on large weights."""
    model_gap: float | None
    """DM minus IPS, in standard errors of IPS; None without expected rewards."""
    recomputed_gap: float | None
    """Largest difference of a logged propensity to its recomputation; None: nobody recomputed."""
    unknown: int
    duplicated: int


class Evaluation(Struct, frozen=True, kw_only=True):
    """Everything that the log says about the target."""

    verdict: Verdict
    why: tuple[str, ...]
    """The gates that failed, or what the verdict rests on."""
    gates: tuple[Gate, ...]
    judged_by: Judge
    """Which interval of the lift carries the verdict."""
    logged: Estimate | None
    """Mean reward of the logged policy; None without a draw."""
    estimates: tuple[Estimate, ...]
    lift: Lift | None
    """Over the logged policy."""
    diagnostics: Diagnostics | None
    adaptive: bool
    alpha: float
    planned: int | None = None
    """As in Settings."""
    estimand: str = ESTIMAND
