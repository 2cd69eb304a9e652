"""The report on an experiment: arms, lifts with confidence sequences, guardrails, sample ratio, and a verdict with its why.

A claim is made by a confidence sequence (backtest.confidence_sequences), so that looking every day costs nothing; every
treatment has its share of alpha. Not here: the estimates (backtest.experiment_estimates), how a report looks
(backtest.experiment_tables).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from backtest.confidence_sequences import half_width, margin_one_sided
from backtest.experiment_estimates import estimate, sample_ratio_p, value_of
from backtest.experiment_users import HOLDOUT, ExperimentData, ExperimentUser
from contracts.errors import BadInput
from contracts.experiments import Experiment, Guardrail, Watched

SAMPLE_RATIO_P = 0.001
"""Below this the numbers of users are not those of a fair assignment."""
MISMATCHED_MAX = 0.5
"""Share of purchases in the windows of draws, at prices that were not drawn, above which nobody paid what was shown."""
Verdict = Literal["promote", "stop", "continue", "broken"]


class Arm(Struct, frozen=True, kw_only=True):
    """The users of one arm. Money in minor units, per user."""

    name: str
    policy: str
    users: int
    expected_share: float
    draws: int
    exposed: int
    resolved: int
    purchases: int
    conversion: float
    """Share of users who bought."""
    revenue: float
    margin: float | None
    """None: not available, because an item was bought that has no cost."""
    consent: float
    """Share of users who have not withdrawn it."""


class Lift(Struct, frozen=True, kw_only=True):
    """One arm against another on one metric; relative to the mean of the other."""

    arm: str
    against: str
    metric: Watched
    lift: float | None
    """None: not available; `why` says so."""
    low: float | None = None
    high: float | None = None
    """The confidence sequence: holds at every look."""
    fixed_low: float | None = None
    fixed_high: float | None = None
    """The 95 % interval for a single look planned beforehand."""
    p: float | None = None
    """Of that look."""
    cuped: float | None = None
    """Share of the variance that the revenue before the experiment took away."""
    why: str = ""


class Guarded(Struct, frozen=True, kw_only=True):
    """A guardrail on one variant."""

    arm: str
    metric: Watched
    worse_by: float
    high: float | None
    """One-sided confidence sequence: the lift lies below this. None: not available, so nobody can say that it holds."""
    breached: bool


class Report(Struct, frozen=True, kw_only=True):
    """Everything about an experiment so far."""

    experiment: str
    metric: Watched
    alpha: float
    verdict: Verdict
    winner: str | None
    """The variant to promote."""
    policy: str | None
    """Its policy."""
    promote: str
    """The rule in the experiment's file."""
    why: tuple[str, ...]
    arms: tuple[Arm, ...]
    lifts: tuple[Lift, ...]
    """Of every variant against the control, and of every variant against the holdout."""
    guardrails: tuple[Guarded, ...]
    sample_ratio_p: float
    withheld: int
    """Users whose horizon is not over."""
    last_ms: int


def report_on(experiment: Experiment, data: ExperimentData) -> Report:
    """Return the report on the latest version of an experiment and all of its users.

    Raises:
        BadInput: tea-tasting is missing, or the data has an arm that the experiment does not know.
    """
    users = [one for one in data.users.values() if one.arms == 1]
    groups = _groups(experiment, users)
    expected = _expected_shares(experiment)
    arms = tuple(
        _arm(name, _policy(experiment, name), group, expected[name], data.costs_known) for name, group in groups.items()
    )
    p = sample_ratio_p([one.users for one in arms], [one.expected_share for one in arms])
    treatments = [variant.name for variant in experiment.variants if variant.name != experiment.control]
    alpha = experiment.alpha / len(treatments)
    lifts = [
        _lift(name, against, experiment.metric, groups, experiment, alpha, data.costs_known)
        for against in (experiment.control, HOLDOUT)
        for name in groups
        if against in groups and name not in (against, HOLDOUT)
    ]
    guarded = [
        _guard(name, rail, groups, experiment, alpha, data.costs_known)
        for rail in experiment.guardrails
        for name in treatments
    ]
    faults = _faults(data, users, p)
    verdict, winner, why = _verdict(experiment, data, arms, lifts, guarded, faults)
    return Report(
        experiment=experiment.version,
        metric=experiment.metric,
        alpha=experiment.alpha,
        verdict=verdict,
        winner=winner,
        policy=None if winner is None else _policy(experiment, winner),
        promote=experiment.promote,
        why=tuple(why),
        arms=arms,
        lifts=tuple(lifts),
        guardrails=tuple(guarded),
        sample_ratio_p=p,
        withheld=data.withheld,
        last_ms=data.last_ms,
    )


Groups = Mapping[str, Sequence[ExperimentUser]]


def _groups(experiment: Experiment, users: Sequence[ExperimentUser]) -> dict[str, list[ExperimentUser]]:
    groups: dict[str, list[ExperimentUser]] = {variant.name: [] for variant in experiment.variants}
    if experiment.holdout:
        groups[HOLDOUT] = []
    for one in users:
        if one.arm not in groups:
            raise BadInput(
                f"The decisions have an arm {one.arm!r} that {experiment.version} has not: name the log that they are of"
            )
        groups[one.arm].append(one)
    return groups


def _expected_shares(experiment: Experiment) -> dict[str, float]:
    shares = {variant.name: variant.weight * (1.0 - experiment.holdout) for variant in experiment.variants}
    return shares | {HOLDOUT: experiment.holdout}


def _policy(experiment: Experiment, arm: str) -> str:
    return next((variant.policy for variant in experiment.variants if variant.name == arm), "list price")


def _mean(users: Sequence[ExperimentUser], metric: Watched) -> float:
    return sum(value_of(one, metric) for one in users) / len(users) if users else 0.0


def _arm(name: str, policy: str, users: Sequence[ExperimentUser], share: float, costs_known: bool) -> Arm:
    return Arm(
        name=name,
        policy=policy,
        users=len(users),
        expected_share=share,
        draws=sum(one.draws for one in users),
        exposed=sum(one.exposed for one in users),
        resolved=sum(one.resolved for one in users),
        purchases=sum(one.purchases for one in users),
        conversion=_mean(users, "conversion"),
        revenue=_mean(users, "revenue"),
        margin=_mean(users, "margin") if costs_known else None,
        consent=_mean(users, "consent"),
    )


def _unavailable(metric: Watched, costs_known: bool) -> str:
    if metric == "margin" and not costs_known:
        return "margin is not available: an item was bought that has no cost in the catalogue"
    return f"no {metric} in one of the arms yet"


def _lift(
    arm: str, against: str, metric: Watched, groups: Groups, experiment: Experiment, alpha: float, costs_known: bool
) -> Lift:
    known = metric != "margin" or costs_known
    found = estimate(groups[arm], groups[against], metric) if known else None
    if found is None:
        return Lift(arm=arm, against=against, metric=metric, lift=None, why=_unavailable(metric, costs_known))
    half = half_width(found.variance, found.observations, alpha, experiment.tightest_at)
    return Lift(
        arm=arm,
        against=against,
        metric=metric,
        lift=found.lift,
        low=found.lift - half,
        high=found.lift + half,
        fixed_low=found.fixed[0],
        fixed_high=found.fixed[1],
        p=found.fixed[2],
        cuped=found.cuped,
    )


def _guard(
    arm: str, rail: Guardrail, groups: Groups, experiment: Experiment, alpha: float, costs_known: bool
) -> Guarded:
    known = rail.metric != "margin" or costs_known
    found = estimate(groups[arm], groups[experiment.control], rail.metric) if known else None
    high = None
    if found is not None:
        high = found.lift + margin_one_sided(found.variance, found.observations, alpha, experiment.tightest_at)
    enough = min(len(groups[arm]), len(groups[experiment.control])) >= experiment.users_min
    breached = enough and high is not None and high < -rail.worse_by
    return Guarded(arm=arm, metric=rail.metric, worse_by=rail.worse_by, high=high, breached=breached)


def _faults(data: ExperimentData, users: Sequence[ExperimentUser], p: float) -> list[str]:
    faults = []
    if p < SAMPLE_RATIO_P:
        faults.append(
            f"sample ratio: the numbers of users are not those of the assignment (p = {p:.2g}); find what loses users of one arm"
        )
    strays = len(data.users) - len(users)
    if strays:
        faults.append(f"{strays} users were in several arms: the decisions are of different experiments of one name")
    bought, mismatched = sum(one.bought for one in users), sum(one.mismatched for one in users)
    if mismatched > MISMATCHED_MAX * (bought + mismatched):
        faults.append(
            f"{mismatched} of {bought + mismatched} purchases in the windows of draws were at a price that was not drawn: the "
            "shop does not charge the prices of this engine"
        )
    return faults


def _verdict(
    experiment: Experiment,
    data: ExperimentData,
    arms: Sequence[Arm],
    lifts: Sequence[Lift],
    guarded: Sequence[Guarded],
    faults: Sequence[str],
) -> tuple[Verdict, str | None, list[str]]:
    """Return the verdict, the winner if there is one, and why."""
    if faults:
        return "broken", None, list(faults)
    against = [one for one in lifts if one.against == experiment.control]
    missing = [one.why for one in against if one.lift is None]
    breached = {one.arm: one for one in guarded if one.breached}
    why = [
        f"guardrail: {one.arm} has {-(one.high or 0.0):.1%} less {one.metric} than {experiment.control} at least; "
        f"{one.worse_by:.1%} is tolerated"
        for one in breached.values()
    ]
    better = [one for one in against if one.low is not None and one.low > 0.0 and one.arm not in breached]
    too_early = _too_early(experiment, arms, [one for one in guarded if one.arm in {each.arm for each in better}])
    if too_early:
        return "continue", None, [*why, too_early]
    if better:
        best = max(better, key=lambda one: one.lift or 0.0)
        return "promote", best.arm, [*why, f"{best.arm} has {_range(best)} {best.metric} than {experiment.control}"]
    lost = {one.arm for one in against if one.high is not None and one.high < 0.0}
    why += [f"{one.arm} has {_range(one)} {one.metric} than {experiment.control}" for one in against if one.arm in lost]
    if len(lost | breached.keys()) == len(against):
        return "stop", None, why
    over = experiment.stop_ms is not None and data.last_ms >= experiment.stop_ms
    if over and not data.withheld:
        return "stop", None, [*why, "its time is over, and no variant is shown to be better"]
    open_still = f"no variant is shown to be better or worse than {experiment.control} yet"
    if over:
        open_still = f"its time is over, but not that of {data.withheld} users who came last"
    return "continue", None, [*why, *dict.fromkeys(missing), *([] if missing else [open_still])]


def _too_early(experiment: Experiment, arms: Sequence[Arm], guarded: Sequence[Guarded]) -> str | None:
    """Return why no claim can be made yet: too few users, or a guardrail on what looks better that nobody can watch."""
    few = [one.name for one in arms if one.name != HOLDOUT and one.users < experiment.users_min]
    if few:
        return f"fewer than {experiment.users_min} users in {', '.join(few)}: no claim yet"
    blind = [f"{one.metric} of {one.arm}" for one in guarded if one.high is None]
    return f"guardrail: {', '.join(blind)} is not available, and nothing is promoted unwatched" if blind else None


def _range(one: Lift) -> str:
    low, high = one.low or 0.0, one.high or 0.0
    return f"{low:.1%} to {high:.1%} more" if low >= 0.0 else f"{-high:.1%} to {-low:.1%} less"
