"""backtest.perturb: what was asked for is done, and nothing is lost."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
from msgspec.structs import replace

from backtest.perturb import Perturbation, perturb_log
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_rows import AppliedRow
from contracts.log_writer import LogWriter


def perturbed(source, directory, seed=3, **shares):
    perturb_log(source, directory, seed, Perturbation(**shares), "jsonl")
    return open_log(directory)


def shop_rows(log):
    """The shop events of a log without what a perturbation may change."""
    return Counter(str(replace(row, arrival_ms=0)) for row in log.rows() if row.type != "consent")


def test_nothing_is_lost_and_only_duplicates_are_added(shop_log, tmp_path):
    before, after = shop_rows(open_log(shop_log)), shop_rows(perturbed(shop_log, tmp_path))
    assert before <= after
    added = after - before
    assert 10 <= added.total() <= 70
    assert added <= before, "what is added is a repetition"


def test_late_rows_arrive_late_and_out_of_order(shop_log, tmp_path):
    rows = list(perturbed(shop_log, tmp_path, late=0.1, duplicates=0, consents=0, catalogue=0).rows())
    late = [row for row in rows if row.event_time_ms is not None and row.arrival_ms > row.event_time_ms]
    assert 0.05 < len(late) / len(rows) < 0.15
    times = [row.event_time_ms for row in rows if row.event_time_ms is not None]
    assert times != sorted(times)
    assert [row.arrival_ms for row in rows] == sorted(row.arrival_ms for row in rows)


def test_consents_change(shop_log, tmp_path):
    def said(log):
        return Counter(row.granted for row in log.rows() if row.type == "consent")

    more = said(perturbed(shop_log, tmp_path, consents=0.05)) - said(open_log(shop_log))
    assert more[True] > 30
    assert more[False] > 30


def test_users_ask_to_be_forgotten_only_where_that_is_asked_for(shop_log, tmp_path):
    def erasures(log):
        return [row for row in log.rows() if row.erase]

    asked = erasures(perturbed(shop_log, tmp_path, erasures=0.05))
    assert len(asked) > 30
    assert {(row.type, row.granted) for row in asked} == {("consent", False)}
    assert erasures(perturbed(shop_log, tmp_path / "plain")) == []


def test_items_get_later_versions_that_keep_their_own_bounds(shop_log, tmp_path):
    old = open_log(shop_log)
    log = perturbed(shop_log, tmp_path, catalogue=0.5)
    rows = list(chain.from_iterable(log.catalogue()))
    new = rows[old.manifest.tables["catalogue"].rows :]
    assert len(new) > 10
    for row in new:
        assert old.manifest.first_ms <= row.valid_from_ms <= old.manifest.last_ms
        assert -(-row.cost * 1080 // 1000) <= row.list_price
        assert row.floor <= row.list_price
        assert (row.map_price or 0) <= row.list_price
        assert (row.ceiling or row.list_price) >= row.list_price


def test_a_perturbation_of_nothing_changes_nothing(shop_log, tmp_path):
    log = perturbed(shop_log, tmp_path, late=0, duplicates=0, consents=0, catalogue=0)
    assert list(log.rows()) == list(open_log(shop_log).rows())


def test_the_same_seed_perturbs_alike(shop_log, tmp_path):
    one, two = perturbed(shop_log, tmp_path / "a"), perturbed(shop_log, tmp_path / "b")
    assert one.manifest.tables == two.manifest.tables
    assert perturbed(shop_log, tmp_path / "c", seed=4).manifest.tables != one.manifest.tables


def test_the_manifest_says_what_was_done(shop_log, tmp_path):
    rules = " ".join(perturbed(shop_log, tmp_path, late=0.25).manifest.synthetic)
    assert "25.0% of the rows" in rules
    assert "seed 3" in rules


def test_a_share_beyond_one_is_refused():
    with pytest.raises(BadInput, match=r"late = 1\.5"):
        Perturbation(late=1.5)


def test_a_recorded_log_cannot_be_perturbed(shop_log, tmp_path):
    manifest = open_log(shop_log).manifest
    with LogWriter(tmp_path / "recorded", manifest, "jsonl") as writer:
        writer.applied([AppliedRow(0, 1, 0, 0, 0, 0)])
    with pytest.raises(BadInput, match="applied order is fixed"):
        perturb_log(tmp_path / "recorded", tmp_path / "out", 1, Perturbation())
