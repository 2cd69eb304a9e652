"""A kill at each boundary of the commit: whatever the worker was doing, nothing is lost, repeated or different.

One worker after another dies, each at the next boundary, and its successor finds its data directory, or none; in the end
a worker without a fault finishes the work. Oracle: the backtest of the same log.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from deployment import Deployment, broken_order, difference, expected

from backtest.shoppers import generate_log

BOUNDARIES = [
    ("_begin", "before"),
    ("_send", "before"),
    ("_send", "after"),
    ("_send_offsets", "after"),
    ("_end", "before"),
    ("_write", "before"),
    ("_write", "after"),
]
SCRIPT = Path(__file__).with_name("worker_that_dies.py")


@pytest.mark.parametrize("wiped", [False, True], ids=["same data directory", "wiped data directory"])
def test_a_kill_at_each_boundary_of_the_commit_changes_nothing(kafka, unique, tmp_path, wiped):
    with Deployment(kafka, unique, tmp_path, partitions=2, batch_max=50) as deployment:
        deployment.create()
        generate_log(tmp_path / "log", 60, 3_000, 7, deployment.topology)
        deployment.produce(tmp_path / "log")
        for step, when in BOUNDARIES:
            dying = deployment.worker(script=[sys.executable, str(SCRIPT), step, when, "5"])
            assert dying.wait() == -signal.SIGKILL, dying.said()
            if wiped:
                dying.wipe()
            deployment.forget_dead_members()
        assert any(deployment.backlog().values()), "the work was done too early for the last kills to prove anything"
        last = deployment.worker()
        deployment.wait_until_applied()
        assert last.terminate() == 0
        published = deployment.published()
        assert difference(expected(tmp_path / "log"), published) == ""
        assert broken_order(published, deployment.topology) == ""
