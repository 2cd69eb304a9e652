"""The whole job with everything on: outcomes kept, Thompson sampling prices, and a learner beside the worker follows and leads.

The oracle is the backtest of the log that `pricetide record` captures of the run: live equals replay with learning on. The rule
is the one that `deploy/policies/thompson.toml` has. Not here: the table (benchmarks.bench_worker).
"""

from __future__ import annotations

from msgspec import Struct

from benchmarks.lab import PRICETIDE, ROOT, Job, Lab
from benchmarks.logs import with_window
from benchmarks.process import Program, cpu_seconds
from benchmarks.published import differences, expected, published, transactions
from contracts.log import open_log
from contracts.policy_files import read_policy
from contracts.semantics import Semantics
from streams.policy_changes import apply_policy
from streams.policy_log import read_policy_log
from streams.record import record_log
from streams.settings import LearnerSettings

POLICY = ROOT / "deploy/policies/thompson.toml"
VERSION_S = 1.0
"""A version a second, far more than anybody needs: the log is worked off in seconds."""


class Learning(Struct, kw_only=True):
    """A worker's job with a learner beside it."""

    job: Job
    rate: float
    learner_cpu_s: float
    """Of the learner, from its start until the worker was done."""
    versions: int
    outcomes: int
    """Learned from, by the last version when the worker was done."""
    wrong: list[str]


def learn_beside(lab: Lab) -> Learning:
    """Let one worker and one learner work off the log."""
    log = with_window(lab.log, Semantics(consent_default=True).outcome_window_ms)
    deployment = lab.deploy(log, learner=LearnerSettings(version_seconds=VERSION_S))
    policy = apply_policy(deployment.settings, read_policy(POLICY)).policy
    beside = deployment.environment | {"PRICETIDE_PORT": "0"}
    with Program([PRICETIDE, "learn"], beside, deployment.directory / "learner.log") as learner:
        job = lab.work_off(deployment)
        learner.require_alive()
        cpu_s = cpu_seconds(learner.pid)
    last = read_policy_log(deployment.settings).book.knowledge_of(policy)
    found, _ = published(deployment)
    captured = deployment.directory / "captured"
    record_log(deployment.settings, captured, deployment.log.manifest)
    wrong = differences(expected(open_log(captured, verify=False)), found)
    rate = transactions(deployment).rate
    lab.discard(deployment)
    return Learning(
        job=job,
        rate=rate,
        learner_cpu_s=cpu_s,
        versions=0 if last is None else last.version,
        outcomes=0 if last is None else last.outcomes,
        wrong=[f"worker that learns, {text}" for text in wrong],
    )
