"""What a backtest keeps in memory: nothing that grows with events, users or time."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from math import isnan
from pathlib import Path

from backtest import feed, jobs, outputs, user_digests
from backtest.run import run_backtest
from backtest.shoppers import generate_log
from benchmarks.bench_backtest import BARE, ONE, Took, growth_of
from benchmarks.logs import repeated
from contracts import intake, log, log_files
from contracts.log import open_log
from contracts.semantics import Topology

ROWS = 1_500
SMALL = [
    (feed, "BACKLOG_RECORDS", 256), (feed, "PULLED_MAX", 128), (intake, "_KNOWN_KEYS_MAX", 64), (log, "_USERS_CACHED_MAX", 64),
    (log_files, "ROWS_READ_MAX", 128), (outputs, "PIECE_ROWS", 64), (outputs, "ROW_GROUP_ROWS", 256),
    (user_digests, "_USERS_PER_CHUNK", 64), (user_digests, "_RECORDS_WAITING_MAX", 256),
    (jobs, "digest_partition", partial(user_digests.digest_partition, at_once=500)),
]  # fmt: skip
"""Every limit as small beside this log as the true one is beside a long log."""


def backtested(directory: Path, out: Path) -> None:
    summary = run_backtest(
        directory, out / "prices.parquet", out / "decisions.parquet", out / "dead.jsonl", outcomes=out / "outcomes.parquet",
        batch_max=64, states_bytes=1 << 16,
    )  # fmt: skip
    assert summary.decisions > summary.events / 2, "there was something to keep"


def peak_bytes(warm: Path, directory: Path, out: Path) -> int:
    """Return the most memory that Python allocated for the log in `directory`; for a process of its own."""
    for module, name, value in SMALL:
        setattr(module, name, value)
    backtested(warm, out / "warm")
    tracemalloc.start()
    backtested(directory, out)
    return tracemalloc.get_traced_memory()[1]


def test_a_log_four_times_as_long_by_four_times_as_many_users_takes_about_the_same_memory(tmp_path: Path) -> None:
    generate_log(tmp_path / "log", users=300, events=ROWS, seed=1, topology=Topology(partitions=2))
    whole = open_log(tmp_path / "log")
    lengths = {"warm": (1, 200), "short": (1, ROWS), "long": (4, ROWS)}
    for name, (times, rows) in lengths.items():
        repeated(whole, tmp_path / name, times, rows)
    peaks = []
    for name in ("short", "long"):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            ran = pool.submit(peak_bytes, tmp_path / "warm", tmp_path / name, tmp_path / f"{name}-out")
            peaks.append(ran.result())
    assert peaks[1] < 1.5 * peaks[0], "menus of items fill up still, nothing else grows"


def test_a_benchmark_that_could_not_measure_one_of_its_cases_claims_no_growth() -> None:
    small, large, unknown = (
        Took(events=1, digest="", rate=1.0, whole_rate=1.0, cpu_us=1.0, peak_mib=peak) for peak in (100.0, 105.0, None)
    )
    assert growth_of({BARE: [small, large], ONE: [small, small]}) == 1.05
    for case in ([small, unknown], [unknown, large], [unknown, unknown]):
        for long in ({BARE: [small, large], ONE: case}, {BARE: case, ONE: [small, large]}):
            assert isnan(growth_of(long))
