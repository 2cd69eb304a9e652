"""The guard on a real broker: prices beyond their limits throw the kill switch that workers and subscribers read."""

from __future__ import annotations

from click.testing import CliRunner
from kafka import KafkaProducer
from msgspec.structs import replace

from contracts.decisions import decision_key, encode_decision
from contracts.policies import BUILTIN
from streams.guard_commands import guard
from streams.policy_log import read_policy_log
from streams.topics import create_topics
from tests.pricing.shop import Shop

MINUTE_MS = 60_000
LIMITS = "[prices]\nwindow_ms = 600000\ndraws_min = 20\n"


def publish(settings, price: int, minute: int, count: int = 30) -> None:
    shop = Shop()
    one = shop.one(shop.view())
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers)
    for n in range(count):
        at = one.event_time_ms + minute * MINUTE_MS
        decision = replace(
            one, user=f"user {n}", price=price, policy=BUILTIN.version, event_time_ms=at, policies_seen=99
        )
        key = decision_key(decision.user, decision.decision_id)
        producer.send(settings.topics.decisions, encode_decision(decision), key, partition=n % 2)
    producer.close()


def test_the_guard_throws_the_kill_switch_and_says_why(deploy, flags, tmp_path):
    settings = deploy()
    create_topics(settings)
    limits = tmp_path / "guard.toml"
    limits.write_text(LIMITS, encoding="utf-8")
    words = ["--limits", str(limits), "--until-idle", "2", *flags(settings)]
    publish(settings, 9_000, minute=0)
    publish(settings, 9_000, minute=1)
    fine = CliRunner().invoke(guard, words)
    assert (fine.exit_code, fine.output) == (0, "")
    assert not read_policy_log(settings).book.kill_switch
    publish(settings, 1_000, minute=2)
    publish(settings, 9_000, minute=3)
    beyond = CliRunner().invoke(guard, words)
    assert beyond.exit_code == 1, beyond.output
    assert "The kill switch is on: guard: mean multiplier of" in beyond.output
    log = read_policy_log(settings)
    assert log.book.kill_switch
    assert log.entries[-1].title.startswith("kill switch on: guard: mean multiplier of")
    again = CliRunner().invoke(guard, words)
    assert again.exit_code == 0, "it is on: there is nothing to throw"
