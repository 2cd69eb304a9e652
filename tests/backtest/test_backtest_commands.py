"""The commands of this room, as a person types them."""

from __future__ import annotations

import json

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from backtest.commands import backtest, generate, import_group, perturb
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_rows import PolicyRow
from contracts.log_writer import LogWriter
from contracts.policies import ShadowPolicy, encode_policy


def said(command, *words):
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_generate_perturb_and_backtest_work_as_documented(tmp_path):
    told = said(generate, "--out", tmp_path / "shop", "--events", 400, "--users", 40, "--format", "jsonl")
    assert "views: " in told
    assert "on 4 partitions" in told
    said(perturb, tmp_path / "shop", "--out", tmp_path / "log", "--late", "0.1", "--seed", 3)
    prices, decisions = tmp_path / "out/prices.parquet", tmp_path / "out/decisions.parquet"
    dead, outcomes = tmp_path / "out/dead.jsonl", tmp_path / "out/outcomes.parquet"
    files = ("--out", prices, "--decisions", decisions, "--outcomes", outcomes, "--dead-letters", dead)
    table = said(backtest, tmp_path / "log", *files, "--batch", 7)
    assert "below list" in table
    assert "outcomes of draws" in table
    summary = json.loads(said(backtest, tmp_path / "log", "--json"))
    assert pyarrow.parquet.read_table(prices).num_rows == summary["prices"]
    applied = sum(summary["outcomes"].values())
    assert pyarrow.parquet.read_table(decisions).num_rows == summary["decisions"] + applied
    assert pyarrow.parquet.read_table(outcomes).num_rows == sum(summary["resolved"].values())
    assert len(dead.read_text().splitlines()) == sum(summary["dead_letters"].values())


def test_import_says_what_it_wrote(tmp_path):
    header = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session"
    rows = ["2019-11-01 00:00:00 UTC,view,1,2,a.b,c,9.99,3,s", "2019-11-01 00:00:01 UTC,cart,1,2,a.b,c,0.00,3,s"]
    (tmp_path / "in.csv").write_text("\n".join([header, *rows]) + "\n")
    told = said(import_group, "rees46", tmp_path / "in.csv", "--out", tmp_path / "log", "--partitions", 2)
    assert "views: 1 records on 2 partitions" in told
    assert "1 users, 1 items, 1 rows without a price" in told


def test_a_missing_log_is_a_sentence(tmp_path):
    with pytest.raises(BadInput, match="is no log"):
        CliRunner().invoke(backtest, [str(tmp_path)], catch_exceptions=False)


def test_a_backtest_of_a_log_with_a_shadow_writes_what_it_decided_and_the_same_prices(tmp_path):
    said(generate, "--out", tmp_path / "log", "--events", 200, "--users", 20)
    log = open_log(tmp_path / "log")
    with LogWriter(tmp_path / "shadowed", log.manifest) as writer:
        writer.rows(list(log.rows()))
        for rows in log.catalogue():
            writer.catalogue(rows)
        policies = [row for rows in log.policies() for row in rows]
        writer.policies([*policies, PolicyRow(record=encode_policy(ShadowPolicy(policy="builtin")).decode())])
    files = ("--shadow-decisions", tmp_path / "shadows.parquet", "--decisions", tmp_path / "decisions.parquet")
    shadowed = json.loads(said(backtest, tmp_path / "shadowed", *files, "--json"))
    plain = json.loads(said(backtest, tmp_path / "log", "--json"))
    assert shadowed["digest"] == plain["digest"]
    table = pyarrow.parquet.read_table(tmp_path / "shadows.parquet")
    drawn = pyarrow.parquet.read_table(tmp_path / "decisions.parquet", filters=[("status", "=", "drawn")])
    assert table.column("decision_id").to_pylist() == drawn.column("decision_id").to_pylist()
    assert set(table.column("policy").to_pylist()) == {"builtin"}


@pytest.mark.parametrize("option", ["--out", "--decisions", "--outcomes", "--shadow-decisions", "--draws"])
def test_a_name_that_promises_another_format_is_refused_before_anything_is_done(tmp_path, option):
    said(generate, "--out", tmp_path / "shop", "--events", 50, "--users", 5)
    name = tmp_path / "new" / "out.jsonl"
    result = CliRunner().invoke(backtest, [str(tmp_path / "shop"), option, str(name)])
    assert isinstance(result.exception, BadInput)
    assert str(result.exception) == f"{name} would be a Parquet file: let its name end in .parquet"
    assert not name.parent.exists()
