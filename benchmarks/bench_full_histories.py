"""The second profile: every history full. Events per second of a worker, and bytes of changelog per event; beside the log's.

The worker restores the full states from the changelog first; its rate counts from the first transaction on. Every batch
holds each user once or twice, so nearly every event reads, writes and publishes a full state.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.full_histories import expected_steps, make_profile, seed
from benchmarks.lab import Job, Lab
from benchmarks.logs import PARTITIONS
from benchmarks.published import Published, Transactions, differences, digest, published, transactions
from benchmarks.report import Report
from pricing.engine import Step

USERS, EVENTS_PER_USER = 8_000, 6
USERS_QUICK, EVENTS_PER_USER_QUICK = 800, 4


def run(lab: Lab) -> Report:
    """Measure a worker on full histories; the first profile's row is that of bench_worker's job."""
    users, events = (USERS_QUICK, EVENTS_PER_USER_QUICK) if lab.quick else (USERS, EVENTS_PER_USER)
    profile = make_profile(lab.work / "log-full", users, events, PARTITIONS)
    deployment = lab.deploy(profile.log, fill=False)
    seed(deployment, profile)
    seeded = transactions(deployment)
    lab.fill(deployment)
    job = lab.work_off(deployment)
    done = transactions(deployment)
    done.changelog_bytes -= seeded.changelog_bytes
    done.changelog_records -= seeded.changelog_records
    wanted = _published(deployment.settings.topics.partitions, expected_steps(deployment, profile))
    wrong = differences(wanted, published(deployment)[0])
    lab.discard(deployment)
    normal = lab.worked_off
    return Report(
        name="full_histories",
        title="One worker, by how full the histories are",
        columns=("", "events", "events/s", "process CPU µs/event", "changelog B/event", "bytes/state", "states/event"),
        rows=[
            _row("the log", normal, transactions(normal.deployment)),
            _row("every history full", job, done),
        ],
        notes=[
            f"A full state has {len(profile.state):,} bytes; {users:,} users, {events} events each, a minute apart."
        ],
        wrong=wrong,
    )


def _published(partitions: int, steps: Iterable[tuple[int, Step]]) -> Published:
    wanted = Published([[] for _ in range(partitions)], [[] for _ in range(partitions)])
    for partition, step in steps:
        wanted.prices[partition] += [digest(*record) for record in step.prices]
        wanted.decisions[partition] += [digest(*record) for record in step.decisions]
    return wanted


def _row(name: str, job: Job, done: Transactions) -> tuple[str | int | float | None, ...]:
    events = job.deployment.events
    states = done.changelog_records - len(done.events)
    return (
        name,
        events,
        done.rate,
        job.cpu_us or None,
        done.changelog_bytes / events,
        done.changelog_bytes / states,
        states / events,
    )
