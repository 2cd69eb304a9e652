"""Bad input to a backtest is a sentence that says what and where; and what the command line writes with policies."""

from __future__ import annotations

import json
from itertools import chain

import msgspec
import pytest
from click.testing import CliRunner

from backtest.commands import backtest
from backtest.logged_draws import read_draws
from backtest.run import run_backtest
from backtest.shoppers import generate_log
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_files import read_rows
from contracts.log_rows import EventRow
from contracts.log_writer import LogWriter
from contracts.policies import CurrentPolicy, KillSwitch, Policy, SessionIntent
from contracts.semantics import Topology
from tests.backtest.recorded_shop import recorded_shop, rewritten


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    generate_log(folder / "log", 40, 600, 2, Topology(partitions=2), "parquet")
    return folder / "log"


def copied(shop, directory, rows):
    log = open_log(shop)
    with LogWriter(directory, log.manifest, "jsonl") as writer:
        writer.rows(rows)
        writer.catalogue(list(chain.from_iterable(log.catalogue())))
    return directory


def test_a_truncated_parquet_file_is_a_sentence(shop, tmp_path):
    for name in ("manifest.json", "events.parquet", "consents.parquet", "catalogue.parquet", "policies.parquet"):
        (tmp_path / name).write_bytes((shop / name).read_bytes())
    whole = (tmp_path / "events.parquet").read_bytes()
    (tmp_path / "events.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"events\.parquet is not what manifest\.json says"):
        run_backtest(tmp_path)
    with pytest.raises(BadInput, match=r"events\.parquet is damaged or no Parquet file"):
        run_backtest(tmp_path, verify=False)


def test_an_empty_log_is_a_sentence(shop, tmp_path):
    with pytest.raises(BadInput, match="has no events: there is nothing to replay"):
        run_backtest(copied(shop, tmp_path, []))


def test_a_log_out_of_order_is_a_sentence(shop, tmp_path):
    rows = list(open_log(shop).rows())
    views = [n for n, row in enumerate(rows) if row.type == "view"]
    rows[views[5]], rows[views[-1]] = rows[views[-1]], rows[views[5]]
    with pytest.raises(
        BadInput, match=r"arrival_ms \d+ and follows one of \d+, so the log is out of order: sort the rows"
    ):
        run_backtest(copied(shop, tmp_path / "arrival", rows))
    with pytest.raises(BadInput, match="offset 3 of partition 0 follows 6, so the log is out of order"):
        copied(shop, tmp_path / "offset", [EventRow("view", key=b"x", partition=0, offset=offset) for offset in (6, 3)])


def test_another_currency_is_said_with_its_place(shop, tmp_path):
    rows = list(open_log(shop).rows())
    foreign = next(n for n, row in enumerate(rows) if row.type == "view" and n > 200)
    rows[foreign] = msgspec.structs.replace(rows[foreign], currency="EUR")
    summary = run_backtest(copied(shop, tmp_path, rows))
    assert summary.dead_letters["unknown_currency"] == 1
    assert "The price is in 'EUR', prices here are in USD" in summary.first_dead["unknown_currency"]
    assert summary.first_dead["unknown_currency"].startswith("views, partition ")


def test_only_rows_that_are_asked_for_are_read_from_either_format(shop, tmp_path):
    copied(shop, tmp_path, list(open_log(shop).rows()))
    where = ("type", frozenset({"click", "purchase"}))
    found = [list(chain.from_iterable(read_rows(file, EventRow, where)))
             for file in (shop / "events.parquet", tmp_path / "events.jsonl")]  # fmt: skip
    assert found[0] == found[1]
    assert {row.type for row in found[0]} == {"click", "purchase"}


def write_policy(file, name, rule="list_price", more=""):
    file.write_text(f'name = "{name}"\n{more}\n[rule]\nkind = "{rule}"\n')
    return file


def said(*words):
    result = CliRunner().invoke(backtest, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


BAD_POLICIES = {
    "an unknown key": ('name = "a"\ncolour = 1\n[rule]\nkind = "list_price"\n', "line 2: colour is unknown"),
    "no name": ('[rule]\nkind = "list_price"\n', "name is missing"),
    "no TOML": ("name = ", "is not TOML"),
}


@pytest.mark.parametrize(("text", "says"), BAD_POLICIES.values(), ids=BAD_POLICIES)
def test_a_policy_file_that_is_none_is_a_sentence(shop, tmp_path, text, says):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(BadInput, match=says):
        said(shop, "--policy", tmp_path / "a.toml")


def test_two_policies_of_one_name_are_a_sentence(shop, tmp_path):
    files = [write_policy(tmp_path / f"{n}.toml", "same") for n in (1, 2)]
    with pytest.raises(BadInput, match="named same, too: give each its own name"):
        said(shop, "--policy", files[0], "--policy", files[1])


def test_a_what_if_prices_by_its_policy_and_says_so(shop, tmp_path):
    listed = write_policy(tmp_path / "list.toml", "plain")
    cheap = write_policy(tmp_path / "cheap.toml", "cheap", 'fixed_price"\nmultiplier_permille = 900\nexplore = 0.0 # "')
    found = json.loads(
        said(shop, "--out", tmp_path / "prices.parquet", "--decisions", tmp_path / "d.parquet", "--policy", listed,
             "--policy", cheap, "--json")
    )  # fmt: skip
    what_ifs = found["what_if"]
    assert what_ifs["plain"]["below_list"] == 0.0
    assert what_ifs["cheap"]["below_list"] > 0.0
    assert found["below_list"] > 0.0
    assert what_ifs["cheap"]["events"] == found["events"]
    assert what_ifs["cheap"]["resolved"] == {}, "nobody saw these prices, so nothing came of them"
    assert (tmp_path / "prices.what-if-plain.parquet").exists()
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "d.what-if-cheap.parquet", columns=["policy", "kind"])
    assert set(table.column("policy").to_pylist()) - {None} == {"what-if/cheap@1"}
    assert "What if cheap had priced" in said(shop, "--policy", cheap)


def test_a_what_if_has_no_outcomes(shop, tmp_path):
    with pytest.raises(BadInput, match="priced nobody"):
        run_backtest(shop, outcomes=tmp_path / "o.parquet", what_if=Policy(name="a", number=1, rule=SessionIntent()))


def test_a_what_if_obeys_the_kill_switch_of_the_log_and_no_other_policy(shop, tmp_path):
    cheap = Policy(name="cheap", number=1, rule=SessionIntent(discounts_permille=(200,), explore=0.0))
    other = Policy(name="other", number=1, rule=SessionIntent(discounts_permille=(0,), explore=0.0))
    current = CurrentPolicy(name="other", number=1)
    priced = rewritten(shop, tmp_path / "a", policies=[other, current])
    assert run_backtest(priced, what_if=cheap).digest == run_backtest(shop, what_if=cheap).digest
    stopped = rewritten(shop, tmp_path / "b", policies=[KillSwitch(on=True)])
    assert run_backtest(stopped, what_if=cheap).below_list == 0.0


def test_the_table_of_draws_has_a_target_for_each_policy(tmp_path):
    log = recorded_shop(tmp_path, users=30, events=400, partitions=2)
    listed = write_policy(tmp_path / "list.toml", "plain")
    said(
        log, "--draws", tmp_path / "draws.parquet", "--policy", listed, "--resume", tmp_path / "going", "--processes", 1
    )
    draws = read_draws(tmp_path / "draws.parquet")
    assert draws.targets == ("plain",)
    at_list = draws.column("price") == draws.column("list_price")
    assert (draws.target("plain") == at_list).all()
    assert not (tmp_path / "going").exists()
