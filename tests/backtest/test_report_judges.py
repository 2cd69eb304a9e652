"""What a report judges by: draws that were seen and may be learned from, and models and prices chosen on other users' draws."""

from __future__ import annotations

from itertools import chain

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from backtest.estimates import Settings
from backtest.report.divisions import Divisions
from backtest.report.figures import Figures
from backtest.report.parts import describe_parts
from backtest.report.reward_model import expected_rewards
from backtest.report.study import Ask, files_of, write_report
from backtest.report.targets import best_uniform, fixed_price, folds_of, list_price
from backtest.report.values import Judged, describe_value
from backtest.what_if import Wanted
from contracts.log import open_log
from contracts.outcomes import Outcome, decode_outcome
from tests.backtest.recorded_shop import UNIFORM, published_outcomes, recorded_shop, rewritten
from tests.backtest.test_report_parts import draws_like

replace = msgspec.structs.replace


def draws_of(directory):
    """Return the outcomes of draws, by id."""
    found = [decode_outcome(row.record) for row in published_outcomes(directory)]
    return {one.draw_id: one for one in found if isinstance(one, Outcome)}


@pytest.fixture(scope="module")
def half_seen(tmp_path_factory):
    """A log of whose draws some are named by their user's next event; and one user in five looks at prices that cannot be."""
    folder = tmp_path_factory.mktemp("half_seen")
    log = recorded_shop(folder, policy=replace(UNIFORM, seed=8), users=60, events=900, partitions=2)
    waiting: dict[str, list[Outcome]] = {}
    for one in sorted(draws_of(log).values(), key=lambda one: one.drawn_ms):
        waiting.setdefault(one.user, []).append(one)
    rows = []
    for number, row in enumerate(open_log(log).rows()):
        of_user = waiting.get(row.user or "", [])
        before = [one for one in of_user if one.drawn_ms < (row.event_time_ms or 0) < one.resolved_ms]
        if row.type in ("view", "click"):
            row = replace(row, decision_id=before[-1].draw_id if before else None)
            if number % 5 == 0:
                row = replace(row, price=1)
        rows.append(row)
    stated = rewritten(log, folder / "stated", rows=rows, exposure="ids")
    return rewritten(stated, folder / "recorded", exposure="ids", outcomes=published_outcomes(stated))


def test_a_report_judges_draws_that_were_seen_and_may_be_learned_from_and_counts_the_others(half_seen, tmp_path):
    (tmp_path / "same.toml").write_text('name = "same"\nrule = { kind = "uniform" }\n')
    page = tmp_path / "out.html"
    figures = write_report(Ask(Wanted(directory=half_seen), [tmp_path / "same.toml"], Settings(resamples=100)), page)
    draws = draws_of(half_seen).values()
    seen = [one for one in draws if one.exposed]
    judged = [one for one in seen if one.learnable or one.forced]
    assert 0 < len(judged) < len(seen) < len(draws), "the log has some of every kind"
    table = pq.read_table(files_of(page).draws)
    assert table.num_rows == len(judged)
    assert sorted(table["time_ms"].to_pylist()) == sorted(one.drawn_ms for one in judged)
    counts = {
        row.measure: row.value for row in chain(figures) if row.section == "log" and row.measure.startswith("draws")
    }
    assert counts["draws that no user saw"] == len(draws) - len(seen)
    assert counts["draws seen, of which nothing may be learned"] == len(seen) - len(judged)


def test_the_best_uniform_price_of_a_user_is_not_chosen_on_that_users_draws():
    draws = draws_like(4_000, seed=1)
    lucky = folds_of(draws.user) == 0
    reward = np.where(lucky & (draws.price == 800), 10_000.0, draws.margin)
    before, after = best_uniform(draws, draws.margin), best_uniform(draws, reward)
    assert np.array_equal(after.probability[lucky], before.probability[lucky])
    assert not np.array_equal(after.probability[~lucky], before.probability[~lucky])


@pytest.mark.parametrize(("count", "forced"), [(120, False), (2_000, True)])
def test_a_log_with_too_few_draws_at_every_share_of_list_price_tells_no_best_uniform_price(count, forced):
    draws = draws_like(count, seed=1)
    draws.forced[:] = forced
    assert best_uniform(draws, draws.margin) is None


def test_a_report_without_a_best_uniform_price_says_so_and_has_no_row_and_no_column_of_it(half_seen, tmp_path):
    figures = write_report(Ask(Wanted(directory=half_seen), settings=Settings(resamples=50)), tmp_path / "out.html")
    table = files_of(tmp_path / "out.html").draws
    ((_, missing),) = figures.where("targets", measure="missing")
    assert missing.text.startswith("This log cannot tell a best uniform price")
    page = (tmp_path / "out.html").read_text()
    assert missing.text in page
    assert page.count("best uniform") == 1
    assert not [row for row in chain(figures) if "best uniform" in row.measure + row.policy]
    assert not [name for name in pq.read_schema(table).names if "best uniform" in name]


def rarely_at_list(count, share):
    """Draws at 80 or 90 % of list, each as likely, but for the `share` of them that are at list price."""
    draws = draws_like(count, seed=1, better=1_000)
    random = np.random.default_rng(2)
    at_list = random.random(count) < share
    draws.price[:] = np.where(at_list, 1_000, random.choice((800, 900), count))
    draws.propensity[:] = np.where(at_list, share, (1.0 - share) / 2.0)
    draws.quantity[:] = random.random(count) < 0.3
    return draws


@pytest.mark.parametrize(("share", "carried"), [(0.004, False), (0.3, True)])
def test_a_lift_over_a_price_that_fails_its_gates_has_no_number_in_the_log_and_in_its_parts(share, carried):
    draws = rarely_at_list(4_000, share)
    judged = Judged(draws, "margin", draws.margin, 1, None, None, False, Settings(resamples=100))
    figures, against = Figures(), [list_price(draws)]
    target = fixed_price(draws, np.full(len(draws), 900), "deep")
    assert describe_value(figures, judged, target, against).verdict != "REFUSE"
    divisions = Divisions(categories={}, price_edges=np.empty(0, np.int64), minor=1, step_ms=2_000)
    describe_parts(figures, judged, target, against, divisions)
    places = [
        ("value", "lift over list price"),
        ("value", "relative lift over list price"),
        ("parts", "lift over list price"),
    ]
    for section, measure in places:
        found = [row for _, row in figures.where(section, policy="deep", measure=measure)]
        assert found
        for row in found:
            assert (row.value is not None) == carried, row
            assert row.text == ("" if carried else "the log cannot support it")
    assert all(row.value is not None for _, row in figures.where("value", measure="lift over logged policy"))


def test_a_price_that_policies_are_held_against_keeps_its_gates_and_is_marked_where_they_fail(half_seen, tmp_path):
    figures = write_report(Ask(Wanted(directory=half_seen), settings=Settings(resamples=50)), tmp_path / "out.html")
    failed = [row.group for _, row in figures.where("gates", policy="list price", measure="passed") if not row.value]
    assert "ess" in failed, "the log is small"
    ((_, why),) = figures.where("targets", policy="list price", measure="refused")
    assert all(f"{gate}: " in why.text for gate in failed)
    assert not figures.where("verdict", policy="list price"), "nobody asked"
    page = (tmp_path / "out.html").read_text()
    assert page.count("list price (REFUSE: no evidence)") == 2, "in the table of each interval"
    assert f"<p>list price: the log cannot support it ({why.text}).</p>" in page


def test_the_expected_reward_of_a_draw_is_by_a_model_that_saw_no_draw_of_its_user():
    draws = draws_like(2_000, seed=2)
    draws.quantity[:] = np.random.default_rng(3).random(2_000) < 0.4
    divisions = Divisions(categories={}, price_edges=np.empty(0, np.int64), minor=1, step_ms=1_000)
    before = expected_rewards(draws, divisions, "revenue", [list_price(draws)])
    others = folds_of(draws.user) == 0
    draws.quantity[others] = 1
    after = expected_rewards(draws, divisions, "revenue", [list_price(draws)])
    for was, now in ((before.of_drawn, after.of_drawn), (before.under["list price"], after.under["list price"])):
        assert np.array_equal(now[others], was[others])
        assert (now[~others] > was[~others]).all()
