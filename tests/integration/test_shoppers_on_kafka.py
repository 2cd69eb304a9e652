"""The closed loop through a real Kafka: shoppers see the prices that a worker publishes and react, a learner learns from it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from click.testing import CliRunner
from deployment import Deployment, as_arguments, difference, expected

from backtest.estimates import Settings
from backtest.habits import MADE_UP, write_habits
from backtest.people import people_of
from backtest.report.study import Ask, write_report
from backtest.what_if import Wanted
from contracts.decisions import Decision, decode_decision
from contracts.events import Purchase, decode_event
from contracts.outcomes import Outcome, decode_outcome
from contracts.people import Errand
from contracts.prices import decode_price
from pricetide import command_line
from streams.shoppers import ShopFront

LOOKS = 80
FLAGS = {"semantics__outcome_window_ms": 900_000, "learner__version_outcomes": 8, "learner__version_seconds": 1}
POLICY = """
name = "closed"
[rule]
kind = "thompson"
samples = 16
explore = 0.2
features.names = ["intent", "price"]
"""


def test_shoppers_see_published_prices_buy_at_them_and_the_policy_learns_from_it(kafka, unique, tmp_path):
    (tmp_path / "closed.toml").write_text(POLICY, encoding="utf-8")
    buyers = tuple([msgspec.structs.replace(one, purchases=0.4, carts=0.5) for one in MADE_UP.categories])
    write_habits(msgspec.structs.replace(MADE_UP, categories=buyers), tmp_path / "habits.json")
    errand = Errand(
        world="SHOP", seed=3, looks=LOOKS, elasticity=5.0, traffic=0.15, habits=tmp_path / "habits.json", out=tmp_path / "account"
    )  # fmt: skip
    with Deployment(kafka, unique, tmp_path, partitions=2, semantics__exposure="ids", **FLAGS) as deployment:
        deployment.create()
        done = CliRunner().invoke(
            command_line, ["policy", "apply", str(tmp_path / "closed.toml"), *as_arguments(deployment.flags)]
        )
        assert done.exit_code == 0, done.output
        deployment.learner()
        deployment.worker().wait_until_said("restored")
        people = people_of(errand)
        with ShopFront(deployment.settings) as front:
            front.stock(people)
            front.serve(people, lambda line: None)
        people.finish()
        account = json.loads((tmp_path / "account" / "account.json").read_text())
        check(deployment, account)
        recorded = deployment.record(tmp_path / "recorded", offers="shown")
        assert difference(expected(recorded), deployment.published()) == ""
        check_report(recorded, tmp_path / "account" / "truth.jsonl", account["account"])


def check(deployment: Deployment, account: dict) -> None:
    topics = deployment.settings.topics
    prices = {one.decision_id: one for one in map(value_of(decode_price), flat(deployment, topics.price_updates))}
    outcomes = [decode_outcome(one.value) for one in flat(deployment, topics.outcomes)]
    draws = [one for one in outcomes if isinstance(one, Outcome)]
    assert len(draws) == len(outcomes), "a purchase was not made at a price that was drawn"
    assert account["account"]["draws"] + account["account"]["unseen"] == len(draws) > 20
    assert sum(draw.exposed for draw in draws) == account["account"]["draws"]
    assert sum(draw.bought is not None for draw in draws) == account["account"]["bought"] > 0
    purchases = [decode_event(one.value) for one in flat(deployment, topics.purchases)]
    for purchase in purchases:
        assert isinstance(purchase, Purchase)
        shown = prices[purchase.decision_id]
        assert (shown.user, shown.item, shown.price) == (purchase.user, purchase.item, purchase.price)
    decisions = [decode_decision(one.value) for one in flat(deployment, topics.decisions)]
    assert any(isinstance(one, Decision) and one.shown is not None and one.price < one.list_price for one in decisions)
    learned = {one.learned for one in decisions if isinstance(one, Decision) and one.learned is not None}
    assert len(learned) >= 3, "the worker did not follow what the learner published"
    whole = account["account"]["whole"]
    assert whole["list_price"] < whole["oracle"]
    assert whole["policy"] <= whole["oracle"]
    assert "<polyline" in (deployment.directory / "account" / "value.svg").read_text()


def check_report(recorded: Path, truth: Path, account: dict) -> None:
    """The report of what was recorded shows what the prices were really worth, over time."""
    page = recorded.parent / "value.html"
    figures = write_report(Ask(Wanted(directory=recorded), settings=Settings(resamples=50), truth=truth), page)
    ((_, draws), *_) = figures.where("log", measure="draws judged, forced ones among them")
    assert 20 < draws.value <= account["draws"]
    worth = {row.policy: row.value for _, row in figures.where("truth", measure="true value")}
    assert worth["list price"] < worth["oracle"]
    fixed = "best fixed price, in hindsight"
    assert max(worth["logged policy"], worth[fixed]) <= worth["oracle"]
    assert worth["list price"] <= worth[fixed]
    for policy in ("logged policy", "list price", fixed, "oracle"):
        periods = figures.where("truth", policy=policy, measure="true value of the period")
        assert len(periods) == len({row.x for _, row in periods}) > 1
    assert "True value per draw over time, against the oracle." in page.read_text()


def flat(deployment: Deployment, topic: str) -> list:
    return [record for records in deployment.committed(topic) for record in records]


def value_of(decode):
    return lambda record: decode(record.value)
