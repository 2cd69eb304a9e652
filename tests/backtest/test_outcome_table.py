"""The outcomes of a backtest: one per draw, in a file whose columns say what the published bytes say."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet
import pytest

from backtest.run import run_backtest

NESTED = ("bought", "next")


@pytest.fixture(scope="module")
def backtested(shop_log, tmp_path_factory):
    """The summary, and the rows of the table."""
    file = tmp_path_factory.mktemp("out") / "outcomes.parquet"
    summary = run_backtest(shop_log, outcomes=file)
    return summary, pyarrow.parquet.read_table(file).to_pylist()


def test_every_draw_of_the_log_has_one_outcome_or_is_pending_at_its_end(backtested):
    summary, rows = backtested
    draws = [row["draw_id"] for row in rows if row["kind"] == "outcome"]
    assert len(set(draws)) == len(draws)
    assert summary.pending > 0
    assert len(draws) + summary.pending == summary.status["drawn"]


def test_the_summary_counts_the_rows(backtested):
    summary, rows = backtested
    kinds = Counter(row["kind"] for row in rows)
    bought = sum(row["bought.quantity"] is not None for row in rows)
    assert bought > 0
    assert summary.resolved == {
        "bought": bought,
        "not_bought": kinds["outcome"] - bought,
        "price_mismatch": kinds["price_mismatch"],
    } | ({"late": kinds["late"]} if kinds["late"] else {})


def test_columns_say_what_the_published_bytes_say(backtested):
    _, rows = backtested
    for row in rows:
        record = json.loads(row["record"])
        assert row["kind"] == record.pop("record")
        assert json.loads(row["key"])[0] == row["user"]
        for name, value in record.items():
            if name in NESTED:
                parts = {column: row[column] for column in row if column.startswith(f"{name}.")}
                assert parts == {column: value and value[column.split(".")[1]] for column in parts}
            else:
                assert row[name] == value
