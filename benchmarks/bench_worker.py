"""Events per second of the whole job through the real broker, one worker; and against a naive stock Faust version.

The log lies in Kafka before the process starts. The rate is that of committed transactions, from the first to the last,
by the timestamps of their records; start-up is not in it. The outputs of every run are compared with the backtest's.
"""

from __future__ import annotations

import sys

from benchmarks.lab import Job, Lab
from benchmarks.learning_jobs import learn_beside
from benchmarks.logs import rewritten, with_window
from benchmarks.published import differences, expected, published, transactions
from benchmarks.report import Claim, Report
from contracts.semantics import Semantics

RATE_MIN = 25_000
RATIO_MIN = 6
NAIVE_ROWS = 50_000
NAIVE_ROWS_QUICK = 5_000


def run(lab: Lab) -> Report:
    """Measure one worker on four topics, with outcomes, without, and learning, on one topic, and the naive one on that topic."""
    deployment = lab.deploy(lab.one_topic_log)  # first, for it warms a broker that has only just started
    one = lab.work_off(deployment)
    one_rate, one_wrong = _judge(one)
    lab.discard(deployment)
    four = lab.worked_off
    four_rate, four_wrong = _judge(four)
    deployment = lab.deploy(with_window(lab.log, Semantics(consent_default=True).outcome_window_ms))
    kept = lab.work_off(deployment)
    kept_rate, kept_wrong = _judge(kept)
    lab.discard(deployment)
    learning = learn_beside(lab)
    naive, naive_rate, naive_wrong = _naive(lab)
    rows = [
        _row("worker, 4 topics", four, four_rate, four_wrong),
        _row("worker, 4 topics, with outcomes", kept, kept_rate, kept_wrong),
        _row("worker, 4 topics, with outcomes, learning", learning.job, learning.rate, learning.wrong),
        _row("worker, 1 topic", one, one_rate, one_wrong),
        _row("stock Faust, 1 topic", naive, naive_rate, naive_wrong),
    ]
    return Report(
        name="worker",
        title=f"The whole job: {four.deployment.events:,} events, {lab.log.manifest.topology.partitions} partitions, one process",
        columns=("", "events/s", "process CPU µs/event", "broker CPU µs/event", "s from start", "outputs"),
        rows=rows,
        claims=[
            Claim(what="One worker", measured=four_rate, limit=RATE_MIN, unit="events/s", at_least=True),
            Claim(
                what="Worker against stock Faust",
                measured=one_rate / naive_rate,
                limit=RATIO_MIN,
                unit="times",
                at_least=True,
            ),
        ],
        notes=[
            "events/s: from the first committed transaction (stock Faust: record) to the last; s from start: from starting "
            "the process to everything committed.",
            "Outcomes of draws are kept in the row that says so (semantics.outcome_window_ms, half an hour); else it is 0.",
            f"Learning: Thompson sampling prices and a learner beside the worker, on the same cores, follows ({learning.versions} "
            f"versions, {learning.outcomes:,} outcomes, {learning.learner_cpu_s:.1f} s of CPU until the worker was done, its start "
            "included); the backtest is that of the record of the run.",
            f"The ratio compares the two on one topic: stock Faust has no order across topics. It gets the first "
            f"{naive.deployment.events:,} events only, when states are still small.",
        ],
        wrong=[*four_wrong, *kept_wrong, *learning.wrong, *one_wrong, *naive_wrong],
    )


def _judge(job: Job) -> tuple[float, list[str]]:
    """Return the rate of a worker's job and how its outputs differ from the backtest's."""
    found, _ = published(job.deployment)
    wrong = [f"worker, {text}" for text in differences(expected(job.deployment.log), found)]
    return transactions(job.deployment).rate, wrong


def _naive(lab: Lab) -> tuple[Job, float, list[str]]:
    log = lab.one_topic_log
    rows = NAIVE_ROWS_QUICK if lab.quick else NAIVE_ROWS
    deployment = lab.deploy(rewritten(log, lab.work / "log-naive", log.manifest.topology, rows))
    prefix = deployment.settings.group.removesuffix("group")
    command = [sys.executable, "-m", "benchmarks.naive_faust", str(deployment.log.directory), prefix]
    job = lab.watch(deployment, command)
    found, (first_ms, last_ms) = published(deployment)
    wrong = [f"stock Faust, {text}" for text in differences(expected(deployment.log), found)]
    lab.discard(deployment)
    return job, deployment.events / max(last_ms - first_ms, 1) * 1000, wrong


def _row(name: str, job: Job, rate: float, wrong: list[str]) -> tuple[str | float | None, ...]:
    outputs = "differ" if wrong else "as the backtest"
    return name, rate, job.cpu_us or None, job.broker_cpu_us or None, job.seconds, outputs
