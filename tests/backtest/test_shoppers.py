"""backtest.shoppers: the same seed gives the same shop, and there is something of everything in it."""

from __future__ import annotations

from collections import Counter

import pytest

from backtest.run import run_backtest
from backtest.shoppers import generate_log
from contracts.catalogue import Catalogue
from contracts.errors import BadInput
from contracts.log import catalogue_records, open_log, records
from contracts.semantics import Topology


def generated(directory, seed=5, file_format="jsonl", events=600, users=60):
    generate_log(directory, users, events, seed, Topology(partitions=2), file_format)
    return open_log(directory)


def test_the_same_seed_gives_the_same_files(tmp_path):
    one, two = generated(tmp_path / "a").manifest, generated(tmp_path / "b").manifest
    assert one.tables == two.tables
    assert generated(tmp_path / "c", seed=6).manifest.tables != one.tables


def test_both_formats_hold_the_same_records(tmp_path):
    assert list(records(generated(tmp_path / "a"))) == list(records(generated(tmp_path / "b", file_format="parquet")))


def test_there_is_something_of_everything(shop_log):
    rows = list(open_log(shop_log).rows())
    shop = [row for row in rows if row.type != "consent"]
    assert len(shop) == 3_000
    kinds = Counter(row.type for row in rows)
    assert min(kinds[kind] for kind in ("consent", "view", "click", "purchase")) >= 50
    assert {row.action for row in rows} >= {"add_to_cart", "click", "wishlist"}
    assert sum(row.query is not None for row in rows) >= 50
    assert any(row.type == "consent" and not row.granted for row in rows)
    said = Counter(row.user for row in rows if row.type == "consent")
    assert max(said.values()) == 2, "somebody withdraws"
    assert {row.user for row in shop} - {None} - set(said), "somebody never says anything"


def test_events_come_in_the_order_of_their_arrival(shop_log):
    arrivals = [row.arrival_ms for row in open_log(shop_log).rows()]
    assert arrivals == sorted(arrivals)


def test_some_records_are_bad_and_the_rest_is_priced(shop_log):
    summary = run_backtest(shop_log)
    assert set(summary.dead_letters) == {"not_json", "bad_field", "unknown_currency", "future"}
    assert sum(summary.dead_letters.values()) < 40
    assert summary.below_list > 0.3
    assert len(summary.multipliers) >= 4
    assert "unknown_item" not in summary.outcomes
    assert "refused_item" not in summary.outcomes


def test_list_prices_change_in_the_middle(shop_log):
    log = open_log(shop_log)
    catalogue = Catalogue()
    for record in catalogue_records(log):
        catalogue.apply(record.offset, record.key, record.value)
    views = [row for row in log.rows() if row.type == "view" and row.item and row.price and row.currency == "USD"]
    assert all(catalogue.at(row.item, row.arrival_ms)[1].list_price == row.price for row in views)
    assert len({(row.item, row.price) for row in views}) > len({row.item for row in views})


@pytest.mark.parametrize(("users", "events"), [(0, 5), (5, 0)])
def test_an_empty_shop_is_refused(tmp_path, users, events):
    with pytest.raises(BadInput, match="at least one of each"):
        generated(tmp_path, users=users, events=events)
