"""Off-policy evaluation: two doors, `evaluate` (a target against the logged policy) and `lift_over` (against a third policy).

Pure: equal feedback and settings give equal results. Estimators are in backtest.estimators, intervals in
backtest.resampling and backtest.confidence_sequences, gates and verdict in backtest.gates. Not here: files, pages.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from backtest import estimators
from backtest.confidence_sequences import half_width_planned
from backtest.diagnostics import diagnostics_of
from backtest.estimates import Estimate, Evaluation, Interval, Judge, Lift, Settings
from backtest.estimators import Estimator, error_of, value_of
from backtest.feedback import Feedback, Floats, Ints
from backtest.gates import gates_of, no_draws, refused, verdict_of
from backtest.rare_rewards import widening
from backtest.resampling import groups_of, intervals_of

DEFAULT = Settings()
_ROUNDING = 1e-12
"""Of the mean size of a reward: a lift whose interval ends nearer to zero than this is what rounding left of none."""


def evaluate(feedback: Feedback, settings: Settings = DEFAULT) -> Evaluation:
    """Return everything that the log says about the target: nothing at all, if whoever read the log refuses it.

    A log whose policy learned, or that is looked at again and again as it grows (`settings.planned`), is judged by the
    anytime-valid interval of the lift, any other one by the bootstrap over users. Without `settings.planned` either is for one
    look, at a log of this length.
    """
    free = feedback.where(~feedback.forced)
    judged_by: Judge = "anytime" if feedback.adaptive or settings.planned is not None else "bootstrap"
    forced = len(feedback) - len(free)
    if feedback.refusal is not None or len(free) == 0:
        gates = no_draws(feedback.unknown, feedback.duplicated, forced)
        if feedback.refusal is not None:
            gates = refused(feedback.refusal)
        why = tuple(gate.says for gate in gates)
        return _evaluation(free, settings, judged_by, gates=gates, verdict="REFUSE", why=why)
    users = _codes(free.users)
    found = diagnostics_of(free, users, forced)
    gates = gates_of(found, judged_by)
    logged, estimates, lift = _estimates(free, users, settings)
    verdict, why = verdict_of(gates, lift, judged_by)
    return _evaluation(
        free, settings, judged_by, gates=gates, verdict=verdict, why=why, logged=logged, estimates=estimates, lift=lift,
        diagnostics=found,
    )  # fmt: skip


def lift_over(feedback: Feedback, other: Floats, settings: Settings = DEFAULT) -> Lift | None:
    """Return what the target earns more than another policy at the same draws; None where one of them has no weight at all.

    Args:
        feedback: as for `evaluate`; forced rows are left out.
        other: the other policy's probabilities of the logged actions, (n,); `feedback.propensity` is the logged policy.
        settings: as for `evaluate`.
    """
    free = feedback.where(~feedback.forced)
    kept = np.asarray(other, np.float64)[~feedback.forced]
    if not (free.target.any() and kept.any()):
        return None
    weight, users = kept / free.propensity, _codes(free.users)
    estimator = estimators.lift(free, weight)
    groups, resamples = groups_of(free.users), settings.resamples
    (interval,) = intervals_of([estimator.terms], groups, settings.alpha, resamples, settings.seed)
    return _lift(free, estimator, weight, users, interval, settings)


def _codes(users: Ints) -> Ints:
    codes: Ints = np.unique(users, return_inverse=True)[1].reshape(-1)
    return codes


def _evaluation(free: Feedback, settings: Settings, judged_by: Judge, **rest: object) -> Evaluation:
    empty: dict[str, object] = {"logged": None, "estimates": (), "lift": None, "diagnostics": None}
    more = {"judged_by": judged_by, "adaptive": free.adaptive, "alpha": settings.alpha, "planned": settings.planned}
    return Evaluation(**(empty | rest | more))  # type: ignore[arg-type]  # fields by name, from two places


def _estimates(free: Feedback, users: Ints, settings: Settings) -> tuple[Estimate, tuple[Estimate, ...], Lift | None]:
    """Return the logged policy's value, every estimate of the target's, and the lift; the latter are empty without weight."""
    wanted = [estimators.logged(free), *_target_estimators(free, users, settings)]
    ones = np.ones(len(free))
    lift = [estimators.lift(free, ones)] if free.target.any() else []
    groups = groups_of(free.users)
    every = [one.terms for one in wanted + lift]
    intervals = intervals_of(every, groups, settings.alpha, settings.resamples, settings.seed)
    made = tuple(
        _estimate(free, one, users, interval, settings) for one, interval in zip(wanted, intervals, strict=False)
    )
    found = _lift(free, lift[0], ones, users, intervals[-1], settings) if lift else None
    return made[0], made[1:], found


def _target_estimators(free: Feedback, users: Ints, settings: Settings) -> list[Estimator]:
    """Return every estimator that the log allows; none where no draw has a weight."""
    if not free.target.any():
        return []
    found = [estimators.ips(free), estimators.snips(free), estimators.clipped(free, settings.clip)]
    if free.expected_logged is None or free.expected_target is None:
        return found
    modelled = estimators.Modelled(free, free.expected_logged, free.expected_target)
    tau, shrinkage = settings.tau, settings.shrinkage
    if tau is None:
        tau = estimators.chosen_by_slope(estimators.GRID, modelled.switch, users)
    if shrinkage is None:
        shrinkage = estimators.chosen_by_slope([root**2 for root in estimators.GRID], modelled.dros, users)
    return [*found, modelled.dm(), modelled.dr(), modelled.sndr(), modelled.switch(tau), modelled.dros(shrinkage)]


def _estimate(free: Feedback, one: Estimator, users: Ints, interval: Interval | None, settings: Settings) -> Estimate:
    value = value_of(one.terms)
    if one.name == "dm":
        return Estimate(name="dm", value=value, error=None, interval=None)
    wider = widening(one.weight, one.residual)
    increments = _increments(free, one)
    error = error_of(one.terms, users)
    return Estimate(
        name=one.name,
        value=value,
        error=error,
        interval=_stretched(interval, value, error, wider, settings.alpha),
        anytime=None if increments is None else _anytime(increments, users, wider, settings),
        widened=wider,
        parameter=one.parameter,
    )


def _lift(
    free: Feedback, one: Estimator, other: Floats, users: Ints, interval: Interval | None, settings: Settings
) -> Lift:
    value, error, wider = value_of(one.terms), error_of(one.terms, users), widening(one.weight, one.residual)
    base = float((other * free.reward).sum() / other.sum())
    least = _ROUNDING * float(np.abs(free.reward).mean())
    value, error = (each if max(abs(value), error) > least else 0.0 for each in (value, error))
    anytime = _anytime((free.weight - other) * (free.reward - _known(free.reward)), users, wider, settings)
    return Lift(
        value=value,
        error=error,
        bootstrap=_settled(_stretched(interval, value, error, wider, settings.alpha), least),
        anytime=_settled(anytime, least) or anytime,
        widened=wider,
        relative=value / base if base > 0.0 else None,
    )


def _increments(free: Feedback, one: Estimator) -> Floats | None:
    """Return, (n,), what has the value sought as its expectation, given the draws before; None where nothing so simple has."""
    known = _known(free.reward)
    if one.name == "snips":
        return free.weight * (free.reward - known) + known
    return one.weight * free.reward if one.name in ("logged", "ips") else None


def _stretched(interval: Interval | None, value: float, error: float, wider: float, alpha: float) -> Interval | None:
    """Return a bootstrap's interval, each end at least as far away as the standard error says, and both `wider` times further.

    A few hundred resamples place an end to a few percent only, and percentiles of skewed estimates are short on one side.
    """
    if interval is None:
        return None
    half = NormalDist().inv_cdf(1.0 - alpha / 2.0) * error
    low, high = max(value - interval.low, half), max(interval.high - value, half)
    return Interval(value - wider * low, value + wider * high)


def _settled(interval: Interval | None, least: float) -> Interval | None:
    """Return an interval, as the single point zero if both of its ends are no further than `least` from it."""
    near = interval is not None and max(abs(interval.low), abs(interval.high)) <= least
    return Interval(0.0, 0.0) if near else interval


def _known(reward: Floats) -> Floats:
    """Return the mean reward of the draws before each one, (n,); 0 before the first.

    Weights less this are as much known before a draw as its propensity, and their mean is too: taking it off changes no
    expectation, and takes away what all actions have in common. It is what self-normalising does, without looking ahead.
    """
    before = np.arange(len(reward))
    known: Floats = (np.cumsum(reward) - reward) / np.maximum(before, 1)
    return known


def _anytime(increments: Floats, users: Ints, wider: float, settings: Settings) -> Interval:
    """Return the interval around the mean of `increments`, (n,), each of whose expectation given the past is what is sought.

    They vary as the draws do, or as the sums of users do where that is more: who is held out gets one price at every draw,
    so the lot that a marginal propensity speaks of is cast once for all of them.
    """
    n, mean = len(increments), float(increments.mean())
    together = float((np.bincount(users, increments - mean) ** 2).sum()) / n
    variance = max(float(increments.var()), together)
    half = wider * half_width_planned(variance, n, settings.alpha, settings.planned or n)
    return Interval(mean - half, mean + half)
