"""streams.policy_log, policy_pages, policy_commands: what the topic holds, as people see it. Kafka: tests/integration."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest
from click.testing import CliRunner
from rich.console import Console

from contracts.errors import BadInput
from contracts.learned import CurrentLearned, Learned, digest_of, payload_of
from contracts.policies import (
    BUILTIN,
    CurrentPolicy,
    KillSwitch,
    ListPrice,
    Policy,
    Rails,
    Rule,
    SessionIntent,
    ShadowPolicy,
    encode_policy,
    policy_key,
)
from contracts.policy_files import decode_policy_file
from contracts.rules import DiscountBudget, Features, Money, Thompson
from pricetide import main
from pricing.demand import Posterior
from streams.policy_commands import policy as policy_command
from streams.policy_log import PolicyLog
from streams.policy_pages import (
    differences,
    force_json,
    force_page,
    history_json,
    history_page,
    policy_file,
    policy_json,
    policy_table,
)

LIST = Policy(name="list", number=1, rule=ListPrice())
FIRST = Policy(name="intent", number=1, rule=SessionIntent())
SECOND = Policy(name="intent", number=2, rule=SessionIntent(explore=0.5), rails=Rails(raise_markets=("DE", "FR")))
MADE = Policy(name="made", number=1, rule=SessionIntent(), model="0123456789abcdef", fallback="list@1")
ON = KillSwitch(on=True, reason="margin alarm")


def current(policy):
    return CurrentPolicy(name=policy.name, number=policy.number)


def record_of(offset, what):
    """Return a record as kafka-python gives it, of a message, a (message, replaced version), or a (key, value)."""
    headers = []
    if isinstance(what, tuple) and isinstance(what[0], msgspec.Struct):
        what, replaces = what
        headers = [("schema-version", b"1"), ("replaces", replaces.encode())]
    key, value = what if isinstance(what, tuple) else (policy_key(what), encode_policy(what))
    return SimpleNamespace(offset=offset, timestamp=1_795_000_000_000 + offset, key=key, value=value, headers=headers)


def log_of(*records):
    return PolicyLog(record_of(offset, what) for offset, what in enumerate(records))


def text_of(page):
    console = Console(width=160, record=True, file=StringIO())
    console.print(page)
    return console.export_text()


# -- the log -----------------------------------------------------------------------------------------------------------


def test_numbers_go_on_after_the_highest_that_a_name_has_had():
    log = log_of(FIRST, SECOND, LIST, (b"intent/2", None), (b"intent/7", b"not json"))
    assert (log.next_number("intent"), log.next_number("list"), log.next_number("new")) == (8, 2, 1)
    assert log.newest("intent") == FIRST, "what was removed or refused is no version"
    assert log.newest("new") is None


def test_a_version_is_found_by_name_and_number_and_the_newest_by_name():
    log = log_of(FIRST, SECOND)
    assert (log.policy("intent@1"), log.policy("intent"), log.policy("builtin")) == (FIRST, SECOND, BUILTIN)
    with pytest.raises(BadInput, match="no policy 'intent@3' on the topic; there is intent@1, intent@2"):
        log.policy("intent@3")
    with pytest.raises(BadInput, match="none yet: publish one"):
        log_of().policy("intent")


def test_the_one_before_is_the_last_other_one_that_was_current():
    log = log_of(FIRST, SECOND, current(FIRST), current(SECOND), ON, current(SECOND))
    assert log.before() == "intent@1"
    assert log_of(FIRST, current(FIRST)).before() is None


def test_the_one_before_is_known_when_compaction_has_removed_its_record():
    assert log_of(FIRST, SECOND, (current(SECOND), "intent@1")).before() == "intent@1"
    assert log_of(FIRST, (current(FIRST), "builtin")).before() == "builtin"


def test_the_builtin_policy_made_current_again_is_a_change_like_any_other():
    log = log_of(FIRST, (current(FIRST), "builtin"), (current(BUILTIN), "intent@1"))
    assert (log.book.current, log.before()) == (BUILTIN, "intent@1")
    assert log.entries[-1].title == "current: builtin"
    page = text_of(force_page(log))
    assert "builtin: sets prices since 2026-11-18" in page
    assert "none is published" not in page


def test_what_workers_refuse_is_in_the_log_with_the_reason_and_changes_nothing():
    log = log_of(
        FIRST, current(FIRST), msgspec.structs.replace(FIRST, seed=9), current(SECOND), (b"\xff", b"{"), (None, None)
    )
    assert log.book.current == FIRST
    assert [bool(one.refused) for one in log.entries] == [False, False, True, True, True, False]
    assert "publish the next number" in log.entries[2].refused
    assert "publish it first" in log.entries[3].refused


# -- pages -------------------------------------------------------------------------------------------------------------

KINDS = [kind for kind in get_args(Rule) if not any(field.required for field in msgspec.structs.fields(kind))]
EXAMPLES = [BUILTIN, LIST, SECOND, MADE, *[Policy(name="any", number=3, rule=kind()) for kind in KINDS]]


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: f"{policy.version} {type(policy.rule).__name__}")
def test_a_policy_printed_as_a_file_is_the_same_policy(policy):
    text = policy_file(msgspec.structs.replace(policy, name="again"))
    again = decode_policy_file(text, "again.toml")
    assert msgspec.structs.replace(again, name=policy.name, number=policy.number) == policy


def test_differences_name_every_field_that_changes_from_what_to_what():
    assert differences(FIRST, SECOND) == [
        "  rule.explore         0.1 -> 0.5",
        "  rails.raise_markets  none -> DE, FR",
    ]
    assert differences(SECOND, LIST) == [
        "  rule.kind                session_intent -> list_price",
        "  rule.discounts_permille  250, 200, 150, 100, 50, 0 -> absent",
        "  rule.explore             0.5 -> absent",
        "  rails.raise_markets      DE, FR -> none",
    ]
    assert differences(FIRST, msgspec.structs.replace(FIRST, number=5)) == []


def test_the_page_of_what_is_in_force_says_what_prices_where():
    page = text_of(force_page(log_of(LIST, MADE, (current(MADE), "builtin"))))
    assert "made@1: sets prices since 2026-11-18" in page
    assert "list@1: prices where model 0123456789abcdef is not in force" in page
    assert "kill switch" not in page
    assert "builtin: sets prices; none is published" in text_of(force_page(log_of()))


def test_the_page_begins_with_a_kill_switch_that_is_on():
    page = text_of(force_page(log_of(FIRST, current(FIRST), ON)))
    assert page.startswith("The kill switch is on since 2026-11-18")
    assert "(margin alarm): everybody pays list price" in page
    assert "intent@1: sets prices when the kill switch is off" in page
    assert "kill switch" not in text_of(force_page(log_of(ON, KillSwitch(on=False))))


def test_the_page_names_the_shadow_and_the_history_its_changes():
    log = log_of(FIRST, SECOND, current(FIRST), ShadowPolicy(policy="intent@2"))
    assert "intent@2 decides beside it as a shadow: nobody is charged by it" in text_of(force_page(log))
    assert force_json(log)["shadow"] == "intent@2"
    ended = log_of(
        FIRST, SECOND, ShadowPolicy(policy="intent@2"), ShadowPolicy(policy=None), ShadowPolicy(policy="no@1")
    )
    assert force_json(ended)["shadow"] is None
    assert "shadow" not in text_of(force_page(ended))
    assert [one["title"] for one in history_json(ended)][2:4] == ["shadow: intent@2", "shadow: none"]
    assert "names policy no@1, which is not on the topic" in ended.entries[4].refused


def test_a_shadow_is_a_version_or_off_and_not_both_or_neither():
    for words in ([], ["intent@2", "--off"]):
        done = CliRunner().invoke(policy_command, ["shadow", *words])
        assert done.exit_code == 2
        assert "name a version, or say --off" in done.output


def test_what_is_in_force_as_json_names_versions_places_and_the_kill_switch():
    plain = force_json(log_of(LIST, MADE, current(MADE), ON))
    assert plain["kill_switch"] == {"on": True, "reason": "margin alarm", "time_ms": 1_795_000_000_003}
    assert (plain["current"]["version"], plain["current"]["offset"], plain["current_since_ms"]) == (
        "made@1",
        1,
        1_795_000_000_002,
    )
    assert (plain["fallback"]["version"], plain["fallback"]["rule"]) == ("list@1", {"kind": "list_price"})
    assert force_json(log_of())["current"] == {"version": "builtin"} | msgspec.to_builtins(BUILTIN)
    assert policy_json(FIRST, log_of(LIST, FIRST))["offset"] == 1


def test_the_history_tells_every_record_in_order_and_marks_what_holds():
    log = log_of(FIRST, current(FIRST), SECOND, (current(SECOND), "intent@1"), current(LIST), ON, (b"intent/1", None))
    told = [(one["offset"], one["title"], one["replaces"], one["mark"]) for one in history_json(log)]
    assert told == [
        (0, "version intent@1", None, None),
        (1, "current: intent@1", None, None),
        (2, "version intent@2", None, "current"),
        (3, "current: intent@2", "intent@1", "current"),
        (4, "unusable record 'current'", None, None),
        (5, "kill switch on: margin alarm", None, "on"),
        (6, "removal of intent/1", None, None),
    ]
    page = text_of(history_page(log))
    assert "in place of intent@1" in page
    assert "refused: Policy list@1 is not on the topic: publish it first" in page


DEMAND = Policy(name="demand", number=1, rule=Thompson(features=Features(names=("price",))))
BUDGETED = msgspec.structs.replace(
    DEMAND, rule=Thompson(features=Features(names=("price",)), money=Money(discount_budget=DiscountBudget(permille=50)))
)


def learned(number, weight=0.0, outcomes=12):
    content = Posterior(DEMAND.rule.prior, 2).encode()
    return Learned(
        name="demand", number=1, version=number, feature_version=1, payload=payload_of(content),
        digest=digest_of(content, weight), outcomes=outcomes, left={"influence": 3, "not_exposed": 1}, discount_weight=weight,
        positions=(5,), begins=(0,), resolved_ms=1_794_999_000_000,
    )  # fmt: skip


def test_a_policy_shows_what_it_has_learned():
    log = log_of(DEMAND, learned(1), CurrentLearned(name="demand", number=1, version=1), learned(2, outcomes=20))
    page = text_of(policy_table(DEMAND, log, "current"))
    assert "version 2 of 2026-11-18 11:06:40 UTC: 20 outcomes up to 2026-11-18 10:50:00 UTC" in " ".join(page.split())
    assert log.book.knowledge_of(DEMAND).digest in page
    assert "3 influence, 1 not_exposed; 0 came late" in page
    assert "lambda" not in page
    plain = policy_json(DEMAND, log)["learned"]
    assert (plain["version"], plain["payload"], plain["time_ms"]) == (2, "", 1_795_000_000_003)
    assert "learned" not in policy_json(FIRST, log_of(FIRST))


def test_a_policy_that_has_learned_nothing_says_so_and_one_with_a_budget_its_lambda():
    assert "nothing yet: it prices by what it assumes" in text_of(policy_table(DEMAND, log_of(DEMAND), "current"))
    assert "learned" not in text_of(policy_table(FIRST, log_of(FIRST), "current"))
    assert "0.25 (lambda of" in text_of(policy_table(BUDGETED, log_of(BUDGETED, learned(1, 0.25)), "current"))


def test_the_history_leaves_out_what_was_learned_unless_it_is_asked_for():
    log = log_of(DEMAND, learned(1), CurrentLearned(name="demand", number=1, version=1), (policy_key(learned(1)), None))
    assert [one["title"] for one in history_json(log)] == ["version demand@1"]
    assert [one["title"] for one in history_json(log, learned=True)][1:] == [
        "learned by demand@1: version 1",
        "learned by demand@1, current: version 1",
        "removal of demand/1/learned/1",
    ]
    assert "learned by" not in text_of(history_page(log))
    assert "learned by" in text_of(history_page(log, learned=True))


# -- commands that ask no broker ---------------------------------------------------------------------------------------


def test_check_says_what_a_file_is(tmp_path):
    path = tmp_path / "made.toml"
    path.write_text(policy_file(MADE), encoding="utf-8")
    done = CliRunner().invoke(policy_command, ["check", str(path)])
    assert done.exit_code == 0
    assert f"{path} is a policy: made, session_intent" in done.stdout
    assert "its fallback list@1 is published" in done.stdout
    assert "made for model 0123456789abcdef; without that one, list@1 prices" in done.stdout
    assert "Until it has learned" not in done.stdout


def test_check_says_what_a_policy_charges_before_it_has_learned(tmp_path):
    path = tmp_path / "learns.toml"
    path.write_text(policy_file(DEMAND), encoding="utf-8")
    assert "Until it has learned, a first look at an item of list price" in CliRunner().invoke(
        policy_command, ["check", str(path)]
    ).stdout  # fmt: skip


def test_check_warns_of_another_model_and_not_of_the_right_one(tmp_path):
    from features.artifact import artifact_digest

    model = tmp_path / "model"
    model.mkdir()
    (model / "manifest.json").write_text("{}", encoding="utf-8")
    for digest, warned in ((MADE.model, True), (artifact_digest(model), False)):
        path = tmp_path / "made.toml"
        path.write_text(policy_file(msgspec.structs.replace(MADE, model=digest)), encoding="utf-8")
        done = CliRunner().invoke(policy_command, ["check", str(path), "--model", str(model)])
        assert done.exit_code == 0
        assert (
            f"{model} is {artifact_digest(model)}: where that one is in force, list@1 prices" in done.stderr
        ) is warned


@pytest.mark.parametrize(
    ("dwell_ms", "window_ms", "warned"),
    [(1_800_000, None, False), (1_800_001, None, True), (7_200_000, 0, False), (7_200_000, 7_200_000, False)],
)
def test_apply_warns_of_offers_that_outlast_the_wait_for_their_outcome(
    tmp_path, monkeypatch, dwell_ms, window_ms, warned
):
    def stopped(*_, **__):
        raise BadInput("enough")

    monkeypatch.setattr("streams.policy_changes.apply_policy", stopped)
    path = tmp_path / "p.toml"
    path.write_text(f'name = "long"\nrule.kind = "list_price"\nrails.dwell_ms = {dwell_ms}\n', encoding="utf-8")
    window = [] if window_ms is None else [f"--set=semantics.outcome_window_ms={window_ms}"]
    done = CliRunner().invoke(policy_command, ["apply", str(path), *window])
    assert isinstance(done.exception, BadInput), "asked for nothing else, as what holds without consent"
    says = f"Warning: its offers stand for {dwell_ms} ms (rails.dwell_ms), longer than semantics.outcome_window_ms, 1800000"
    assert (says in done.stderr) is warned
    assert bool(done.stderr) is warned


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory; name a TOML file"),
        (b"\xff\xfe", "cannot be read: it is not UTF-8 text"),
        (b'name = "a"\nrule.kind = "list"\n', "line 2: rule.kind cannot be 'list'"),
    ],
)
def test_a_file_that_is_no_policy_is_a_sentence_and_exit_code_2(tmp_path, capsys, content, says):
    path = tmp_path / "p.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["policy", "check", str(path)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"pricetide: {path}")
    assert says in said
    assert "Traceback" not in said


def test_apply_looks_at_the_file_before_it_asks_a_broker(tmp_path, capsys, free_port):
    path = tmp_path / "p.toml"
    path.write_text("name = 1\nrule.kind = 'list_price'\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["policy", "apply", str(path), "--bootstrap-servers", f"127.0.0.1:{free_port()}"])
    assert ended.value.code == 2
    assert "name must be text, is a whole number" in capsys.readouterr().err
