"""Policies changed by command on a real broker: numbers, turns of several operators, and what the topic holds afterwards."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kafka import KafkaProducer
from msgspec.structs import replace

from contracts.errors import BadReference, BrokerUnavailable, PricetideError
from contracts.policies import (
    CurrentPolicy,
    KillSwitch,
    ListPrice,
    Policy,
    PolicyBook,
    SessionIntent,
    encode_policy,
    policy_key,
)
from contracts.rules import Thompson
from pricetide import command_line
from streams.broker import committed_records, producing
from streams.kill_switch import throw_kill_switch
from streams.policy_changes import apply_policy, rollback
from streams.policy_log import read_policy_log
from streams.policy_publisher import Publisher, learner_id, publishing, transactional_id
from streams.settings import Settings
from streams.topics import create_topics

LIST = Policy(name="list", number=1, rule=ListPrice())
CAREFUL = Policy(name="careful", number=1, rule=SessionIntent(explore=0.1))
BOLD = Policy(name="careful", number=1, rule=SessionIntent(explore=0.5))


@pytest.fixture
def settings(deploy) -> Settings:
    made = deploy()
    create_topics(made)
    return made


@pytest.fixture
def run(settings, flags):
    def command(*words: str) -> Result:
        return CliRunner().invoke(command_line, [*words, *flags(settings)])

    return command


def file_of(directory: Path, explore: float, more: str = "") -> str:
    path = directory / f"careful-{explore}.toml"
    path.write_text(f'name = "careful"\n{more}[rule]\nkind = "session_intent"\nexplore = {explore}\n', encoding="utf-8")
    return str(path)


def on_topic(settings: Settings) -> list[tuple[bytes, bytes]]:
    return [(one.key, one.value) for one in committed_records(settings, [settings.topics.policies])]


def compacted(settings: Settings) -> PolicyBook:
    """Return the book of a worker that starts when compaction has left the last record of each key."""
    records = on_topic(settings)
    last = {key: number for number, (key, _) in enumerate(records)}
    book = PolicyBook()
    for number in sorted(last.values()):
        book.apply(number, *records[number])
    return book


def test_an_operator_applies_rolls_back_and_reads_what_happened(settings, run, tmp_path):
    assert "builtin: sets prices; none is published" in run("policy", "show").stdout
    first = run("policy", "apply", file_of(tmp_path, 0.1))
    assert first.exit_code == 0
    assert "Published careful@1 at offset 0." in first.stdout
    assert "careful@1 is current instead of builtin" in first.stdout
    second = run("policy", "apply", file_of(tmp_path, 0.4))
    assert "careful@2 is current instead of careful@1" in second.stdout
    assert "  rule.explore  0.1 -> 0.4" in second.stdout
    assert "careful@2: sets prices since" in run("policy", "show").stdout

    back = run("policy", "rollback")
    assert "careful@1 is current instead of careful@2" in back.stdout
    assert "  rule.explore  0.4 -> 0.1" in back.stdout
    assert "careful@2 is current" in run("policy", "rollback", "careful@2").stdout
    assert "careful@2 is current already: nothing changes." in run("policy", "rollback", "careful@2").stdout

    run("killswitch", "on", "--reason", "drill")
    assert "The kill switch is on since" in run("policy", "show").stdout
    assert "until `pricetide killswitch off`" in run("policy", "rollback").stdout
    told = [json.loads(line)["title"] for line in run("policy", "history", "--json").stdout.splitlines()]
    assert told == [
        "version careful@1", "current: careful@1", "version careful@2", "current: careful@2", "current: careful@1",
        "current: careful@2", "kill switch on: drill", "current: careful@1",
    ]  # fmt: skip
    assert "kill switch on: drill" in run("policy", "history").stdout
    shown = json.loads(run("policy", "show", "--json").stdout)
    assert (shown["current"]["version"], shown["kill_switch"]["on"]) == ("careful@1", True)
    assert run("policy", "show", "careful@2", "--toml").stdout.startswith('# careful@2\nname = "careful"\n')


def test_the_same_content_is_not_published_twice_and_is_made_current_if_it_was_not(settings, run, tmp_path):
    path = file_of(tmp_path, 0.3)
    assert "builtin stays current. What careful@1 would change:" in run("policy", "apply", path, "--no-activate").stdout
    assert len(on_topic(settings)) == 1
    again = run("policy", "apply", path).stdout
    assert "careful@1 says the same and is the newest of its name: nothing was published again." in again
    assert "careful@1 is current instead of builtin" in again
    assert "careful@1 is current already: nothing changes." in run("policy", "apply", path).stdout
    assert [key for key, _ in on_topic(settings)] == [b"careful/1", b"current"]


def test_going_back_behind_the_first_policy_leads_to_the_builtin_one_and_no_further(settings, run):
    nothing = run("policy", "rollback")
    assert "No policy that was current before is left on the topic" in str(nothing.exception)
    apply_policy(settings, CAREFUL)
    assert "builtin is current instead of careful@1" in run("policy", "rollback").stdout
    assert read_policy_log(settings).book.current.version == "builtin"
    assert "careful@1 is current instead of builtin" in run("policy", "rollback").stdout
    assert "there is careful@1" in str(run("policy", "rollback", "careful@9").exception)
    assert read_policy_log(settings).book.current == CAREFUL


MADE = replace(CAREFUL, name="made", model="0123456789abcdef", fallback="list@1")


def test_what_workers_would_refuse_is_not_published(settings):
    with pytest.raises(
        BadReference, match="made@1 falls back to list@1, which is not on the topic: publish that first"
    ):
        apply_policy(settings, MADE)
    assert on_topic(settings) == []
    apply_policy(settings, LIST)
    assert apply_policy(settings, MADE).policy == MADE
    with pytest.raises(BadReference, match="made for a model, too"):
        apply_policy(settings, replace(MADE, name="chained", fallback="made@1"))
    assert read_policy_log(settings).book.in_force(None) == LIST


# -- several operators -------------------------------------------------------------------------------------------------


def test_an_operator_who_was_overtaken_publishes_nothing_and_hears_what_the_other_did(settings):
    with publishing(settings) as slow:
        log = slow.read()
        assert log.next_number("careful") == 1
        assert apply_policy(settings, BOLD).policy == BOLD
        with pytest.raises(BrokerUnavailable) as caught:
            slow.publish(CAREFUL)
    said = str(caught.value)
    assert "this was not published: version careful@1" in said
    assert "New on the topic: version careful@1; current: careful@1" in said
    assert read_policy_log(settings).book.current == BOLD
    assert len(on_topic(settings)) == 2


def test_operators_who_apply_at_once_never_give_one_number_to_two_contents(settings):
    drafts = [replace(CAREFUL, seed=seed) for seed in range(4)]

    def apply(draft: Policy) -> Any:
        try:
            return apply_policy(settings, draft)
        except PricetideError as error:
            return error

    with ThreadPoolExecutor(len(drafts)) as operators:
        done = list(operators.map(apply, drafts))
    log = read_policy_log(settings)
    assert not [entry for entry in log.entries if entry.refused]
    assert len({key for key, _ in on_topic(settings) if key != b"current"}) == len(log.versions)
    refused = [one for one in done if isinstance(one, PricetideError)]
    assert all("Another operator is changing the policies" in str(error) for error in refused)
    applied = [one.policy for one in done if not isinstance(one, PricetideError)]
    assert applied
    assert all(log.versions[policy.version] == policy for policy in applied)
    assert (compacted(settings).current, compacted(settings).kill_switch) == (log.book.current, False)


@pytest.mark.parametrize("activate", [True, False])
def test_a_number_taken_by_somebody_without_the_lock_stays_theirs_also_under_compaction(
    settings, monkeypatch, activate
):
    """Its record lies before ours, which compaction alone would keep: a worker that starts later would take ours for it."""
    publish, foreign = Publisher.publish, [BOLD, *([CurrentPolicy(name="careful", number=1)] if activate else [])]

    def overtaken(self: Publisher, record: Any, replaces: str | None = None) -> int:
        with producing(settings) as producer:
            while foreign:
                one = foreign.pop(0)
                producer.send(settings.topics.policies, encode_policy(one), policy_key(one), partition=0).get(10)
        return publish(self, record, replaces)

    apply_policy(settings, LIST)
    monkeypatch.setattr(Publisher, "publish", overtaken)
    with pytest.raises(
        BrokerUnavailable, match=r"Somebody else published careful@1 at the same moment, with other content"
    ):
        apply_policy(settings, CAREFUL)
    log = read_policy_log(settings)
    assert log.versions["careful@1"] == BOLD
    assert log.book.current == (BOLD if activate else LIST)
    book = compacted(settings)
    assert book.current == log.book.current
    book.apply(book.seen, b"current", encode_policy(CurrentPolicy(name="careful", number=1)))
    assert book.current == BOLD, "the number means one policy for old and for new workers"


@pytest.mark.parametrize("who", ["a command", "a learner"])
def test_who_died_half_way_does_not_hide_the_kill_switch(settings, who):
    demand = Policy(name="demand", number=1, rule=Thompson())
    name = transactional_id(settings) if who == "a command" else learner_id(settings, demand)
    apply_policy(settings, demand)
    died = KafkaProducer(**settings.kafka.kafka_python(), transactional_id=name, transaction_timeout_ms=600_000)
    died.init_transactions()
    died.begin_transaction()
    died.send(settings.topics.policies, encode_policy(CAREFUL), policy_key(CAREFUL), partition=0).get(10)
    try:
        assert throw_kill_switch(settings, KillSwitch(on=True, reason="drill")).kill_switch
        assert [key for key, _ in on_topic(settings)] == [b"demand/1", b"current", b"killswitch"]
    finally:
        died.close(timeout=1)


def test_rolling_back_names_the_version_that_it_replaces_for_the_time_after_compaction(settings):
    for draft in (CAREFUL, BOLD):
        apply_policy(settings, draft)
    rollback(settings)
    pointer = read_policy_log(settings).in_force()
    assert pointer is not None
    assert pointer.replaces == "careful@2"
