"""Events per second of a backtest in one process: with the digest alone, and with Parquet files of prices and decisions."""

from __future__ import annotations

import time
from pathlib import Path

from backtest.run import run_backtest
from benchmarks.lab import Lab
from benchmarks.report import Report


def run(lab: Lab) -> Report:
    """Measure `pricetide backtest` without the command line around it."""
    rows: list[tuple[str | int | float, ...]] = []
    directory, out = lab.log.directory, lab.work / "backtest"
    cases: tuple[tuple[str, Path | None, Path | None], ...] = (
        ("summary and digest", None, None),
        ("and prices.parquet", out / "prices.parquet", None),
        ("and decisions.parquet", out / "prices.parquet", out / "decisions.parquet"),
    )
    digests = set()
    for name, prices, decisions in cases:
        begun, cpu = time.perf_counter(), time.process_time()
        summary = run_backtest(directory, prices, decisions)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        digests.add(summary.digest)
        rows.append(
            (name, summary.events, summary.events_per_second, summary.events / seconds, cpu / summary.events * 1e6)
        )
    return Report(
        name="backtest",
        title="Backtest, one process",
        columns=("", "events", "events/s", "events/s with reading the log's files", "CPU µs/event"),
        rows=list(rows),
        wrong=[] if len(digests) == 1 else ["the same log gave different prices"],
    )
