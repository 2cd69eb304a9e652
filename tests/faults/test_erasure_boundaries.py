"""A kill at each boundary of an erasure: it is carried out once in the end, and what is left equals the backtest."""

from __future__ import annotations

import signal
import sys
from collections import Counter
from pathlib import Path

from deployment import Deployment, broken_order, difference, expected

from backtest.shoppers import generate_log
from contracts.log import open_log
from pricing.erasure import PREFIX, decode_erasure
from streams.forget import request_erasure
from streams.policy_changes import set_shadow

SCRIPT = Path(__file__).with_name("worker_that_dies.py")
BOUNDARIES = [
    ("_write", "after", 1),  # the batch of the request has happened, nothing of it is carried out
    ("_end", "before", 1),  # the tombstones are sent, and will be aborted
    ("_end", "after", 1),  # the broker has them, the store does not know
]


def busiest_user(log: Path) -> str:
    users = [row.user for row in open_log(log).rows() if row.user is not None]
    return max(set(users), key=users.count)


def test_a_kill_at_each_boundary_of_an_erasure_changes_nothing(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path, partitions=1) as deployment:
        deployment.create()
        manifest = generate_log(tmp_path / "log", 8, 400, 7, deployment.topology)
        deployment.produce(tmp_path / "log")
        set_shadow(deployment.settings, "builtin")
        first = deployment.worker()
        deployment.wait_until_applied()
        assert first.terminate() == 0
        user = busiest_user(tmp_path / "log")
        request_erasure(deployment.settings, user, manifest.last_ms)
        for step, when, nth in BOUNDARIES:
            dying = deployment.worker(script=[sys.executable, str(SCRIPT), step, when, str(nth)])
            assert dying.wait() == -signal.SIGKILL, dying.said()
            assert not any(deployment.backlog().values()), "the request is committed, and nothing else is to do"
            deployment.forget_dead_members()
        last = deployment.worker()
        last.wait_until_said("the store holds nothing of erased users")
        assert last.terminate() == 0
        published, topics = deployment.published(), deployment.settings.topics
        assert broken_order(published, deployment.topology) == ""
        for topic in (topics.price_updates, topics.decisions, topics.outcomes):
            (records,) = deployment.committed(topic)
            ours = [one for one in records if one.key.startswith(b'["%b",' % user.encode())]
            last_values = {one.key: one.value for one in ours}
            assert last_values
            assert set(last_values.values()) == {None}, "everything is taken back"
            assert max(Counter(one.key for one in ours if one.value is None).values()) == 1, "and once"
        (changelog,) = deployment.committed(topics.changelog)
        (erasure,) = {one.key: one.value for one in changelog if one.key.startswith(PREFIX)}.values()
        assert decode_erasure(erasure).done
        recorded = deployment.record(tmp_path / "recorded")
        assert difference(expected(recorded), published) == "", "until it is compacted away, the record is whole"
