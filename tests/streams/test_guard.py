"""streams.guard without a broker: what a fetch leads to, limits from a file, and recorded decisions judged offline."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from kafka import TopicPartition
from msgspec.structs import replace

from backtest.run import run_backtest
from backtest.shoppers import generate_log
from contracts.decisions import decode_decision, encode_decision
from contracts.errors import BadInput, BadSettings
from contracts.policies import CurrentPolicy, KillSwitch, Policy, SessionIntent, encode_policy, policy_key
from contracts.semantics import Topology
from pricing.price_watch import Limits
from pricing.review import Guarded
from pricing.tenure import TenureTest
from streams import guard as guard_module
from streams.guard import Guard, read_limits
from streams.guard_commands import guard as guard_command
from streams.settings import load_settings
from tests.pricing.shop import Shop

GUARDED = Guarded(prices=Limits(window_ms=600_000, draws_min=3), tenure=TenureTest(period_ms=3_600_000, users_min=3))
POLICY = Policy(name="any", number=1, rule=SessionIntent())
HOUR = 3_600_000


def draws(price: int, minute: float = 0.0, users: int = 5, sequence: int = 1, **more):
    shop = Shop()
    one = shop.one(shop.view())
    at = one.event_time_ms - one.event_time_ms % HOUR + int(minute * 60_000)
    return [
        replace(one, user=f"{minute}-{sequence}-{n}", price=price + n, event_time_ms=at, sequence=sequence, **more)
        for n in range(users)
    ]


def fetch(guard: Guard, decisions=(), policies=(), first: int = 0, partition: int = 0):
    topics = load_settings().topics
    values = [encode_decision(one) for one in decisions]
    polled = {
        TopicPartition(topics.decisions, partition): [SimpleNamespace(value=value) for value in values],
        TopicPartition(topics.policies, 0): [
            SimpleNamespace(offset=first + n, key=policy_key(one), value=encode_policy(one))
            for n, one in enumerate(policies)
        ],
    }
    return guard.apply(polled)


@pytest.fixture
def thrown(monkeypatch):
    """Every kill switch that is thrown, instead of a broker."""
    switches = []
    monkeypatch.setattr(guard_module, "throw_kill_switch", lambda settings, switch: switches.append(switch))
    return switches


def test_prices_beyond_a_limit_throw_the_kill_switch_with_the_reason(thrown):
    guard = Guard(load_settings(), GUARDED)
    assert fetch(guard, draws(5_000)) is None, "the tile is not over"
    reason = fetch(guard, draws(9_000, minute=2))
    assert thrown == [KillSwitch(on=True, reason=reason)]
    assert reason.startswith("guard: mean multiplier of 500 permille, below 800")
    windows = guard.metrics.registry.get_sample_value("pricetide_guard_breaches_total", {"what": "mean_min_permille"})
    assert windows == 1, "of all partitions, which are this one alone"


def test_every_breach_is_a_series_from_the_start_so_that_the_first_one_is_an_increase():
    value = Guard(load_settings(), GUARDED).metrics.registry.get_sample_value
    judged = set(Limits.__struct_fields__) - {"window_ms", "draws_min"}
    assert {value("pricetide_guard_breaches_total", {"what": what}) for what in judged} == {0.0}


def test_a_partition_that_lags_half_an_hour_throws_it_too(thrown):
    guard = Guard(load_settings(), GUARDED)
    assert fetch(guard, draws(9_500, minute=30, users=100)) is None
    assert fetch(guard, draws(9_500, minute=31, users=100)) is None
    assert fetch(guard, draws(100, minute=0), partition=1) is None, "the tile is not over"
    reason = fetch(guard, draws(100, minute=2), partition=1)
    assert reason == "guard: mean multiplier of 10 permille, below 800 (5 draws of partition 1)"
    assert thrown == [KillSwitch(on=True, reason=reason)]
    value = guard.metrics.registry.get_sample_value
    assert value("pricetide_guard_late_decisions") == 10
    assert value("pricetide_guard_mean_multiplier") > 0.9, "what is shown is of all partitions"


def test_prices_within_the_limits_throw_nothing(thrown):
    guard = Guard(load_settings(), GUARDED)
    for minute in range(30):
        assert fetch(guard, draws(9_000, minute)) is None
    assert thrown == []
    assert guard.metrics.registry.get_sample_value("pricetide_guard_mean_multiplier") == pytest.approx(0.9, abs=1e-3)


def test_who_wants_an_alarm_only_gets_one_and_a_switch_that_is_on_is_not_thrown_again(thrown):
    alarm = Guard(load_settings(), GUARDED, alarm_only=True)
    killed = Guard(load_settings(), GUARDED)
    fetch(killed, policies=[KillSwitch(on=True)])
    for one in (alarm, killed):
        fetch(one, draws(5_000, policies_seen=9))
        assert fetch(one, draws(5_000, minute=2, policies_seen=9)) is None
        assert (
            one.metrics.registry.get_sample_value("pricetide_guard_breaches_total", {"what": "mean_min_permille"}) == 1
        )
    assert thrown == []


def test_a_policy_is_judged_by_its_own_prices(thrown):
    guard = Guard(load_settings(), GUARDED)
    fetch(guard, draws(5_000, policies_seen=0))
    fetch(guard, policies=[POLICY, CurrentPolicy(name="any", number=1)])
    fetch(guard, draws(5_000, minute=1, policies_seen=1))
    assert fetch(guard, draws(9_000, minute=3, policies_seen=2)) is None
    assert fetch(guard, draws(9_000, minute=5, policies_seen=2)) is None
    assert thrown == []


@pytest.mark.parametrize("kills", [False, True])
def test_loyal_customers_who_pay_more_are_an_alarm_and_on_request_a_reason_to_stop(thrown, kills, caplog):
    guard = Guard(load_settings(), GUARDED, tenure_kills=kills)
    fetch(guard, [*draws(9_000, users=20), *draws(9_900, users=20, sequence=500)])
    reason = fetch(guard, draws(9_000, minute=61))
    assert "price rises with tenure" in caplog.text
    assert guard.metrics.registry.get_sample_value("pricetide_guard_loyal_pay_more") == 1
    assert len(thrown) == kills
    assert (reason is not None) is kills


def test_erased_and_unpriced_records_are_passed_over():
    guard = Guard(load_settings(), GUARDED)
    shop = Shop()
    applied = shop.one(shop.consent(True))
    topic = load_settings().topics.decisions
    records = [SimpleNamespace(value=None), SimpleNamespace(value=encode_decision(applied))]
    assert guard.apply({TopicPartition(topic, 0): records}) is None
    assert guard.metrics.registry.get_sample_value("pricetide_guard_decisions_total") == 0


@pytest.mark.parametrize("value", [b"{", b"\xff", b'{"x":' * 50_000], ids=["cut", "no text", "nested"])
def test_a_record_that_is_no_decision_is_told_and_the_watch_goes_on(thrown, caplog, value):
    guard = Guard(load_settings(), GUARDED)
    guard.apply({TopicPartition(load_settings().topics.decisions, 2): [SimpleNamespace(offset=40, value=value)]})
    assert "decisions/2 offset 40 is no decision" in caplog.text
    fetch(guard, draws(5_000))
    assert fetch(guard, draws(9_000, minute=2)) is not None
    assert len(thrown) == 1


def test_limits_come_from_a_toml_file(tmp_path):
    path = tmp_path / "guard.toml"
    path.write_text("[prices]\nmean_min_permille = 850\n[tenure]\nbands = [5, 50]\n", encoding="utf-8")
    limits = read_limits(path)
    assert (limits.prices.mean_min_permille, limits.tenure.bands) == (850, (5, 50))
    assert read_limits(None) == Guarded()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[prices]\nmean_min = 1", "unknown field `mean_min`"),
        ("[prices]\nlowest_share_max = 2.0", "<= 1.0"),
        (
            "[prices]\nmean_min_permille = 900\nmean_max_permille = 850",
            "prices.mean_min_permille, 900, must not lie above prices.mean_max_permille, 850",
        ),
        ("[prices]\nmean_min_permille = 1021", "must not lie above prices.mean_max_permille, 1020"),
        ("[tenure]\nbands = []", "at least one event count"),
        ("prices", "holds no limits for the guard"),
    ],
)
def test_a_file_that_holds_no_limits_is_a_sentence(tmp_path, text, says):
    path = tmp_path / "guard.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=says):
        read_limits(path)
    with pytest.raises(BadInput, match="cannot be read"):
        read_limits(tmp_path / "none.toml")


def test_recorded_decisions_are_judged_offline(tmp_path):
    generate_log(tmp_path / "log", users=30, events=400, seed=1, topology=Topology(partitions=2), file_format="jsonl")
    run_backtest(tmp_path / "log", decisions=tmp_path / "d.parquet")
    limits = tmp_path / "guard.toml"
    words = ["--file", str(tmp_path / "d.parquet"), "--log", str(tmp_path / "log"), "--limits", str(limits)]
    limits.write_text("[prices]\nwindow_ms = 3600000\ndraws_min = 5\nmean_min_permille = 500\n", encoding="utf-8")
    fine = CliRunner().invoke(guard_command, words, catch_exceptions=False)
    assert fine.exit_code == 0
    assert "mean multiplier, permille" in fine.stdout
    limits.write_text("[prices]\nwindow_ms = 3600000\ndraws_min = 5\nmean_min_permille = 999\n", encoding="utf-8")
    beyond = CliRunner().invoke(guard_command, words, catch_exceptions=False)
    assert beyond.exit_code == 1
    assert "beyond its limit: mean multiplier of" in beyond.stdout
    found = json.loads(CliRunner().invoke(guard_command, [*words, "--json"]).stdout)
    assert {breach["what"] for breach in found["breaches"]} == {"mean_min_permille"}
    assert len(found["breaches"]) == len(found["windows"]) > 3
    assert decode_decision(encode_decision(draws(1)[0])).price == 1


def test_a_metrics_port_that_is_taken_is_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = CliRunner().invoke(guard_command, ["--metrics-port", str(port)])
    assert isinstance(outcome.exception, BadSettings)
    assert str(outcome.exception).startswith(f"Cannot listen on 127.0.0.1:{port}: Address already in use")
