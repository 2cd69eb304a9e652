"""What workers publish equals the backtest of the same log, byte for byte: prices, decisions, outcomes, dead
letters, states and pending draws.

The public log by a slice here; the whole of it with PRICETIDE_FULL_LOG=1.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from deployment import Deployment, Outcome, broken_order, difference, expected
from msgspec.structs import replace

from backtest.logged_draws import logged_draws
from backtest.perturb import Perturbation, perturb_log
from backtest.rees46 import import_rees46
from backtest.shoppers import generate_log
from contracts.catalogue import decode_item, encode_item, item_key
from contracts.decisions import Decision, decode_decision
from contracts.log import catalogue_records, open_log
from contracts.policies import CurrentPolicy, KillSwitch, Policy, SessionIntent, encode_policy, policy_key
from contracts.prices import decode_price
from streams.broker import producing

ROWS = None if os.environ.get("PRICETIDE_FULL_LOG") else 30_000
LIMIT_S = 240


def slice_of(rees46: Path, directory: Path) -> Path:
    """Write the first ROWS rows of the public log, all columns untouched."""
    parquet = pytest.importorskip("pyarrow.parquet")
    if ROWS is None:
        return rees46
    table = parquet.read_table(rees46).slice(0, ROWS)
    parquet.write_table(table, directory / "slice.parquet")
    return directory / "slice.parquet"


def published_by_two_workers(deployment: Deployment, log: Path, **flags: object) -> Outcome:
    """Put a log into Kafka, let two workers share its partitions until nothing is left, and read what they committed."""
    deployment.create().produce(log)
    deployment.worker("first", **flags)
    deployment.worker("second", **flags)
    deployment.wait_until_applied(LIMIT_S)
    for worker in deployment.workers:
        assert worker.terminate() == 0, worker.said()
    published = deployment.published()
    assert broken_order(published, deployment.topology) == ""
    assert sum(map(len, published.outcomes)) > 100, "windows end while the log runs"
    return published


def test_the_public_log_priced_by_two_workers_equals_its_backtest(kafka, unique, tmp_path, rees46):
    with Deployment(kafka, unique, tmp_path) as deployment:
        import_rees46(slice_of(rees46, tmp_path), tmp_path / "log", deployment.topology)
        published = published_by_two_workers(deployment, tmp_path / "log")
        assert difference(expected(tmp_path / "log"), published) == ""
        assert any(published.dead), "the public log has rows priced zero"
        prices = [decode_price(value) for pairs in published.prices for _, value in pairs]
        assert sum(price.price < price.list_price for price in prices) >= 0.3 * len(prices)


@pytest.mark.parametrize(("batch_max", "buffer_max"), [(7, 16), (5_000, 8_192)])
def test_a_perturbed_log_equals_its_backtest_in_batches_of_any_size(kafka, unique, tmp_path, batch_max, buffer_max):
    flags = {"batch_max": batch_max, "buffer_max": buffer_max}
    with Deployment(kafka, unique, tmp_path, partitions=3, **flags) as deployment:
        generate_log(tmp_path / "plain", 300, 5_000, 21, deployment.topology)
        perturb_log(
            tmp_path / "plain",
            tmp_path / "log",
            21,
            Perturbation(late=0.05, duplicates=0.03, consents=0.03, erasures=0.004),
        )
        published = published_by_two_workers(deployment, tmp_path / "log")
        assert difference(expected(tmp_path / "log", batch_max=64), published) == ""


def test_all_kinds_of_events_on_one_topic_keep_its_order(kafka, unique, tmp_path):
    one = dict.fromkeys(("topics__consents", "topics__views", "topics__clicks", "topics__purchases"), f"{unique}events")
    with Deployment(kafka, unique, tmp_path, partitions=2, **one) as deployment:
        generate_log(tmp_path / "plain", 100, 2_000, 5, deployment.topology)
        perturb_log(tmp_path / "plain", tmp_path / "log", 5, Perturbation(late=0.1))
        published = published_by_two_workers(deployment, tmp_path / "log")
        assert difference(expected(tmp_path / "log"), published) == ""


BOLDER = Policy(name="bolder", number=1, rule=SessionIntent(discounts_permille=(300, 250, 200), explore=0.5))


def send_references(deployment: Deployment, log: Path) -> None:
    """Publish another policy, a kill switch, its end, and new list prices, a moment apart each."""
    topics = deployment.settings.topics
    policies = [BOLDER, CurrentPolicy(name="bolder", number=1), KillSwitch(on=True), KillSwitch(on=False)]
    items = [decode_item(record.value or b"") for record in catalogue_records(open_log(log, verify=False))][:40]
    with producing(deployment.settings) as producer:
        for policy in policies:
            time.sleep(0.7)
            producer.send(topics.policies, encode_policy(policy), policy_key(policy))
            for item in items:
                dearer = replace(item, list_price=item.list_price + 100, valid_from_ms=item.valid_from_ms + 1, cost=None,
                                 floor=None, ceiling=None, map_price=None)  # fmt: skip
                producer.send(topics.catalogue, encode_item(dearer), item_key(dearer.item, dearer.valid_from_ms))
            items = items[10:]
            producer.flush()


def test_policies_and_list_prices_that_change_under_way_equal_the_backtest_of_what_was_recorded(
    kafka, unique, tmp_path
):
    with Deployment(kafka, unique, tmp_path, partitions=2, batch_max=100) as deployment:
        log = tmp_path / "log"
        generate_log(tmp_path / "plain", 200, 6_000, 33, deployment.topology)
        perturb_log(tmp_path / "plain", log, 33, Perturbation())
        deployment.create()
        for name in ("first", "second"):
            deployment.worker(name).wait_until_said("restored")
        producing_log = threading.Thread(target=deployment.produce, args=(log, 5))
        producing_log.start()
        send_references(deployment, log)
        producing_log.join()
        deployment.wait_until_applied(LIMIT_S)
        published = deployment.published()
        recorded = deployment.record(tmp_path / "recorded")
        assert difference(expected(recorded, batch_max=13), published) == ""
        records = [decode_decision(value) for pairs in published.decisions for _, value in pairs]
        decisions = [record for record in records if isinstance(record, Decision)]
        assert {"bolder@1"} < {decision.policy for decision in decisions}
        assert "kill_switch" in {decision.binding_rule for decision in decisions}
        assert len({decision.catalogue_seen for decision in decisions}) >= 3
        draws_are_those_of(recorded, published)


def draws_are_those_of(recorded: Path, published: Outcome) -> None:
    """Hold the draws of what was recorded against what the workers published of them."""
    manifest = recorded / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"offers": "not_shown"', '"offers": "shown"'))
    draws = logged_draws(recorded, [BOLDER])
    assert draws.refusal is None
    outcomes = [json.loads(value) for pairs in published.outcomes for _, value in pairs]
    propensities = {one["draw_id"]: one["propensity"] for one in outcomes if one["record"] == "outcome"}
    ids = draws.column("draw_id").tolist()
    assert dict(zip(ids, draws.propensities().tolist(), strict=True)) == propensities
    by_bolder = draws.column("policy") == "bolder@1"
    assert by_bolder.any()
    assert (draws.target("bolder") == draws.propensities())[by_bolder].all()
    assert (draws.target("bolder") != draws.propensities())[~by_bolder].any()
