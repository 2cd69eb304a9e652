"""Events per second of the whole job through the real broker, one worker; and against a naive stock Faust version.

The log lies in Kafka before the process starts. The rate is that of committed transactions, from the first to the last,
by the timestamps of their records; start-up is not in it. The outputs of every run are compared with the backtest's.
"""

from __future__ import annotations

import sys
from statistics import median

from msgspec import Struct

from benchmarks.lab import Job, Lab
from benchmarks.learning_jobs import learn_beside
from benchmarks.logs import PARTITIONS, rewritten, with_window
from benchmarks.published import differences, expected, published, transactions
from benchmarks.report import Claim, Report
from contracts.log import Log
from contracts.semantics import Semantics

RATE_MIN = 25_000
RATIO_MIN = 6
NAIVE_ROWS = 50_000
NAIVE_ROWS_QUICK = 5_000
ROUNDS = 3
"""Of the job that is judged: what shares the machine comes and goes. They are the last, for a broker's JVM goes on compiling
through its first jobs, and those of a shop have run for weeks."""


class Judged(Struct):
    """A job, its events/s, and how its outputs differ from the backtest's."""

    job: Job
    rate: float
    wrong: list[str]


def run(lab: Lab) -> Report:
    """Measure one worker on four topics, on one, with outcomes, and learning; and the naive one on the one topic."""
    cold = _judged(lab.cold)
    first = _judged(lab.worked_off)  # its deployment stays, for benchmarks that come later
    kept = _measured(lab, with_window(lab.log, Semantics(consent_default=True).outcome_window_ms))
    learning = learn_beside(lab)
    one = _measured(lab, lab.one_topic_log)
    naive = _naive(lab)
    rounds = [_measured(lab, lab.log) for _ in range(1 if lab.quick else ROUNDS)]
    rate = median(judged.rate for judged in rounds)
    return Report(
        name="worker",
        title=f"The whole job: {first.job.deployment.events:,} events, {PARTITIONS} partitions, one process",
        columns=("", "events/s", "process CPU µs/event", "broker CPU µs/event", "s from start", "outputs"),
        rows=[
            _row("worker, 4 topics, the broker just started", cold),
            _row("worker, 4 topics, again", first),
            _row("worker, 4 topics, with outcomes", kept),
            _row("worker, 4 topics, with outcomes, learning", Judged(learning.job, learning.rate, learning.wrong)),
            _row("worker, 1 topic", one),
            _row("stock Faust, 1 topic", naive),
            *(_row(f"worker, 4 topics, round {number}", judged) for number, judged in enumerate(rounds, 1)),
        ],
        claims=[
            Claim(what="One worker", measured=rate, limit=RATE_MIN, unit="events/s", at_least=True),
            Claim(
                what="Worker against stock Faust",
                measured=one.rate / naive.rate,
                limit=RATIO_MIN,
                unit="times",
                at_least=True,
            ),
        ],
        notes=[
            "Rows are in the order in which they were measured. The broker's JVM compiles its code through the first jobs, on the "
            f"cores that the worker needs. One worker is judged by the last rows: the median of {len(rounds)} rounds of one job.",
            "events/s: from the first committed transaction (stock Faust: record) to the last; s from start: from starting "
            "the process to everything committed.",
            "Outcomes of draws are kept in the row that says so (semantics.outcome_window_ms, half an hour); else it is 0.",
            f"Learning: Thompson sampling prices and a learner beside the worker, on the same cores, follows ({learning.versions} "
            f"versions, {learning.outcomes:,} outcomes, {learning.learner_cpu_s:.1f} s of CPU until the worker was done, its start "
            "included); the backtest is that of the record of the run.",
            f"The ratio compares the two on one topic: stock Faust has no order across topics. It gets the first "
            f"{naive.job.deployment.events:,} events only, when states are still small.",
        ],
        wrong=[text for judged in (cold, first, kept, one, naive, *rounds) for text in judged.wrong] + learning.wrong,
    )


def _measured(lab: Lab, log: Log) -> Judged:
    """Let one worker work off `log`, judge it, and leave nothing behind."""
    judged = _judged(lab.work_off(lab.deploy(log)))
    lab.discard(judged.job.deployment)
    return judged


def _judged(job: Job) -> Judged:
    """Return a worker's job with its rate and how its outputs differ from the backtest's."""
    found, _ = published(job.deployment)
    wrong = [f"worker, {text}" for text in differences(expected(job.deployment.log), found)]
    return Judged(job, transactions(job.deployment).rate, wrong)


def _naive(lab: Lab) -> Judged:
    log = lab.one_topic_log
    rows = NAIVE_ROWS_QUICK if lab.quick else NAIVE_ROWS
    deployment = lab.deploy(rewritten(log, lab.work / "log-naive", log.manifest.topology, rows))
    prefix = deployment.settings.group.removesuffix("group")
    command = [sys.executable, "-m", "benchmarks.naive_faust", str(deployment.log.directory), prefix]
    job = lab.watch(deployment, command)
    found, (first_ms, last_ms) = published(deployment)
    wrong = [f"stock Faust, {text}" for text in differences(expected(deployment.log), found)]
    lab.discard(deployment)
    return Judged(job, deployment.events / max(last_ms - first_ms, 1) * 1000, wrong)


def _row(name: str, judged: Judged) -> tuple[str | float | None, ...]:
    job = judged.job
    outputs = "differ" if judged.wrong else "as the backtest"
    return name, judged.rate, job.cpu_us or None, job.broker_cpu_us or None, job.seconds, outputs
