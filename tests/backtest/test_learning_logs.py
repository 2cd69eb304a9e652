"""Logs of policies that learn: when draws depend on earlier rewards, what a target knew, and that both doors judge alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pytest
from click.testing import CliRunner

from backtest.estimates import Settings
from backtest.evaluate_commands import evaluate
from backtest.habits import MADE_UP
from backtest.learning import known_by, moved
from backtest.report.figures import Figures
from backtest.report.page import page_of
from backtest.report.study import Ask, write_report
from backtest.report.targets import BEST_UNIFORM
from backtest.shop_run import Files, run_shop
from backtest.street import street
from backtest.what_if import Wanted
from contracts.policies import Policy, Rails, UniformRandom
from contracts.rules import Features, Thompson

RULE = Thompson(explore=0.5, features=Features(names=("intent", "price")))
LEARNS = Policy(name="learns", number=1, seed=3, rule=RULE)
RESAMPLES = 200
TOML = {
    "learns": 'name = "learns"\nseed = 3\n[rule]\nkind = "thompson"\nexplore = 0.5\nfeatures.names = ["intent", "price"]\n',
    "fresh": 'name = "fresh"\nseed = 3\n[rule]\nkind = "thompson"\nexplore = 0.5\nfeatures.names = ["intent", "price"]\n',
    "dear": 'name = "dear"\nrule = { kind = "list_price" }\n',
}


@pytest.mark.parametrize(
    ("draws", "adaptive"),
    [
        ([("plain@1", None), ("plain@1", None)], False),
        ([("learns@1", "d1"), ("learns@1", "d1")], False),  # it had learned before, or learned nothing here
        ([("learns@1", "d1"), ("learns@1", "d2")], True),
        ([("learns@1", "d1"), ("other@1", "d2")], False),  # somebody put another policy in its place
        ([("plain@1", None), ("learns@1", "d1"), ("learns@1", "d2")], True),  # as in an experiment
        ([], False),
    ],
)
def test_draws_depend_on_earlier_rewards_where_a_policy_drew_with_two_versions_of_what_it_had_learned(
    draws: list[tuple[str, str | None]], adaptive: bool
) -> None:
    text = pyarrow.string()
    policies, learned = ([row[place] for row in draws] for place in (0, 1))
    plain = pyarrow.table({"policy": pyarrow.array(policies, text), "learned": pyarrow.array(learned, text)})
    encoded = pyarrow.table({name: plain[name].dictionary_encode() for name in plain.column_names})
    assert moved(plain) == moved(encoded) == adaptive


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        (
            [None, None],
            "learns had learned nothing on this log, since no policy that equals it had: its prior is judged",
        ),
        ([3, 3], "learns is judged with what it had learned on this log by each draw: version 3"),
        (
            [None, 1, 2, 2],
            "by each draw: versions 1 to 2; at 1 of 4 draws it knew nothing yet, and its prior is judged",
        ),
    ],
)
def test_what_a_target_knew_is_said_of_one_that_learns(versions: list[int | None], says: str) -> None:
    draws = pyarrow.table({"learned.learns": pyarrow.array(versions, pyarrow.int64())})
    assert says in str(known_by(LEARNS, draws))
    assert known_by(Policy(name="learns", number=1, rule=UniformRandom()), draws) is None


class Shop(NamedTuple):
    """A simulated shop, and what its report says of TOML."""

    log: Path
    targets: dict[str, Path]
    figures: Figures


def shop_of(folder: Path, policy: Policy, settings: Settings) -> Shop:
    run_shop(street(MADE_UP, 4.0, 2, 400), policy, 2, 1, Files(folder / "log", "jsonl"))
    targets = {name: folder / f"{name}.toml" for name in TOML}
    for name, file in targets.items():
        file.write_text(TOML[name])
    ask = Ask(Wanted(directory=folder / "log"), list(targets.values()), settings)
    return Shop(folder / "log", targets, write_report(ask, folder / "out.html"))


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop_of(tmp_path_factory.mktemp("learning"), LEARNS, Settings(resamples=RESAMPLES))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    rails = Rails(charm_endings=())
    tries = Policy(name="tries", number=1, rule=UniformRandom(), rails=rails)
    return shop_of(tmp_path_factory.mktemp("fixed"), tries, Settings(resamples=RESAMPLES))


@pytest.mark.parametrize("shop", ["learning", "fixed"])
@pytest.mark.parametrize("target", ["fresh", "dear"])
def test_a_report_and_an_evaluation_of_one_policy_on_one_log_judge_alike(
    shop: str, target: str, request: pytest.FixtureRequest
) -> None:
    log, targets, figures = request.getfixturevalue(shop)
    words = [str(log), "--target", str(targets[target]), "--resamples", str(RESAMPLES), "--json"]
    done = CliRunner().invoke(evaluate, words, catch_exceptions=False)
    found = json.loads(done.stdout)
    said = {row.measure: row for _, row in figures.where("verdict", policy=target)}
    assert found["judged_by"] == said["judged by"].text == {"learning": "anytime", "fixed": "bootstrap"}[shop]
    assert found["verdict"] == said["verdict"].text
    assert found["columns"] == {"reward": "margin"}
    ((_, reward),) = figures.where("scope", measure="reward")
    assert reward.text.startswith("The value is margin")
    ((_, lift),) = figures.where("value", measure="lift over logged policy", policy=target)
    judge = found["lift"][found["judged_by"]]
    ours = [found["lift"]["value"], judge["low"], judge["high"]]
    assert [lift.value, lift.low, lift.high] == pytest.approx([one / 100 for one in ours])


def test_what_each_policy_that_learns_knew_stands_on_page_one(learning: Shop, fixed: Shop) -> None:
    limits = {row.policy: row.text for _, row in learning.figures.where("scope", measure="limit") if row.policy}
    assert set(limits) == {"learns", "fresh"}
    assert "by each draw: versions 1 to " in limits["learns"]
    assert limits["fresh"].startswith("fresh had learned nothing on this log")
    of_fixed = {row.policy: row.text for _, row in fixed.figures.where("scope", measure="limit") if row.policy}
    assert all(f"{name} had learned nothing" in of_fixed[name] for name in ("learns", "fresh"))


@pytest.mark.parametrize(("shop", "kind"), [("learning", "anytime-valid"), ("fixed", "users resampled")])
def test_a_page_shows_and_holds_against_the_truth_the_interval_that_judges(
    shop: str, kind: str, request: pytest.FixtureRequest
) -> None:
    figures = request.getfixturevalue(shop).figures
    text = page_of(figures)
    assert f"With the interval that judges: {kind}" in text
    assert text.count("With the other interval: ") == 1
    for policy in (*TOML, "list price", BEST_UNIFORM):
        for measure in ("value", "lift over logged policy"):
            ((_, shown),) = figures.where("value", policy=policy, measure=measure)
            ((_, judge),) = figures.where("value", policy=policy, measure=f"{measure}, {kind}")
            assert (shown.low, shown.high) == (judge.low, judge.high)
        ((_, true),) = figures.where("truth", policy=policy, measure="true lift over logged policy")
        ((_, hit),) = figures.where("truth", policy=policy, measure="in the interval of its estimate")
        assert hit.text == ("inside" if shown.low <= true.value <= shown.high else "outside")
