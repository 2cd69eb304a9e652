"""How a worker's process begins and ends: what it says of its environment, what it counts from nothing, what it no longer opens."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest
from faust.types import TP
from prometheus_client import generate_latest

from streams.app import build_app, run_app
from streams.settings import Settings, load_settings
from streams.shell import WorkerShell


@pytest.fixture
def settings(tmp_path) -> Settings:
    return load_settings(data_dir=tmp_path, port=0, **{"semantics.consent_default": True, "topics.partitions": 2})


@pytest.fixture
def shell(settings) -> WorkerShell:
    async def hand_over(batch: Any) -> None:
        raise AssertionError("nothing is handed over here")

    return WorkerShell(settings, hand_over)


async def test_an_assignment_that_comes_after_the_signal_opens_nothing(shell):
    await shell.close()
    await shell.assigned({TP(topic, 0) for topic in ("consents", "views", "clicks", "purchases")})
    assert shell.sessions == {}


def test_variables_that_are_no_settings_are_named_as_a_process_starts(settings, monkeypatch, capsys):
    monkeypatch.setenv("PRICETIDE_DATADIR", "/x")
    monkeypatch.setattr("faust.Worker.execute_from_commandline", lambda _: None)
    run_app(build_app(settings), settings)
    assert "not read: PRICETIDE_DATADIR" in capsys.readouterr().err


def test_refused_references_are_counted_from_nothing_so_that_an_alert_sees_the_first(shell):
    text = generate_latest(shell.metrics.registry).decode()
    for topic in ("catalogue", "policies"):
        assert f'pricetide_refused_references_total{{topic="{topic}"}} 0.0' in text


async def test_a_session_that_is_given_up_is_freed_although_the_collector_rests(shell):
    """A session and its tasks refer to each other: with its buffers it would outlive one rebalance after another."""

    class Circle:
        async def close(self, timeout_s: float) -> None:
            self.itself = self

    session = Circle()
    shell.sessions[0], known = session, ref(session)
    del session
    gc.disable()
    try:
        await shell.release()
        assert known() is None
    finally:
        gc.enable()
