"""Liveness fails only when a restart can help; readiness waits for everything that a price needs; metrics name every step."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest

from contracts.catalogue import Catalogue
from contracts.intake import Inbound, refuse
from features.profile import NOTHING
from features.state import UserState
from pricing.engine import PartitionState, Step
from streams.metrics import Metrics
from streams.session import Session
from streams.settings import load_settings
from streams.web import nearest_in_words, not_live, not_ready, user_page
from tests.features.letters import item

NOW_S, NOW_MS = 1_000.0, 1_762_160_400_000
STUCK = {"restored": True, "lag": 7, "committed_at": NOW_S - 61, "answered_ms": NOW_MS - 100}


def worker(
    joined: bool = True,
    rebalancing: bool = False,
    ready: bool = True,
    model: bool | None = None,
    unassigned_since: float | None = None,
    **session: Any,
) -> Any:
    """Return a worker as the pages see it; `model`: whether the one that it was given is loaded, None without one."""
    event = asyncio.Event()
    if ready:
        event.set()
    answered_ms = session.pop("answered_ms", NOW_MS)
    whole = {"partition": 3, "restored": True, "lag": 0, "committed_at": None, "opened_at": NOW_S - 5} | session
    one = SimpleNamespace(**whole, broker_answered_ms=lambda: answered_ms)
    references = SimpleNamespace(ready=event)
    settings = load_settings(**{"encoder.model": None if model is None else "artifact"})
    models = SimpleNamespace(current="encoder" if model else None)
    sessions = {3: one} if unassigned_since is None else {}
    shell = SimpleNamespace(settings=settings, sessions=sessions, references=references, joined=joined, models=models)
    shell.unassigned_since = unassigned_since
    return SimpleNamespace(shell=shell, rebalancing=rebalancing)


def test_a_worker_with_lag_and_a_broker_that_answers_and_no_commit_for_a_minute_is_not_live():
    assert not_live(worker(**STUCK), NOW_S, NOW_MS) == ["partition 3: 7 records behind, no commit for 61 s"]


@pytest.mark.parametrize(
    "excuse",
    [
        {"lag": 0},
        {"restored": False},
        {"answered_ms": NOW_MS - 6_000},
        {"committed_at": NOW_S - 59},
        {"committed_at": None, "opened_at": NOW_S - 59},
    ],
    ids=lambda excuse: ", ".join(excuse),
)
def test_what_a_restart_cannot_help_with_is_no_reason_for_one(excuse):
    assert not_live(worker(**(STUCK | excuse)), NOW_S, NOW_MS) == []


def test_a_worker_that_never_committed_is_judged_by_its_age():
    stuck = worker(**(STUCK | {"committed_at": None, "opened_at": NOW_S - 300}))
    assert not_live(stuck, NOW_S, NOW_MS) == ["partition 3: 7 records behind, no commit for 300 s"]


def test_a_rebalance_may_take_as_long_as_the_group_waits_for_its_slowest_member():
    assert not_live(worker(unassigned_since=NOW_S - 119), NOW_S, NOW_MS) == []


def test_a_worker_that_never_comes_out_of_a_rebalance_is_not_live():
    """The trap: while it gives up its partitions it has none, and so none that could be stuck."""
    stuck = ["rebalancing for 121 s without an assignment"]
    assert not_live(worker(unassigned_since=NOW_S - 121), NOW_S, NOW_MS) == stuck


@pytest.mark.parametrize(("committed_at", "last"), [(None, 5_000.0 - 300), (NOW_S - 7, 5_000.0 - 7)])
def test_the_last_commit_of_a_partition_is_at_first_the_marker_that_opened_it(committed_at, last):
    """The trap: an alert on the time since the last commit is silent about a worker that never made one."""
    metrics, session = Metrics(), object.__new__(Session)
    session.partition, session.restored, session.opened_at, session.committed_at = 3, True, NOW_S - 300, committed_at
    session._worker, session._timers, session._places = SimpleNamespace(metrics=metrics), (), []
    session._ledger = SimpleNamespace(positions=())
    session._consumer, session._store = SimpleNamespace(), SimpleNamespace(users=lambda: 0)
    session.gauge(NOW_S, 5_000.0)
    assert metrics.registry.get_sample_value("pricetide_last_commit_timestamp_seconds", {"partition": "3"}) == last


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        ({}, []),
        ({"ready": False}, ["catalogue and policies are being read"]),
        ({"joined": False}, ["the group is rebalancing"]),
        ({"rebalancing": True}, ["the group is rebalancing"]),
        ({"restored": False}, ["partition 3 is being restored"]),
        ({"model": False}, ["the model is being loaded"]),
        ({"model": True}, []),
    ],
)
def test_a_worker_is_ready_when_nothing_is_waited_for(state, waits):
    assert not_ready(worker(**state)) == waits


def a_worker_asked_in_words(found: list[tuple[str, float]] | None, text: str | None = "text") -> Any:
    """Return a worker whose words find `found`, with one item, kettle-1, in its catalogue; `asked` is what it was asked."""
    asked: list[tuple[str, str]] = []

    async def nearest(said: str, count: int, kind: str) -> list[tuple[str, float]] | None:
        asked.append((said, kind))
        return found

    catalogue = Catalogue()
    catalogue.add(0, item("kettle-1", "a kettle"))
    settings = load_settings(**{"encoder.text": text, "semantics.consent_default": True})
    shell = SimpleNamespace(
        settings=settings, words=SimpleNamespace(nearest=nearest), references=SimpleNamespace(catalogue=catalogue)
    )
    return SimpleNamespace(shell=shell, asked=asked)


async def test_the_page_of_a_user_has_the_profile_and_the_items_nearest_to_it_but_those_that_are_gone():
    app = a_worker_asked_in_words([("gone", 0.9), ("kettle-1", 0.5)])
    profile = (await user_page(app, UserState(sequence=1)))["profile"]
    assert profile == {"text": NOTHING, "nearest": [{"item": "kettle-1", "title": "a kettle", "cosine": 0.5}]}
    assert app.asked == [(NOTHING, "profile")]


async def test_the_page_of_a_user_is_the_state_alone_without_a_text_encoder():
    app = a_worker_asked_in_words([], text=None)
    page = json.loads(json.dumps(await user_page(app, UserState(sequence=7, minutes=b"abc"))))
    assert (page["sequence"], page["minutes"]) == (7, "YWJj")
    assert "profile" not in page
    assert app.asked == []


async def test_a_search_while_too_many_wait_has_no_answer():
    assert await nearest_in_words(a_worker_asked_in_words(None), "kettle", "query") is None


def test_the_counts_of_a_step_become_metrics_by_family():
    metrics = Metrics()
    dead = [
        (Inbound(-1, 0, 0, None, refuse(code, "m"), None, None, 0), refuse(code, "m")) for code in ("future", "crashed")
    ]
    counts = {"event:view": 3, "outcome:repeated": 1, "status:drawn": 2, "rail:floor": 5, "resolved:bought": 4}
    metrics.count(Step(states={}, prices=[], decisions=[], dead=dead, partition=PartitionState(0, 0), counts=counts))
    text = generate_latest(metrics.registry).decode()
    for line in (
        'pricetide_events_total{type="view"} 3.0',
        'pricetide_outcomes_total{outcome="repeated"} 1.0',
        'pricetide_decisions_total{status="drawn"} 2.0',
        'pricetide_rails_bound_total{rail="floor"} 5.0',
        'pricetide_draw_outcomes_total{kind="bought"} 4.0',
        'pricetide_dead_letters_total{code="future"} 1.0',
        "pricetide_isolated_events_total 1.0",
    ):
        assert line in text.splitlines()


def step_seconds(metrics: Metrics) -> dict[str, float]:
    (family,) = (one for one in metrics.registry.collect() if one.name == "pricetide_step_seconds")
    return {one.labels["step"]: one.value for one in family.samples if one.name.endswith("_total")}


def test_the_seconds_of_a_commit_are_parted_between_broker_and_store():
    metrics = Metrics()
    step = Step(states={b"ann": b"12"}, prices=[], decisions=[], dead=[], partition=PartitionState(0, 0), counts={},
                pending={b"drawn": b"345", b"resolved": None})  # fmt: skip
    metrics.committed(step, events=7, commit_s=0.75, store_s=0.25, latency_s=2.0)
    assert step_seconds(metrics) == {"decode": 0, "merge": 0, "model": 0, "engine": 0, "commit": 0.5, "store": 0.25}
    value = metrics.registry.get_sample_value
    assert value("pricetide_batch_events_sum") == 7
    assert value("pricetide_commit_seconds_sum") == 0.75
    assert value("pricetide_received_to_price_seconds_sum") == 2.0
    assert value("pricetide_changelog_bytes_total") == 5


async def test_the_seconds_of_a_step_are_parted_between_model_and_engine(monkeypatch):
    clock = SimpleNamespace(perf_counter=lambda: clock.now, now=100.0)
    monkeypatch.setattr("streams.session.time", clock)

    def step(*_: Any, **__: Any) -> None:
        models.seconds += 2.0
        clock.now += 5.0

    async def commit(batch: Any, step: None) -> None:
        pass

    metrics, session = Metrics(), object.__new__(Session)
    models = SimpleNamespace(current=None, seconds=30.0)
    references = SimpleNamespace(catalogue=None, policies=None)
    session._worker = SimpleNamespace(references=references, models=models, metrics=metrics)
    session._engine, session._store = SimpleNamespace(step=step), SimpleNamespace(get=None)
    session._state = session._timers = session._isolated = None
    session.partition, session._commit_batch = 3, commit
    session.apply(SimpleNamespace(records=[]))
    await session.committing
    seconds = step_seconds(metrics)
    assert (seconds["model"], seconds["engine"]) == (2.0, 3.0)


def test_no_metric_carries_a_user_or_an_item():
    labels = {name for metric in Metrics().registry.collect() for sample in metric.samples for name in sample.labels}
    assert not labels & {"user", "item", "session", "event_id"}
