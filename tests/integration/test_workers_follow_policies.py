"""Workers under an operator's hands: policies changed by command between pieces of a log, and what every decision says of it."""

from __future__ import annotations

import json
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from deployment import Deployment, as_arguments, difference, expected

from backtest.shoppers import generate_log
from contracts.decisions import Decision, decode_decision
from contracts.log import open_log
from contracts.log_writer import LogWriter
from contracts.policies import PolicyBook
from pricetide import command_line
from streams import decision_search
from streams.broker import committed_records
from streams.explain_commands import explain

BATCH_MAX = 50
SHADOWS = {2: "bolder@1", 4: "--off"}
"""What decides as a shadow from the piece of this number on."""
EVENTS, USERS = 600, 60
PIECE_MS = 21_600_000
POLICY = """
name = "{name}"
[rule]
kind = "session_intent"
discounts_permille = [{discount}]
explore = 0.5
"""


def piece_of_log(directory: Path, number: int, deployment: Deployment) -> Path:
    """Write the log of what the same shoppers do in the shift `number`; the shop and its first policy are in the first."""
    generate_log(directory / "whole", USERS, EVENTS, 50 + number, deployment.topology)
    if number == 0:
        return directory / "whole"
    log = open_log(directory / "whole")
    rows = list(log.rows())
    for row in rows:
        row.event_id = None if row.event_id is None else f"{number}-{row.event_id}"
        row.event_time_ms = None if row.event_time_ms is None else row.event_time_ms + number * PIECE_MS
        row.arrival_ms += number * PIECE_MS
    with LogWriter(directory / "piece", log.manifest) as writer:
        writer.rows(rows)
    return directory / "piece"


def run(deployment: Deployment, *words: str) -> str:
    done = CliRunner().invoke(command_line, [*words, *as_arguments(deployment.flags)])
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.stdout


def books(deployment: Deployment) -> dict[int, tuple[str, bool]]:
    """Return, by offset after each record of the policies topic, what is current and whether the kill switch is on."""
    book, seen = PolicyBook(), {}
    for record in committed_records(deployment.settings, [deployment.settings.topics.policies]):
        book.apply(record.offset, record.key, record.value)
        seen[book.seen] = (book.current.version, book.kill_switch)
    return seen


def test_workers_follow_apply_rollback_and_kill_switch_and_stamp_what_they_followed(
    kafka, unique, tmp_path, monkeypatch
):
    monkeypatch.setattr(decision_search, "BLOCK", 64)  # the search goes back over several blocks
    for name, discount in (("bolder", 250), ("milder", 50)):
        (tmp_path / f"{name}.toml").write_text(POLICY.format(name=name, discount=discount), encoding="utf-8")
    steps: list[tuple[tuple[str, ...], tuple[str, bool]]] = [
        ((), ("session_intent@1", False)),
        (("policy", "apply", str(tmp_path / "bolder.toml")), ("bolder@1", False)),
        (("policy", "apply", str(tmp_path / "milder.toml")), ("milder@1", False)),
        (("policy", "rollback"), ("bolder@1", False)),
        (("killswitch", "on", "--reason", "drill"), ("bolder@1", True)),
        (("policy", "rollback", "milder@1"), ("milder@1", True)),
        (("killswitch", "off"), ("milder@1", False)),
    ]
    with Deployment(kafka, unique, tmp_path, partitions=2, batch_max=BATCH_MAX) as deployment:
        deployment.create()
        for name in ("first", "second"):
            deployment.worker(name).wait_until_said("restored")
        for number, (words, _) in enumerate(steps):
            if words:
                run(deployment, *words)
            if number in SHADOWS:
                assert "next batch" in run(deployment, "policy", "shadow", SHADOWS[number])
            deployment.produce(piece_of_log(tmp_path / str(number), number, deployment))
            deployment.wait_until_applied(120)
        published = deployment.published()
        seen = books(deployment)
        replayed = expected(deployment.record(tmp_path / "recorded"), batch_max=13)
        check_explanations(deployment, decisions_of(published.decisions), decisions_of(published.shadows))
    assert difference(replayed, published) == ""
    check_shadows(decisions_of(published.decisions), decisions_of(published.shadows))
    for pairs in published.decisions:
        records = [decode_decision(value) for _, value in pairs]
        check_partition([one for one in records if isinstance(one, Decision)], seen, [state for _, state in steps])


def decisions_of(published: list[list[tuple[bytes, bytes]]]) -> list[Decision]:
    records = [decode_decision(value) for _, value in chain.from_iterable(published)]
    return [one for one in records if isinstance(one, Decision)]


def check_shadows(decisions: list[Decision], shadows: list[Decision]) -> None:
    """While it was one, the shadow decided every draw; a batch of each partition may have been under way as that changed."""
    draws = {one.decision_id: one for one in decisions if one.status == "drawn"}
    inside = [one for one in draws.values() if (one.event_id or "").startswith(("2-", "3-"))]
    assert {one.policy for one in shadows} == {"bolder@1"}
    assert {one.decision_id for one in shadows} <= draws.keys()
    assert len(inside) - 2 * BATCH_MAX <= len(shadows) <= len(inside) + 2 * BATCH_MAX
    assert len(shadows) > 2 * BATCH_MAX
    assert len({one.price for one in shadows} - {draws[one.decision_id].price for one in shadows}) > 0


def check_explanations(deployment: Deployment, decisions: list[Decision], shadows: list[Decision]) -> None:
    """`pricetide explain` finds a price of every status by its id alone, and makes each again to the same bytes."""
    old, held = (next(one for one in decisions if one.status == status) for status in ("drawn", "held"))
    bought = next(one for one in reversed(decisions) if one.status == "list")
    for one, *more in ((old,), (held, "--user", held.user), (bought,), (shadows[-1], "--shadow")):
        words = [one.decision_id, "--json", *more]
        done = CliRunner().invoke(explain, [*words, *as_arguments(deployment.flags)])
        assert done.exit_code == 0, (done.output, done.exception)
        plain = json.loads(done.stdout)
        assert (plain["decision"]["decision_id"], plain["decision"]["policy"]) == (one.decision_id, one.policy)
        assert {check["agrees"] for check in plain["checks"]} == {True}


def check_partition(decisions: list[Decision], seen: dict[int, Any], states: list[tuple[str, bool]]) -> None:
    """Every decision is by the policy that its `policies_seen` says; each piece begins and ends under the right one."""
    for one in decisions:
        current, killed = seen[one.policies_seen]
        assert one.policy == current
        assert not killed or one.price == one.list_price, one
        assert not killed or one.status != "drawn" or one.forced, one
    in_order = [state for state, _ in groupby(seen[one.policies_seen] for one in decisions)]
    assert in_order == states
    for number, state in enumerate(states[1:], 1):
        piece = [one for one in decisions if (one.event_id or "").startswith(f"{number}-")]
        stale = [one for one in piece if seen[one.policies_seen] != state]
        assert len(stale) <= BATCH_MAX < len(piece)
    discounts = {one.list_price - one.price for one in decisions if one.policy.startswith("bolder")}
    assert len(discounts) > 2, "the policies made prices, not the kill switch alone"
