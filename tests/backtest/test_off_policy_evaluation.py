"""backtest.evaluation: what a verdict rests on, and logs that support none."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console

from backtest.estimates import Settings
from backtest.evaluation import evaluate, lift_over
from backtest.evaluation_page import page_of
from backtest.feedback import feedback_of
from backtest.gates import gates_of, tail_aside
from backtest.report import values
from backtest.report.blocks import cell_of
from backtest.report.figures import Figures
from contracts.errors import BadInput

FEW = Settings(resamples=200)


def draws(n=4_000, rates=(0.1, 0.3), target=(0.1, 0.9), logged=(0.5, 0.5), seed=1, **more):
    """Draws of a fixed policy between two actions, and what a target gives to the drawn one."""
    random = np.random.default_rng(seed)
    arm = (random.random(n) < logged[1]).astype(int)
    reward = (random.random(n) < np.array(rates)[arm]).astype(float)
    return feedback_of(reward, np.array(logged)[arm], np.array(target)[arm], **more)


def changed(feedback, **columns):
    own = {name: getattr(feedback, name) for name in ("reward", "propensity", "target")}
    return feedback_of(**(own | columns))


def failed(found):
    return {gate.name for gate in found.gates if not gate.passed}


def test_a_better_target_is_worth_an_ab_test_and_a_worse_one_is_rejected():
    assert evaluate(draws(target=(0.1, 0.9)), FEW).verdict == "ADOPT_TO_AB"
    assert evaluate(draws(target=(0.9, 0.1)), FEW).verdict == "REJECT"
    assert evaluate(draws(n=1_500, rates=(0.2, 0.2)), FEW).verdict == "INCONCLUSIVE"


def test_the_logged_policy_itself_has_no_lift_and_no_verdict_but_inconclusive():
    found = evaluate(draws(target=(0.5, 0.5)), FEW)
    assert found.verdict == "INCONCLUSIVE"
    assert (found.lift.value, found.lift.error) == (0.0, 0.0)
    assert "the same at every draw" in found.why[0]


@pytest.mark.parametrize("adaptive", [False, True])
def test_what_rounding_makes_of_equal_rewards_or_equal_policies_is_no_lift(adaptive):
    for seed in range(50):
        log = draws(n=1_500, target=(0.3, 0.7), logged=(0.4, 0.6), seed=seed, adaptive=adaptive)
        dear = changed(log, reward=np.full(len(log), 19.99), adaptive=adaptive)
        same = changed(log, target=log.propensity * (1.0 + 1e-15 * log.reward), adaptive=adaptive)
        assert {evaluate(one, FEW).verdict for one in (dear, same)} == {"INCONCLUSIVE"}, seed


def one_heavy_weight(feedback):
    propensity = feedback.propensity.copy()
    propensity[7] = 1e-5
    return changed(feedback, propensity=propensity)


def one_heavy_reward(feedback):
    reward = feedback.reward.copy()
    reward[7] = 1_000.0
    return changed(feedback, reward=reward)


DEGENERATE = {
    "one weight carries most of the mass": (one_heavy_weight, "largest weight"),
    "one reward carries most of the value": (one_heavy_reward, "largest reward"),
    "no overlap": (lambda log: changed(log, target=np.zeros(len(log))), "ess"),
    "hardly any overlap": (lambda log: changed(log, target=np.where(np.arange(len(log)) < 40, 1.0, 0.0)), "ess"),
    "propensities of another log": (lambda log: changed(log, propensity=np.full(len(log), 0.4)), "mean weight"),
    "targets that do not sum to 1": (lambda log: changed(log, target=log.target * 0.8), "mean weight"),
    "rows without a propensity": (lambda log: changed(log, unknown=3), "unknown propensities"),
    "decisions that come twice": (lambda log: changed(log, duplicated=1), "duplicated decisions"),
    "propensities that cannot be recomputed": (
        lambda log: changed(log, recomputed=log.propensity + 1e-3), "recomputed propensities",
    ),
    "a target beyond the log's prices": (
        lambda log: changed(log, unsupported=np.full(len(log), 0.02)), "unsupported target",
    ),
    "nothing was ever earned": (lambda log: changed(log, reward=np.zeros(len(log))), "largest reward"),
    "a log that its reader refuses": (lambda log: changed(log, refusal="offers: not_shown"), "log"),
    "three users": (lambda log: changed(log, users=np.arange(len(log)) % 3), "users"),
    "only forced draws": (lambda log: changed(log, forced=np.ones(len(log), bool)), "draws"),
    "no draw at all": (lambda _: feedback_of(np.empty(0), np.empty(0), np.empty(0), unknown=5), "draws"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "gate"), DEGENERATE.values(), ids=DEGENERATE)
def test_a_log_that_supports_no_answer_is_refused_and_the_gate_says_why(spoil, gate):
    found = evaluate(spoil(draws()), FEW)
    assert found.verdict == "REFUSE"
    assert gate in failed(found)
    assert any(gate in why or gate in ("draws", "log") for why in found.why)


def test_of_a_log_that_its_reader_refuses_no_value_and_no_lift_is_given():
    found = evaluate(changed(draws(), refusal="nobody saw these prices"), FEW)
    assert (found.verdict, found.why) == ("REFUSE", ("nobody saw these prices",))
    assert (found.logged, found.estimates, found.lift, found.diagnostics) == (None, (), None, None)


LIMITS = {
    "ess": ("ess", 500.0, 499.9), "ess share": ("ess_share", 0.01, 0.0099), "mean weight": ("weight_z", 2.99, 3.0),
    "mean weight below 1": ("weight_z", -2.99, -3.0), "largest weight": ("weight_share", 0.0499, 0.05),
    "largest reward": ("reward_share", 0.199, 0.2), "unsupported target": ("unsupported", 0.0099, 0.01),
    "pareto k": ("pareto_k", 0.699, 0.7), "recomputed propensities": ("recomputed_gap", 9e-10, 1e-9),
    "users": ("users", 30, 29), "unknown propensities": ("unknown", 0, 1), "duplicated decisions": ("duplicated", 0, 1),
}  # fmt: skip
"""As docs/evaluation.md has them: gate, field, what just passes, what just fails."""


@pytest.mark.parametrize(("gate", "case"), LIMITS.items(), ids=LIMITS)
def test_a_gate_closes_at_its_limit_and_no_other_with_it(gate, case):
    field, passes, fails = case
    good = replace(evaluate(draws(), FEW).diagnostics, weight_max=10.1)
    assert not [one.name for one in gates_of(replace(good, **{field: passes}), "bootstrap") if not one.passed]
    closed = [one.name for one in gates_of(replace(good, **{field: fails}), "bootstrap") if not one.passed]
    assert closed == [gate.removesuffix(" below 1")]


def test_where_nothing_was_earned_the_reason_is_not_that_one_draw_earned_it_all():
    log = draws()
    for spoiled in (changed(log, reward=np.zeros(len(log))), changed(log, target=np.zeros(len(log)))):
        assert any("has earned anything" in why for why in evaluate(spoiled, FEW).why)


def test_a_mean_weight_may_move_as_people_do_who_have_one_price_at_every_draw():
    """A tenth of people is held out by lot; here 16 of a hundred are, and each has forty draws."""
    users = np.repeat(np.arange(100), 40)
    coin = np.random.default_rng(2).random(len(users)) < 0.5
    low = (users >= 16) & coin
    log = feedback_of(coin.astype(float), np.where(low, 0.45, 0.55), np.where(low, 0.2, 0.8), users=users)
    assert "mean weight" not in failed(evaluate(log, FEW))
    assert "mean weight" in failed(evaluate(changed(log), FEW)), "by draws alone it is three errors from 1"
    assert "mean weight" in failed(evaluate(changed(log, target=0.8 * log.target, users=users), FEW))


def test_where_no_weight_is_ten_times_the_mean_there_is_no_tail_whose_shape_could_matter():
    """Nearly always one in two; seldom less, down to one in eight: the effective sample is 98 % of the draws."""
    random = np.random.default_rng(2)
    weight = 1.0 + np.minimum(0.01 / random.random(6_000), 3.0)
    first = random.random(6_000) < 0.5 / weight
    propensity = np.where(first, 0.5 / weight, 1.0 - 0.5 / weight)
    log = feedback_of((random.random(6_000) < 0.2).astype(float), propensity, np.full(6_000, 0.5))
    found = evaluate(log, FEW)
    assert found.diagnostics.pareto_k > 0.7
    assert found.diagnostics.weight_max == pytest.approx(4.0)
    assert (found.verdict, failed(found)) == ("INCONCLUSIVE", set()), found.why
    aside = "not judged: no weight above 10 times the mean"
    assert tail_aside(found.diagnostics) == aside
    with (console := Console(width=160)).capture() as printed:
        console.print(page_of(found))
    assert f"{found.diagnostics.pareto_k:.3f}, {aside}" in printed.get()
    figures = Figures()
    values.describe_diagnostics(figures, "p", found)
    shown = cell_of(figures, "diagnostics", measure="Pareto k of the weights")
    assert (float(shown.text), shown.remark) == (pytest.approx(found.diagnostics.pareto_k, abs=0.01), aside)


def test_a_tail_too_heavy_for_any_log_is_refused():
    random = np.random.default_rng(3)
    propensity = random.random(20_000) ** 6  # so that weights above x have a share of about x ** (-7 / 6)
    chosen = random.random(20_000) < propensity
    log = feedback_of(np.ones(20_000), np.where(chosen, propensity, 1 - propensity + 1e-12), chosen.astype(float))
    assert "pareto k" in failed(evaluate(log, FEW))


def test_forced_draws_are_counted_and_change_nothing_else():
    log = draws(n=2_000)
    both = feedback_of(
        *(np.concatenate([getattr(log, name), np.full(500, value)]) for name, value in
          (("reward", 9.0), ("propensity", 1.0), ("target", 1.0))),
        forced=np.arange(2_500) >= 2_000,
    )  # fmt: skip
    with_forced, without = evaluate(both, FEW), evaluate(log, FEW)
    assert with_forced.diagnostics.forced_share == pytest.approx(0.2)
    assert (with_forced.lift, with_forced.estimates) == (without.lift, without.estimates)


def test_equal_feedback_gives_equal_results():
    assert evaluate(draws(), FEW) == evaluate(draws(), FEW)


def test_a_log_whose_policy_learned_is_judged_by_the_anytime_valid_interval_and_so_is_one_that_grows():
    assert evaluate(draws(), FEW).judged_by == "bootstrap"
    assert evaluate(draws(adaptive=True), FEW).judged_by == "anytime"
    assert evaluate(draws(), Settings(resamples=200, planned=8_000)).judged_by == "anytime"


def test_a_look_halfway_is_wider_than_the_planned_one():
    log = draws(adaptive=True)
    early = evaluate(log, Settings(resamples=200, planned=16_000)).lift.anytime
    planned = evaluate(log, Settings(resamples=200, planned=4_000)).lift.anytime
    assert early.high - early.low == pytest.approx(2.0 * (planned.high - planned.low))


def some_look_misses(planned, logs=120, n=1_000, looks=10):
    """Return the share of logs of two equal actions in which some look excludes the true lift, 0, at alpha 10 %."""
    missed = 0
    for seed in range(logs):
        log = draws(n=n, rates=(0.2, 0.2), target=(0.0, 1.0), seed=seed, adaptive=True)
        seen = [log.where(np.arange(n) < n * look // looks) for look in range(1, looks + 1)]
        settings = Settings(alpha=0.1, resamples=2, planned=planned)
        intervals = [lift_over(part, part.propensity, settings).anytime for part in seen]
        missed += any(one.low > 0.0 or one.high < 0.0 for one in intervals)
    return missed / logs


def test_a_plan_makes_all_looks_together_miss_no_more_often_than_alpha_and_without_one_there_is_one_look():
    assert some_look_misses(planned=1_000) <= 0.1
    assert some_look_misses(planned=None) > 0.12, "an interval for one look misleads whoever looks ten times"


def test_what_is_said_of_the_anytime_valid_interval_depends_on_the_plan():
    log, console = draws(adaptive=True), Console(width=200, record=True)
    for planned in (None, 8_000):
        console.print(page_of(evaluate(log, Settings(resamples=100, planned=planned))))
    said = console.export_text()
    assert said.count("the anytime-valid interval holds for a log of this length that is judged once") == 1
    assert said.count("holds at every look at a log that grows, also where its policy learned") == 1
    assert "tightest at the 8,000 draws planned" in said


def test_an_earlier_draw_decides_no_interval_that_a_later_reward_changes():
    """The anytime-valid interval takes off what was earned before a draw, never after it: the first half stays as it was."""
    log = draws(adaptive=True)
    later = log.reward.copy()
    later[2_000:] = 1.0
    half = np.arange(len(log)) < 2_000
    settings = Settings(resamples=200, planned=4_000)
    spoiled = feedback_of(later, log.propensity, log.target, adaptive=True)
    assert evaluate(spoiled.where(half), settings).lift == evaluate(log.where(half), settings).lift


def test_draws_of_one_user_that_repeat_each_other_count_once():
    log = draws(n=1_000)
    copies = {name: np.repeat(getattr(log, name), 4) for name in ("reward", "propensity", "target")}
    together = evaluate(feedback_of(**copies, users=np.arange(4_000) // 4), FEW)
    alone, apart = evaluate(log, FEW), evaluate(feedback_of(**copies), FEW)
    assert together.lift.error == pytest.approx(alone.lift.error)
    assert apart.lift.error == pytest.approx(alone.lift.error / 2.0)
    width = [one.lift.bootstrap.high - one.lift.bootstrap.low for one in (together, alone, apart)]
    assert width[0] == pytest.approx(width[1], rel=0.2)
    assert width[2] < 0.7 * width[1]


def test_the_anytime_valid_interval_is_no_narrower_than_users_whose_draws_repeat_each_other_allow():
    log = draws(n=1_000)
    copies = {name: np.repeat(getattr(log, name), 4) for name in ("reward", "propensity", "target")}
    together = evaluate(feedback_of(**copies, users=np.arange(4_000) // 4, adaptive=True), FEW)
    alone, apart = evaluate(changed(log, adaptive=True), FEW), evaluate(feedback_of(**copies, adaptive=True), FEW)
    for of in (lambda found: found.lift, lambda found: found.estimates[0], lambda found: found.estimates[1]):
        width = [of(one).anytime.high - of(one).anytime.low for one in (together, alone, apart)]
        assert width[0] == pytest.approx(width[1], rel=0.01)
        assert width[2] == pytest.approx(width[1] / 2.0, rel=0.01)


def test_a_constant_reward_is_no_news_to_a_self_normalised_estimate():
    log = draws()
    found = evaluate(changed(log, reward=np.full(len(log), 2.0)), FEW)
    values = {one.name: one for one in found.estimates}
    assert values["snips"].value == pytest.approx(2.0)
    assert values["snips"].error == pytest.approx(0.0, abs=1e-12)
    assert values["ips"].error > 0.01
    assert found.verdict == "INCONCLUSIVE"


def test_the_lift_over_a_third_policy_is_the_difference_of_two_self_normalised_estimates():
    log = draws()
    other = np.where(log.target > 0.5, 0.3, 0.7)
    lift = lift_over(log, other, FEW)
    weights = log.target / log.propensity, other / log.propensity
    values = [(w * log.reward).sum() / w.sum() for w in weights]
    assert lift.value == pytest.approx(values[0] - values[1])
    assert lift.relative == pytest.approx(lift.value / values[1])
    assert lift.bootstrap.low < lift.value < lift.bootstrap.high
    assert lift_over(log, log.propensity, FEW) == evaluate(log, FEW).lift
    assert lift_over(log, np.zeros(len(log)), FEW) is None


BAD = {
    "another length": ({"target": np.ones(3)}, r"target has the shape \(3,\)"),
    "no number": ({"reward": np.array([0.0, np.nan])}, "reward of draw 1 is nan"),
    "a reward whose squares have no size": ({"reward": np.array([0.0, -1e120])}, "reward of draw 1 is -1e[+]120, beyond 1e[+]60"),
    "a propensity of zero": ({"propensity": np.array([0.5, 0.0])}, r"propensity of draw 1 is 0, outside of \(0, 1\]"),
    "a propensity above one": ({"propensity": np.array([1.5, 0.5])}, "propensity of draw 0 is 1.5"),
    "a negative target": ({"target": np.array([0.5, -0.1])}, "target of draw 1 is -0.1"),
    "time that runs backwards": ({"times_ms": np.array([5, 4])}, "draw 1 is earlier than the one before"),
    "half a model": ({"expected_logged": np.zeros(2)}, "come together"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "says"), BAD.values(), ids=BAD)
def test_feedback_that_cannot_be_true_is_refused_with_its_draw(columns, says):
    good = {"reward": np.zeros(2), "propensity": np.full(2, 0.5), "target": np.full(2, 0.5)}
    with pytest.raises(BadInput, match=says):
        feedback_of(**(good | columns))
