"""Processes, memory and kills change no byte of a backtest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import chain
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest import replay
from backtest.perturb import Perturbation, perturb_log
from backtest.replay import How, Replay
from backtest.run import run_backtest
from backtest.states import States
from backtest.user_digests import digest_of, digest_partition
from contracts.decisions import decode_decision
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_capture import applied_row
from contracts.log_writer import LogWriter
from contracts.policies import FixedPrice, Policy
from pricing.timers import key_of
from tests.backtest.recorded_shop import published_outcomes, recorded_shop, rewritten

FIXED = Policy(name="fixed", number=1, rule=FixedPrice(multiplier_permille=850, explore=0.3))
NAMES = ("prices", "decisions", "outcomes", "draws", "dead_letters")
SUFFIX = {"dead_letters": "jsonl"}


def files_in(folder):
    return {name: folder / f"{name}.{SUFFIX.get(name, 'parquet')}" for name in NAMES}


def bytes_of(folder):
    return {name: path.read_bytes() for name, path in files_in(folder).items()}


def backtested(log, folder, **how):
    return run_backtest(log, **files_in(folder), targets=[FIXED], **how)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    recorded_shop(folder, events=1_200)
    perturb_log(folder / "priced", folder / "late", 2, Perturbation(late=0.05, duplicates=0.05, consents=0.05), "jsonl")
    return rewritten(folder / "late", folder / "whole", outcomes=published_outcomes(folder / "late"))


@pytest.fixture(scope="module")
def whole(log, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return backtested(log, folder), bytes_of(folder)


def same(summary, other):
    skipped = ("events_per_second",)
    return all(
        getattr(summary, name) == getattr(other, name) for name in summary.__struct_fields__ if name not in skipped
    )


def test_two_processes_write_the_bytes_of_one(log, whole, tmp_path):
    summary = backtested(log, tmp_path, processes=2)
    assert bytes_of(tmp_path) == whole[1]
    assert same(summary, whole[0])


def test_states_that_do_not_fit_in_memory_change_no_byte(log, whole, tmp_path):
    backtested(log, tmp_path, states_bytes=60_000, batch_max=50)
    assert bytes_of(tmp_path) == whole[1]


class Killed(Exception):
    pass


def killed_after(calls):
    left = [calls]

    def progress(done, total):
        left[0] -= 1
        if not left[0]:
            raise Killed

    return progress


@pytest.mark.parametrize("seed", range(2))
def test_a_backtest_that_is_killed_again_and_again_ends_with_the_same_bytes(log, whole, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(replay, "SAVE_EVERY", 100)
    random, kills = Random(seed), 0
    while True:
        try:
            calls = random.randint(1, 40)
            done = backtested(
                log, tmp_path, batch_max=random.randint(5, 60), resume=tmp_path / "going", progress=killed_after(calls)
            )
            break
        except Killed:
            kills += 1
            assert kills < 300
    assert kills >= 2
    assert bytes_of(tmp_path) == whole[1]
    assert same(done, whole[0])
    assert not (tmp_path / "going").exists()


def recorded(log, directory):
    """Write `log` as workers would record it that applied every record as it arrived."""
    source, decisions = open_log(log), []
    Replay(source, how=How(order="arrival")).run(lambda partition, step: decisions.extend(step.decisions))
    applied = [applied_row(decode_decision(value), source.manifest.topology) for _, value in decisions]
    with LogWriter(directory, source.manifest, "jsonl") as writer:
        writer.rows(list(source.rows()))
        writer.catalogue(list(chain.from_iterable(source.catalogue())))
        writer.policies(list(chain.from_iterable(source.policies())))
        writer.applied(applied)
    return directory


@pytest.mark.parametrize("order", ["arrival", "recorded"])
def test_kills_change_no_byte_in_another_order_either(log, tmp_path, monkeypatch, order):
    monkeypatch.setattr(replay, "SAVE_EVERY", 100)
    how = {"order": "arrival"}
    if order == "recorded":
        log, how = recorded(log, tmp_path / "recorded"), {}
    unbroken = backtested(log, tmp_path / "unbroken", **how)
    for calls in (12, 15):
        with pytest.raises(Killed):
            backtested(log, tmp_path, batch_max=20, resume=tmp_path / "going", progress=killed_after(calls), **how)
    assert same(backtested(log, tmp_path, resume=tmp_path / "going", **how), unbroken)
    assert bytes_of(tmp_path) == bytes_of(tmp_path / "unbroken")


def test_saved_draws_behind_a_damaged_block_are_not_forgotten(tmp_path):
    """The trap: an iterator just stops there, and half of the pending draws would never resolve."""
    noise = Random(1).randbytes
    states = States(tmp_path / "states", 1 << 20)
    states.update({key_of((n, n)): noise(400) for n in range(400)})
    states.save(b"")
    states._db.flush(True)
    states.close()
    [table] = (tmp_path / "states").glob("*.sst")
    content = bytearray(table.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8] = b"\xff" * 8
    table.write_bytes(content)
    with pytest.raises(BadInput, match=r"is damaged .*: remove it, and begin anew"):
        list(States(tmp_path / "states", 1 << 20).timers())


def test_a_store_that_is_held_and_one_whose_lock_file_cannot_be_opened_are_told_apart(tmp_path):
    (tmp_path / "broken" / "LOCK").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"IO error.* Is a directory\): mend the disk"):
        States(tmp_path / "broken", 1 << 20).save(b"")
    held = States(tmp_path / "held", 1 << 20)
    held.save(b"")
    with pytest.raises(BadInput, match="wait for the other backtest"):
        States(tmp_path / "held", 1 << 20).save(b"")
    held.close()


def test_whoever_asks_of_draws_changes_no_price(log, whole, tmp_path):
    assert run_backtest(log, batch_max=99).digest == whole[0].digest


KILL = """
import os, signal, sys
from pathlib import Path
from backtest import replay
from backtest.run import run_backtest
from tests.backtest.test_resumed_backtests import backtested
replay.SAVE_EVERY = 100
left = [25]
def progress(done, total):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
backtested(Path(sys.argv[1]), Path(sys.argv[2]), batch_max=20, resume=Path(sys.argv[2]) / "going", progress=progress)
"""


def test_a_sigkill_is_survived(log, whole, tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", KILL, str(log), str(tmp_path)], env=environment, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not files_in(tmp_path)["prices"].exists()
    seen = []
    backtested(log, tmp_path, resume=tmp_path / "going", progress=lambda done, total: seen.append(done))
    assert bytes_of(tmp_path) == whole[1]
    assert seen[0] > 100, "it went on from what was saved"


def test_the_progress_of_another_backtest_is_refused(log, tmp_path):
    with pytest.raises(Killed):
        backtested(log, tmp_path, resume=tmp_path / "going", progress=killed_after(1))
    with pytest.raises(BadInput, match=r"another backtest \(how differ\)"):
        run_backtest(log, **files_in(tmp_path), targets=[], resume=tmp_path / "going")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("all of it")
    with pytest.raises(BadInput, match="is not empty"):
        backtested(log, tmp_path, resume=tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()


def test_a_digest_in_many_ranges_is_that_of_one(log, whole, tmp_path, monkeypatch):
    from backtest.jobs import Job, run_job

    job = Job(directory=log, how=How(work=tmp_path), models=(), asked=frozenset())
    run_job(job, lambda partition, applied: None)
    for number in range(3):
        digest_partition(tmp_path, "prices", number, at_once=60)
    assert digest_of(tmp_path, 3) == whole[0].digest


keys = st.sampled_from([b"a", b"b", b"c", key_of((5, 1)), key_of((7, 2))])
changes = st.lists(
    st.one_of(st.tuples(keys, st.one_of(st.none(), st.binary(max_size=3))), st.just("save")), max_size=30
)


@settings(max_examples=15, deadline=None)
@given(changes)
def test_states_are_a_dict_whatever_is_saved_when(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("states") / "db"
    states, naive, saved = States(path, 1_000), {}, {}
    for step in steps:
        if step == "save":
            states.save(b"note")
            saved = dict(naive)
        else:
            key, value = step
            states.update({key: value})
            naive[key] = value
        assert all(states.get(key) == value for key, value in naive.items())
    states.close()
    again = States(path, 1_000)
    kept = {key: value for key, value in saved.items() if value is not None}
    assert all(again.get(key) == kept.get(key) for key in naive)
    assert again.note == (b"note" if "save" in steps else None)
    assert [key_of(timer) for timer in again.timers()] == sorted(key for key in kept if key[0] == 255)
    again.close()
