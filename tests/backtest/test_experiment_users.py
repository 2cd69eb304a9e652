"""From a log with an experiment to its users and its report, as a data scientist goes: replay, files, command."""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from backtest.experiment_commands import experiment_of, report
from backtest.experiment_users import HOLDOUT, ExperimentData, read_users
from backtest.run import run_backtest
from contracts.errors import BadInput
from contracts.log import open_log
from pricing.assignment import Lots
from tests.backtest.experiment_shop import SPRING, START_MS, write_experiment


class Ran(NamedTuple):
    """A log and what its backtest wrote."""

    log: object
    decisions: object
    outcomes: object

    def words(self, name: str = "spring") -> list[str]:
        return [name, "--log", str(self.log), "--decisions", str(self.decisions), "--outcomes", str(self.outcomes)]

    def users(self, horizon_ms=None, window_ms=0) -> ExperimentData:
        return read_users("spring", self.decisions, self.outcomes, horizon_ms, window_ms)


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("experiment")
    write_experiment(folder / "log", users=900, seed=3)
    files = folder / "decisions.parquet", folder / "outcomes.parquet"
    run_backtest(folder / "log", decisions=files[0], outcomes=files[1])
    return Ran(folder / "log", *files)


def test_every_user_is_in_the_arm_of_the_hash(ran):
    lots = Lots()
    lots.use((SPRING,))
    found = ran.users()
    assert len(found.users) == 900
    for name, one in found.users.items():
        lot = lots.of(name)
        assert one.arm == (HOLDOUT if lot.held_out else SPRING.variants[lot.variant].name)
        assert one.arms == 1
        assert one.first_ms >= SPRING.start_ms


def test_what_users_bought_is_summed_from_the_log_itself(ran):
    """An independent pass over the purchases of the log: before the first draw the covariate, after it the revenue."""
    found = ran.users()
    before, after, count = Counter(), Counter(), Counter()
    for row in open_log(ran.log).rows():
        if row.type == "purchase":
            first_ms = found.users[row.user].first_ms
            (before if row.event_time_ms < first_ms else after)[row.user] += row.price
            count[row.user] += row.event_time_ms >= first_ms
    assert sum(after.values()) > 0 and sum(before.values()) > 0
    for name, one in found.users.items():
        assert (one.before, one.revenue, one.purchases) == (before[name], after[name], count[name])
        assert one.bought + one.mismatched <= one.purchases
    assert found.costs_known
    assert all(one.margin < one.revenue for one in found.users.values() if one.revenue)


def test_only_users_whose_horizon_is_over_count_and_only_what_happened_in_it(ran):
    day = ran.users(horizon_ms=86_400_000)
    everything = ran.users()
    assert 0 < day.withheld < 900
    assert len(day.users) == 900 - day.withheld
    assert all(one.first_ms + 86_400_000 <= day.last_ms for one in day.users.values())
    assert all(one.revenue <= everything.users[name].revenue for name, one in day.users.items())
    assert sum(one.revenue for one in day.users.values()) < sum(one.revenue for one in everything.users.values())


def test_who_counts_at_one_look_is_worth_the_same_at_every_later_one(ran, tmp_path):
    """A look in the middle: what was decided and what had resolved by then. Some purchases of a horizon resolve after it."""
    horizon, window = 1_200_000, open_log(ran.log).manifest.semantics.outcome_window_ms
    everything = ran.users(horizon, window).users
    firsts = sorted(one.first_ms for one in everything.values())
    hasty = 0
    for look in firsts[300:700:150]:
        early = [tmp_path / path.name for path in (ran.decisions, ran.outcomes)]
        for path, target in zip((ran.decisions, ran.outcomes), early, strict=True):
            table = pq.read_table(path)
            rows = [json.loads(record) for record in table["record"].to_pylist()]
            known = [row.get("resolved_ms", row.get("event_time_ms", 0)) <= look for row in rows]
            pq.write_table(table.filter(pa.array(known)), target)
        seen = read_users("spring", *early, horizon, window).users
        assert len(seen) > 100
        assert all(one.revenue == everything[user].revenue for user, one in seen.items())
        too_early = read_users("spring", *early, horizon).users
        hasty += sum(one.revenue < everything[user].revenue for user, one in too_early.items() if user in everything)
    assert hasty > 0


def test_a_user_of_a_partition_that_lags_counts_when_that_partition_has_got_so_far(ran, tmp_path):
    """A look at which every third user's partition is behind: known is what was decided and had resolved by its own time."""
    horizon, window, lag = 1_200_000, open_log(ran.log).manifest.semantics.outcome_window_ms, 1_500_000
    everything = ran.users(horizon, window).users
    late = set(sorted(everything)[::3])
    look = sorted(one.first_ms for one in everything.values())[700]
    early = [tmp_path / path.name for path in (ran.decisions, ran.outcomes)]
    for path, target in zip((ran.decisions, ran.outcomes), early, strict=True):
        known = []
        for record in pq.read_table(path)["record"].to_pylist():
            row = json.loads(record)
            if row.get("resolved_ms", row.get("event_time_ms", 0)) <= look - lag * (row["user"] in late):
                if "source" in row:
                    row["source"][1] = int(row["user"] in late)
                known.append({"kind": row["record"], "record": json.dumps(row).encode()})
        pq.write_table(pa.Table.from_pylist(known), target)
    seen = read_users("spring", *early, horizon, window).users
    assert late & seen.keys() and seen.keys() - late
    assert all(one.revenue == everything[user].revenue for user, one in seen.items())
    assert all(one.first_ms + horizon + window <= look - lag for user, one in seen.items() if user in late)


def test_nobody_in_the_experiment_is_a_sentence(ran):
    with pytest.raises(BadInput, match="no draw of an experiment summer"):
        read_users("summer", ran.decisions, ran.outcomes)
    with pytest.raises(BadInput, match="has no experiment summer; it has spring"):
        experiment_of(ran.log, "summer")
    with pytest.raises(BadInput, match="is no Parquet file"):
        read_users("spring", ran.log / "manifest.json", ran.outcomes)
    assert experiment_of(ran.log, "spring") == SPRING


def test_the_backtest_shows_the_prices_that_the_shoppers_saw(ran):
    one = ran.users()
    bought = sum(user.bought for user in one.users.values())
    mismatched = sum(user.mismatched for user in one.users.values())
    assert bought > 100
    assert mismatched < 0.02 * bought  # offers of one item that replaced each other between view and purchase


def said(*words: str) -> str:
    result = CliRunner().invoke(report, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_report_is_a_page_for_people_and_json_for_programs(ran):
    pytest.importorskip("tea_tasting", reason="pip install 'pricetide[experiments]'")
    page = said(*ran.words())
    assert "arms" in page and "holdout" in page and "sample ratio: as assigned" in page
    found = json.loads(said(*ran.words(), "--json"))
    assert sum(one["users"] for one in found["arms"]) == 900
    assert {(one["arm"], one["against"]) for one in found["lifts"]} == {
        ("deal", "plain"),
        ("plain", "holdout"),
        ("deal", "holdout"),
    }


def test_cheaper_prices_sell_more_and_the_report_finds_it(tmp_path):
    pytest.importorskip("tea_tasting", reason="pip install 'pricetide[experiments]'")
    steep = replace(SPRING, guardrails=(), tightest_at=1_000, holdout=0.05)
    write_experiment(tmp_path / "log", users=1_600, seed=4, experiment=steep, slope=14.0)
    files = tmp_path / "decisions.parquet", tmp_path / "outcomes.parquet"
    run_backtest(tmp_path / "log", decisions=files[0], outcomes=files[1])
    found = json.loads(said(*Ran(tmp_path / "log", *files).words(), "--json"))
    assert (found["verdict"], found["winner"], found["policy"]) == ("promote", "deal", "deal@1")
    assert found["lifts"][0]["cuped"] > 0.0


def test_a_report_that_may_act_promotes_by_the_command_beside_it(ran, monkeypatch):
    pytest.importorskip("tea_tasting", reason="pip install 'pricetide[experiments]'")
    import click

    from backtest import experiment_report

    asked = []
    group = click.Group("experiment", {"report": report})

    @group.command("promote")
    @click.argument("name")
    @click.option("--variant")
    @click.option("--config")
    def promote(name, variant, config):
        asked.append((name, variant, config))

    real = experiment_report.report_on

    def won(experiment, data):
        return replace(real(experiment, data), verdict="promote", winner="deal", promote=experiment.promote)

    monkeypatch.setattr(experiment_report, "report_on", won)
    assert SPRING.promote == "when_better"
    result = CliRunner().invoke(
        group, ["report", *ran.words(), "--act", "--config", "live.toml"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert asked == [("spring", "deal", "live.toml")]
    assert SPRING.start_ms > START_MS

    monkeypatch.setattr(experiment_report, "report_on", lambda *given: replace(won(*given), promote="by_hand"))
    by_hand = CliRunner().invoke(group, ["report", *ran.words(), "--act"], catch_exceptions=False)
    assert "pricetide experiment promote spring --variant deal" in by_hand.stderr
    assert len(asked) == 1
