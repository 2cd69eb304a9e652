"""Events per second of a backtest, in one process and in two, bare, with a user transformer and with every file; its memory.

Every case runs in processes of its own, so that its memory is its own. Not here: simulated worlds (benchmarks.bench_policies).
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from math import nan
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from backtest.replay import STATES_BYTES
from backtest.run import run_backtest
from benchmarks.lab import Lab
from benchmarks.logs import repeated
from benchmarks.report import Cell, Claim, Report
from contracts.errors import BadSettings
from contracts.log import Log, open_log

ROUNDS = 3
SMALL = 32 << 20
LITTLE = 8 << 20
"""For states, of users who have several times as many."""
FILES = ("prices", "decisions", "outcomes")
GROWTH_MAX = 1.15
LONG_ROWS = 100_000
"""Of which a log is made one, two and four times as long: enough to fill all that is bounded, the rings of a model, too."""


class Case(Struct, frozen=True, kw_only=True):
    """One way to run a backtest."""

    name: str
    model: bool = False
    processes: int = 1
    files: tuple[str, ...] = ()
    resumable: bool = False
    states_bytes: int = STATES_BYTES


BARE = Case(name="summary and digest")
ONE = Case(name="the same with a user transformer", model=True)
TWO = Case(name="the same in two processes", model=True, processes=2)
OTHERS = (
    Case(name="and prices, decisions, outcomes as Parquet", model=True, files=FILES),
    Case(name="the same in two processes", model=True, files=FILES, processes=2),
    Case(name="with a user transformer, resumable", model=True, resumable=True),
    Case(name="with a user transformer, 32 MiB for states", model=True, states_bytes=SMALL),
)
LONG = {
    Case(name="8 MiB for states, files", files=FILES, states_bytes=LITTLE): (1, 2, 4),
    Case(name="8 MiB for states, a user transformer", model=True, states_bytes=LITTLE): (1, 4),
}
"""How many times as long the log is, other things being equal; the first and the last are compared."""


class Took(Struct, frozen=True, kw_only=True):
    """What one backtest took."""

    events: int
    digest: str
    rate: float
    whole_rate: float
    cpu_us: float
    """Per event, of all its processes."""
    peak_mib: float | None
    """Resident, of a backtest in one process."""


def run(lab: Lab) -> Report:
    """Measure `pricetide backtest` without the command line around it."""
    model = lab.work / "backtest-model"
    _write_random_model(model, lab.log)
    rounds = [[_measured(case, lab, model) for case in (ONE, TWO)] for _ in range(ROUNDS)]
    gain = median(two.whole_rate / one.whole_rate for one, two in rounds)
    rate = median(one.whole_rate for one, _ in rounds)
    rows = [_row(BARE, _measured(BARE, lab, model))]
    rows += [_row(case, took) for pair in rounds for case, took in zip((ONE, TWO), pair, strict=True)]
    others = [(case, _measured(case, lab, model)) for case in OTHERS]
    rows += [_row(case, took) for case, took in others]
    long = _long(lab, model)
    digests = {took.digest for pair in rounds for took in pair} | {took.digest for _, took in others}
    for case, results in long.items():
        rows += [(_length(times, case), *_row(case, took)[1:]) for times, took in zip(LONG[case], results, strict=True)]
    growth = growth_of(long)
    return Report(
        name="backtest",
        title="Backtest",
        columns=("", "events", "events/s", "events/s, start and files included", "CPU µs/event", "peak MiB"),
        rows=rows,
        claims=[
            Claim(what="With a user transformer and outcomes", measured=rate, limit=12_000, unit="events/s", at_least=True),
            Claim(what="Two processes", measured=gain, limit=1.6, unit="times one", at_least=True),
            Claim(what="A log four times as long", measured=growth, limit=GROWTH_MAX, unit="times the memory", at_least=False),
        ],
        notes=[
            "Both rates are about whole runs, from the start of the process; medians of three pairs that took turns.",
            "The beginning again means later and by other users, so that users grow as events do.",
        ],
        wrong=[] if len(digests) == 1 else ["the same log gave different prices"],
    )  # fmt: skip


def _long(lab: Lab, model: Path) -> dict[Case, list[Took]]:
    """Measure logs that differ in their length, and in their users, alone."""
    found: dict[Case, list[Took]] = {case: [] for case in LONG}
    rows = LONG_ROWS // 20 if lab.quick else LONG_ROWS
    log = open_log(lab.log.directory, verify=False)  # as it lies there: the lab's keeps no outcomes
    for times in sorted({one for lengths in LONG.values() for one in lengths}):
        directory = lab.work / f"log-{times}-times"
        repeated(log, directory, times, rows)
        for case, lengths in LONG.items():
            if times in lengths:
                found[case].append(_measured(case, lab, model, directory))
        shutil.rmtree(directory)
    return found


def growth_of(long: dict[Case, list[Took]]) -> float:
    """Return how many times the memory of the shortest log the longest took, in the worst case; not a number if any is unknown."""
    ends = [(took[0].peak_mib, took[-1].peak_mib) for took in long.values()]
    grown = [last / first for first, last in ends if first is not None and last is not None]
    return max(grown) if len(grown) == len(ends) else nan


def _length(times: int, case: Case) -> str:
    return f"the beginning of the log {times} times, {case.name}"


def _row(case: Case, took: Took) -> tuple[Cell, ...]:
    return case.name, took.events, took.rate, took.whole_rate, took.cpu_us, took.peak_mib


def _measured(case: Case, lab: Lab, model: Path, directory: Path | None = None) -> Took:
    """Run a backtest of the log in `directory`, the lab's own if there is none, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, case, directory or lab.log.directory, lab.work / "backtest", model).result()


def _run(case: Case, directory: Path, out: Path, model: Path) -> Took:
    files: dict[str, Any] = {name: out / f"{name}.parquet" for name in case.files}
    begun, cpu = time.perf_counter(), _cpu()
    summary = run_backtest(
        directory,
        **files,
        models=[model] if case.model else [],
        processes=case.processes,
        resume=out / "going" if case.resumable else None,
        states_bytes=case.states_bytes,
    )
    seconds, cpu = time.perf_counter() - begun, _cpu() - cpu
    shutil.rmtree(out, ignore_errors=True)
    return Took(
        events=summary.events,
        digest=summary.digest,
        rate=summary.events_per_second,
        whole_rate=summary.events / seconds,
        cpu_us=cpu / summary.events * 1e6,
        peak_mib=_peak_mib() if case.processes == 1 else None,
    )


def _cpu() -> float:
    used = [resource.getrusage(one) for one in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _peak_mib() -> float | None:
    """Return the peak of this process; getrusage would give that of its parent, if larger."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)


def _write_random_model(directory: Path, log: Log) -> None:
    try:
        from model_export.export import write_random_artifact
    except ImportError as error:
        raise BadSettings(f"The benchmark exports a model ({error}): pip install 'pricetide[model-export]'") from error
    items = sorted({row.item for row in chain.from_iterable(log.catalogue()) if row.item is not None})
    write_random_artifact(directory, items, seed=1)
