"""`pricetide explain` over the files of a backtest: the page, the JSON, both languages. On Kafka: tests/integration."""

from __future__ import annotations

import json
from io import StringIO

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from rich.console import Console

from backtest.run import run_backtest
from backtest.shoppers import generate_log
from contracts.decisions import Applied, Decision, decode_decision, encode_decision
from contracts.errors import BadInput
from contracts.log import Manifest
from contracts.log_rows import CatalogueRow, PolicyRow
from contracts.log_writer import LogWriter
from contracts.policies import Policy, Rails, encode_policy
from contracts.rules import Features, LinearQ, Thompson
from contracts.semantics import Topology
from pricing.explanation import explain_decision
from pricing.recomputing import Background
from streams.decision_search import decisions_in, in_files
from streams.explain_commands import explain
from streams.explain_pages import as_json, page
from tests.pricing.shop import Shop, item
from tests.pricing.test_learning_policies_in_the_engine import taught


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A log, the decisions of its backtest as Parquet and as JSON lines, and one id per status."""
    folder = tmp_path_factory.mktemp("explain")
    generate_log(folder / "log", users=20, events=200, seed=1, topology=Topology(partitions=2), file_format="jsonl")
    run_backtest(folder / "log", decisions=folder / "d.parquet")
    records = list(decisions_in(folder / "d.parquet"))
    (folder / "d.jsonl").write_bytes(b"\n".join(map(encode_decision, records)))
    ids = {one.outcome if isinstance(one, Applied) else one.status: one.decision_id for one in reversed(records)}
    return folder, ids


def run(folder, decision_id, *more, file="d.parquet", log=True):
    where = ["--file", str(folder / file), *(["--log", str(folder / "log")] if log else [])]
    return CliRunner().invoke(explain, [decision_id, *where, *more], catch_exceptions=False)


def test_a_draw_is_shown_with_its_options_trail_and_proof(shop):
    folder, ids = shop
    done = run(folder, ids["drawn"])
    assert done.exit_code == 0
    for part in ("What could have been charged", "list price", "█", "rules out", "made again, it has the same bytes"):
        assert part in done.stdout
    assert "NO " not in done.stdout and "cannot be verified" not in done.stdout


@pytest.mark.parametrize("status", ["drawn", "held", "list"])
@pytest.mark.parametrize("file", ["d.parquet", "d.jsonl"])
def test_every_check_of_every_kind_of_price_agrees(shop, status, file):
    folder, ids = shop
    plain = json.loads(run(folder, ids[status], "--json", file=file).stdout)
    assert plain["decision"]["status"] == status
    assert {check["agrees"] for check in plain["checks"]} == {True}
    assert plain["sentence"].endswith(".")
    assert (plain["draw"] is not None) is (status == "held")


def test_the_same_page_in_chinese(shop):
    folder, ids = shop
    done = run(folder, ids["held"], "--language", "zh")
    for part in ("此前给出的优惠价仍然有效", "当时可选的价格", "沿用仍然有效的优惠价", "核对"):
        assert part in done.stdout
    assert "What" not in done.stdout


def test_without_the_log_it_says_what_could_not_be_verified(shop):
    folder, ids = shop
    done = run(folder, ids["drawn"], log=False)
    assert done.exit_code == 0
    assert "cannot be verified" in done.stdout
    assert "not at hand: policy session_intent@1, catalogue version" in done.stdout


def test_a_record_without_a_price_is_a_sentence(shop):
    folder, ids = shop
    assert run(folder, ids["consent"]).stdout == "No price: a consent, which asks for no price.\n"
    assert json.loads(run(folder, ids["consent"], "--json").stdout)["record"]["outcome"] == "consent"


def test_a_forged_record_ends_with_1(shop, tmp_path):
    folder, ids = shop
    case = in_files(folder / "d.jsonl", None, ids["drawn"])
    assert isinstance(case.record, Decision)
    plain = json.loads(encode_decision(case.record)) | {"propensity": 0.5}
    forged = tmp_path / "forged.jsonl"
    forged.write_text(json.dumps(plain), encoding="utf-8")
    assert decode_decision(forged.read_bytes())
    done = CliRunner().invoke(explain, [ids["drawn"], "--file", str(forged), "--log", str(folder / "log")])
    assert done.exit_code == 1
    assert "NO" in done.stdout


def test_what_a_policy_had_learned_is_found_by_the_digest_on_the_record(tmp_path):
    policy = Policy(name="any", number=1, rule=Thompson())
    shop = Shop(policy=policy)
    first = shop.teach(taught(policy.rule, seed=1))
    decision = shop.one(shop.view())
    later = shop.teach(taught(policy.rule, seed=2))
    (tmp_path / "d.jsonl").write_bytes(encode_decision(decision))
    manifest = Manifest(semantics=shop.semantics, topology=Topology(partitions=1), source="a test", offers="shown")
    with LogWriter(tmp_path / "log", manifest, "jsonl") as writer:
        writer.catalogue([CatalogueRow(**msgspec.structs.asdict(item()))])
        writer.policies([PolicyRow(record=encode_policy(record).decode()) for record in (policy, first, later)])
    case = in_files(tmp_path / "d.jsonl", tmp_path / "log", decision.decision_id)
    assert case.background.known is not None
    assert case.background.known.digest == decision.learned == first.digest
    assert all(check.agrees for check in explain_decision(case.record, case.background).checks)


def shown(decision, policy, language="en"):
    console = Console(width=200, file=StringIO())
    console.print(page(explain_decision(decision, Background(policy=policy)), language))
    return console.file.getvalue()


def test_what_a_model_would_say_is_one_row_without_a_model_and_a_line_says_so():
    policy = Policy(name="any", number=1, rule=Thompson())
    shop = Shop(policy=policy)
    shop.teach(taught(policy.rule, seed=1))
    text = shown(shop.one(shop.view()), policy)
    assert "user vector (16)" in text and "user vector 0" not in text and "-0.0000" not in text
    assert "no model was in force" in text
    assert "当时没有启用模型" in shown(shop.one(shop.view(user="bob")), policy, "zh")


@pytest.mark.parametrize("rule", [Thompson(), LinearQ()], ids=["demand", "value"])
def test_before_anything_was_learned_the_sentence_claims_no_past_purchases(rule):
    policy = Policy(name="any", number=1, rule=replace(rule, explore=0.0), rails=Rails(charm_endings=()))
    aimed = next(
        one for one in Shop(policy=policy).feed(*[Shop().view(user=f"u{n}") for n in range(40)]) if not one.explored
    )
    english, chinese = (" ".join(shown(aimed, policy, language).split()) for language in ("en", "zh"))
    assert "nothing has been learned yet, so the policy goes by the assumption it starts from" in english
    assert "past" not in english
    assert "策略尚未学到任何东西" in chinese
    assert "以往" not in chinese
    told = as_json(explain_decision(aimed, Background(policy=policy)), "en")
    assert "nothing has been learned yet" in told["sentence"]


def test_once_something_was_learned_past_purchases_speak():
    policy = Policy(name="any", number=1, rule=Thompson(explore=0.0))
    shop = Shop(policy=policy)
    shop.teach(taught(policy.rule, seed=1))
    aimed = next(one for one in shop.feed(*[shop.view(user=f"u{n}") for n in range(40)]) if not one.explored)
    assert "past purchases suggest" in shown(aimed, policy)


def test_every_feature_that_adds_something_has_a_row_of_its_own():
    policy = Policy(name="any", number=1, rule=Thompson(features=Features(names=("intent", "price"))))
    shop = Shop(item(list_price=45_949), policy=policy)
    text = shown(shop.one(shop.view()), policy)
    assert "intent of this session" in text and "list price (logarithm)" in text
    assert "no model" not in text and "vector" not in text


def test_an_id_or_a_file_that_is_not_there_is_a_sentence(shop, tmp_path):
    folder, ids = shop
    with pytest.raises(BadInput, match="There is no decision 'beef' in"):
        in_files(folder / "d.parquet", None, "beef")
    with pytest.raises(BadInput, match="There is no file"):
        in_files(tmp_path / "none.parquet", None, "beef")
    with pytest.raises(BadInput, match="is no file of decisions"):
        list(decisions_in(_parquet_of_something_else(tmp_path)))
    assert CliRunner().invoke(explain, [ids["drawn"], "--log", str(folder / "log")]).exit_code == 2
    assert run(folder, ids["drawn"], "--shadow").exit_code == 2


def _parquet_of_something_else(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), folder / "a.parquet")
    return folder / "a.parquet"
