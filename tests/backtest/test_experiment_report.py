"""backtest.experiment_report: verdicts and why, on users made by hand; and an A/A test that is looked at every day."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console

from backtest.experiment_users import HOLDOUT, ExperimentData, ExperimentUser
from contracts.errors import BadInput
from contracts.experiments import Experiment, Guardrail, Variant

pytest.importorskip("tea_tasting", reason="pip install 'pricetide[experiments]'")

from backtest.experiment_report import report_on
from backtest.experiment_tables import page_of

SPRING = Experiment(
    name="spring",
    number=2,
    variants=(
        Variant(name="plain", weight=0.5, policy="builtin"),
        Variant(name="bold", weight=0.5, policy="bold@1"),
    ),
    control="plain",
    holdout=0.1,
)


def arm(name, count, mean=100.0, seed=1, **more) -> list[ExperimentUser]:
    """Users of an arm, nine in ten of whom buy for `mean` on average."""
    random = np.random.default_rng(seed)
    spent = (random.gamma(4.0, mean / 4.0, count) * (random.random(count) < 0.9)).astype(int)
    return [
        ExperimentUser(name, 0, draws=2, purchases=int(one > 0), bought=int(one > 0), revenue=int(one), margin=int(one) // 2,
                       **more)
        for one in spent
    ]  # fmt: skip


def data(*arms, costs_known=True, last_ms=10, **more) -> ExperimentData:
    users = [one for group in arms for one in group]
    return ExperimentData(
        {str(number): one for number, one in enumerate(users)}, last_ms, costs_known, **more or {"withheld": 0}
    )


def fair(control=100.0, treatment=100.0, users=2_250, **more) -> ExperimentData:
    third = arm(HOLDOUT, users * 2 // 9, control, seed=3)
    return data(arm("plain", users, control, seed=1), arm("bold", users, treatment, seed=2), third, **more)


def test_a_clear_winner_is_to_be_promoted():
    report = report_on(SPRING, fair(treatment=130.0))
    assert (report.verdict, report.winner, report.policy) == ("promote", "bold", "bold@1")
    (lift,) = (one for one in report.lifts if one.against == "plain")
    assert lift.low < 0.3 < lift.high and lift.low > 0.0
    assert report.why == (f"bold has {lift.low:.1%} to {lift.high:.1%} more revenue than plain",)
    assert [one.users for one in report.arms] == [2_250, 2_250, 500]


def test_a_clear_loser_is_to_be_stopped():
    report = report_on(SPRING, fair(treatment=70.0))
    assert (report.verdict, report.winner) == ("stop", None)
    assert "less revenue than plain" in report.why[0]


def test_no_difference_goes_on_until_the_time_is_over():
    report = report_on(SPRING, fair())
    assert (report.verdict, report.why) == ("continue", ("no variant is shown to be better or worse than plain yet",))
    over = report_on(replace(SPRING, stop_ms=10), fair())
    assert (over.verdict, over.why) == ("stop", ("its time is over, and no variant is shown to be better",))
    early = report_on(replace(SPRING, stop_ms=10), fair(withheld=40))
    assert (early.verdict, early.why) == ("continue", ("its time is over, but not that of 40 users who came last",))


def test_few_users_make_no_claim():
    report = report_on(SPRING, fair(treatment=400.0, users=90))
    assert (report.verdict, report.winner) == ("continue", None)
    assert report.why == ("fewer than 100 users in plain, bold: no claim yet",)


def test_users_lost_in_one_arm_break_the_experiment_even_if_it_looks_good():
    report = report_on(SPRING, data(arm("plain", 2_500), arm("bold", 2_000, 150.0), arm(HOLDOUT, 500)))
    assert (report.verdict, report.winner) == ("broken", None)
    assert report.sample_ratio_p < 0.001
    assert "sample ratio" in report.why[0]


def test_users_in_several_arms_break_it():
    broken = fair()
    next(iter(broken.users.values())).arms = 2
    report = report_on(SPRING, broken)
    assert (report.verdict, report.why[0].split(":")[0]) == ("broken", "1 users were in several arms")
    assert sum(one.users for one in report.arms) == 4_999


def test_a_shop_that_charges_other_prices_breaks_it():
    other = fair()
    for one in other.users.values():
        one.mismatched = 2
    assert "does not charge the prices" in report_on(SPRING, other).why[0]


def test_a_breached_guardrail_stops_even_what_sells_more():
    watched = replace(SPRING, guardrails=(Guardrail(metric="consent", worse_by=0.05),))
    sour = fair(treatment=130.0)
    for number, one in enumerate(one for one in sour.users.values() if one.arm == "bold"):
        one.consent = number % 3 > 0
    report = report_on(watched, sour)
    (rail,) = report.guardrails
    assert rail.breached and rail.high < -0.05
    assert (report.verdict, report.winner) == ("stop", None)
    assert "less consent than plain at least; 5.0% is tolerated" in report.why[0]
    mild = fair(treatment=130.0)
    assert report_on(watched, mild).verdict == "promote"


def test_a_winner_whose_guardrail_nobody_can_watch_is_not_promoted():
    watched = replace(SPRING, guardrails=(Guardrail(metric="margin", worse_by=0.1),))
    loses_money = fair(treatment=130.0)
    for one in loses_money.users.values():
        one.margin = -one.revenue if one.arm == "bold" else one.margin
    for found in (loses_money, fair(treatment=130.0, costs_known=False)):
        report = report_on(watched, found)
        assert (report.verdict, report.winner) == ("continue", None)
        assert "margin of bold is not available, and nothing is promoted unwatched" in report.why[0]
    console = Console(width=160, record=True, file=StringIO())
    console.print(page_of(report))
    assert "holds" not in console.export_text()
    assert report_on(watched, fair(treatment=130.0)).verdict == "promote"


def test_a_margin_without_costs_is_not_available_and_no_verdict_is_made_of_it():
    report = report_on(replace(SPRING, metric="margin"), fair(treatment=200.0, costs_known=False))
    assert report.verdict == "continue"
    assert "margin is not available" in report.why[0]
    assert all(one.margin is None for one in report.arms)
    assert report_on(replace(SPRING, metric="margin"), fair(treatment=200.0)).verdict == "promote"


def test_an_arm_that_the_experiment_has_not_is_refused():
    with pytest.raises(BadInput, match="an arm 'brave' that spring@2 has not"):
        report_on(SPRING, data(arm("brave", 10)))


def test_of_two_winners_the_better_one_is_promoted_and_alpha_is_shared():
    three = replace(
        SPRING,
        holdout=0.0,
        variants=tuple(
            Variant(name=name, weight=weight, policy="builtin")
            for name, weight in (("plain", 0.4), ("bold", 0.3), ("brave", 0.3))
        ),
    )
    groups = arm("plain", 4_000, 100.0, 1), arm("bold", 3_000, 130.0, 2), arm("brave", 3_000, 160.0, 3)
    report = report_on(three, data(*groups))
    assert (report.verdict, report.winner) == ("promote", "brave")
    alone = report_on(replace(SPRING, holdout=0.0), data(arm("plain", 3_000, 100.0, 1), arm("bold", 3_000, 130.0, 2)))
    assert report.lifts[0].high - report.lifts[0].low != alone.lifts[0].high - alone.lifts[0].low


def test_every_treatment_has_its_share_of_alpha():
    plain, bold, brave = (
        arm(name, 2_000, mean, n) for n, (name, mean) in enumerate((("plain", 100), ("bold", 110), ("brave", 90)))
    )
    thirds = tuple(Variant(name=name, weight=1 / 3, policy="builtin") for name in ("plain", "bold", "brave"))
    three = replace(SPRING, holdout=0.0, alpha=0.1, variants=thirds)
    two = replace(SPRING, holdout=0.0, alpha=0.05)
    among, alone = report_on(three, data(plain, bold, brave)).lifts[0], report_on(two, data(plain, bold)).lifts[0]
    assert (among.arm, among.low, among.high) == (alone.arm, pytest.approx(alone.low), pytest.approx(alone.high))


def test_the_page_says_everything_that_a_person_needs():
    watched = replace(SPRING, guardrails=(Guardrail(metric="conversion", worse_by=0.02),))
    console = Console(width=160, record=True, file=StringIO())
    console.print(page_of(report_on(watched, fair(treatment=130.0))))
    page = console.export_text()
    for word in ("promote", "bold@1", "holdout", "confidence sequence, 95%", "holds", "as assigned", "revenue / user"):
        assert word in page


def test_an_a_a_test_that_is_looked_at_every_day_claims_something_in_fewer_cases_than_alpha():
    claims = 0
    seeds, alpha = 60, 0.1
    same = replace(SPRING, alpha=alpha, holdout=0.0, tightest_at=1_000)
    for seed in range(seeds):
        plain, bold = arm("plain", 1_500, seed=2 * seed), arm("bold", 1_500, seed=2 * seed + 1)
        verdicts = [report_on(same, data(plain[:n], bold[:n])).verdict for n in (150, 300, 500, 800, 1_100, 1_500)]
        claims += any(one in ("promote", "stop") for one in verdicts)
    assert claims / seeds <= alpha
