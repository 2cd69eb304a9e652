"""Gates, without which a log supports no answer, and the verdict.

The limits of weights and support are those of the project's reference on pricing, section 3.3. The shape of the tail alone
is not enough: a real log had k = 0.56 and one draw with 69 % of all weight. Not here: any number that a gate looks at.
"""

from __future__ import annotations

from backtest.estimates import Diagnostics, Gate, Interval, Judge, Lift, Verdict

ESS_MIN = 500.0
ESS_SHARE_MIN = 0.01
WEIGHT_Z_MAX = 3.0
WEIGHT_SHARE_MAX = 0.05
REWARD_SHARE_MAX = 0.20
UNSUPPORTED_MAX = 0.01
PARETO_K_MAX = 0.7
TAIL_MIN = 10.0
"""Times the mean weight: where no weight is larger there is no tail whose shape could matter. What the weights of a policy that
leans a little this way and that make, steps close to each other, has been fitted k = 1.1 where the largest weight was 2."""
RECOMPUTED_GAP_MAX = 1e-9
USERS_MIN = 30
"""For a bootstrap over users; the anytime-valid interval needs none."""

AT_LEAST = ("ess", "ess share", "users")
"""Gates whose value must reach the limit; that of any other must stay below it, or be zero where the limit is."""
SHARES = ("ess share", "largest weight", "largest reward", "unsupported target")
"""Gates whose value is a fraction."""


def gates_of(found: Diagnostics, judged_by: Judge) -> tuple[Gate, ...]:
    """Return every gate, passed or not."""
    ess = "the weighted draws are worth {value:,.1f} unweighted ones, {limit:,.0f} needed"
    weight = "one draw has {value:.1%} of all weight, less than {limit:.0%} needed"
    repeated = "rows repeat a decision: log each draw once, or name the column of its id"
    reward = "one draw has {value:.1%} of all weighted reward, less than {limit:.0%} needed"
    if not any(one.value for one in found.clips):
        reward = "no draw that the target would make, too, has earned anything"
    unsupported = "{value:.1%} of the target's choices were never drawn, less than {limit:.0%} needed"
    gates = [
        _none("unknown propensities", found.unknown, "rows have no propensity: log it with each decision"),
        _none("duplicated decisions", found.duplicated, repeated),
        _at_least("ess", found.ess, ESS_MIN, ess),
        _at_least("ess share", found.ess_share, ESS_SHARE_MIN, "that is {value:.2%} of the draws, {limit:.0%} needed"),
        _below("mean weight", abs(found.weight_z), WEIGHT_Z_MAX, _mean_weight(found)),
        _below("largest weight", found.weight_share, WEIGHT_SHARE_MAX, weight),
        _below("largest reward", found.reward_share, REWARD_SHARE_MAX, reward),
        _below("unsupported target", found.unsupported, UNSUPPORTED_MAX, unsupported),
    ]
    if found.pareto_k is not None and not tail_aside(found):
        says = "the tail of the weights has the shape {value:.2f}, less than {limit:.1f} needed"
        gates.append(_below("pareto k", found.pareto_k, PARETO_K_MAX, says))
    if found.recomputed_gap is not None:
        says = (
            "a logged propensity differs by {value:.2g} from its recomputation, nothing above {limit:.0g} is rounding"
        )
        gates.append(_below("recomputed propensities", found.recomputed_gap, RECOMPUTED_GAP_MAX, says))
    if judged_by == "bootstrap":
        says = "{value:,.0f} users, {limit:,.0f} needed to resample them"
        gates.append(_at_least("users", float(found.users), float(USERS_MIN), says))
    return tuple(gates)


def tail_aside(found: Diagnostics) -> str:
    """Return why the shape of the tail of the weights, where there is one, is not judged; empty if it is."""
    if found.pareto_k is None or found.weight_max > TAIL_MIN * found.weight_mean:
        return ""
    return f"not judged: no weight above {TAIL_MIN:g} times the mean"


def refused(why: str) -> tuple[Gate, ...]:
    """Return the gates of a log that its reader refuses."""
    return (Gate(name="log", value=1.0, limit=0.0, passed=False, says=why),)


def no_draws(unknown: int, duplicated: int, forced: int) -> tuple[Gate, ...]:
    """Return the gates of a log that has no draw to judge."""
    says = f"no draw with a choice and a propensity: {forced:,} forced, {unknown:,} without a propensity, {duplicated:,} repeated"
    return (Gate(name="draws", value=0.0, limit=1.0, passed=False, says=says),)


def verdict_of(gates: tuple[Gate, ...], lift: Lift | None, judged_by: Judge) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict and its reasons: the gates that failed, else where the interval of the lift lies."""
    failed = tuple(f"{gate.name}: {gate.says}" for gate in gates if not gate.passed)
    interval = None if lift is None else lift.by(judged_by)
    if failed or interval is None:
        return "REFUSE", failed or ("lift: it cannot be computed on most resamples of the users",)
    name = "anytime-valid interval" if judged_by == "anytime" else "bootstrap interval"
    where = f"the {name} of the lift over the logged policy, {interval.low:+.6g} to {interval.high:+.6g}"
    if interval.low > 0.0:
        return "ADOPT_TO_AB", (f"{where}, is above zero: worth an A/B test",)
    if interval.high < 0.0:
        return "REJECT", (f"{where}, is below zero: the target is worse",)
    return "INCONCLUSIVE", (f"{where}, holds zero: {_more(interval)}",)


def _more(interval: Interval) -> str:
    if interval.low == interval.high:
        return "both policies earn the same at every draw"
    return "more draws are needed, or a target that differs more"


def _mean_weight(found: Diagnostics) -> str:
    return (
        f"weights average to {found.weight_mean:.4f}, {{value:.2f}} standard errors away from 1, less than {{limit:.0f}} "
        "needed: the propensities are not those of this log, or the target's probabilities do not sum to 1"
    )


def _gate(name: str, value: float, limit: float, passed: bool, says: str) -> Gate:
    """Return a gate; what to do about it, behind the colon of `says`, is left out where there is nothing to do."""
    said = says.format(value=value, limit=limit)
    return Gate(name=name, value=value, limit=limit, passed=passed, says=said.partition(": ")[0] if passed else said)


def _below(name: str, value: float, limit: float, says: str) -> Gate:
    return _gate(name, value, limit, value < limit, says)


def _at_least(name: str, value: float, limit: float, says: str) -> Gate:
    return _gate(name, value, limit, value >= limit, says)


def _none(name: str, count: int, says: str) -> Gate:
    return _gate(name, float(count), 0.0, count == 0, f"{count:,} {says}")
