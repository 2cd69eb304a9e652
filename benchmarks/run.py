"""The command line of the benchmarks: `make bench`, or `python -m benchmarks [NAME ...] [--quick] [--kafka HOST:PORT]`.

Exit codes: 0; 1 when a claim was missed (never with --quick) or an output was wrong.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from benchmarks import (
    bench_backtest,
    bench_coverage,
    bench_encoder,
    bench_encoder_cuda,
    bench_full_histories,
    bench_latency,
    bench_model,
    bench_policies,
    bench_posterior,
    bench_recovery,
    bench_steps,
    bench_worker,
)
from benchmarks.lab import Lab, open_lab
from benchmarks.report import RESULTS, Report, machine, publish
from contracts.errors import PricetideError

BENCHMARKS: dict[str, Callable[[Lab], Report]] = {
    "worker": bench_worker.run,
    "latency": bench_latency.run,
    "recovery": bench_recovery.run,
    "model": bench_model.run,
    "full_histories": bench_full_histories.run,
    "backtest": bench_backtest.run,
    "policies": bench_policies.run,
    "posterior": bench_posterior.run,
    "coverage": bench_coverage.run,
    "encoder": bench_encoder.run,
    "encoder_cuda": bench_encoder_cuda.run,
    "steps": bench_steps.run,
}
"""In the order in which they run: the later ones use what the first one left in Kafka, and `steps` retunes the collector."""
WITHOUT_BROKER = {"backtest", "coverage", "encoder", "encoder_cuda", "policies", "posterior"}
"""Nothing is started when only these are asked for."""
ON_REQUEST = {"encoder_cuda", "policies"}
"""What a machine may lack the hardware for, or what needs the package index and an hour, runs only by its name."""


def _lab(names: tuple[str, ...], kafka: str | None, work: Path, quick: bool) -> AbstractContextManager[Lab]:
    if names and WITHOUT_BROKER.issuperset(names):
        return nullcontext(Lab("", "no broker", None, work, quick))
    return open_lab(kafka, work, quick)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--quick", is_flag=True, help="Small sizes: whether everything works, not how fast.")
@click.option("--kafka", metavar="HOST:PORT", help="A running Kafka; without it, a local one is started.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Where the files go.", show_default=True
)
@click.option("--work", type=click.Path(path_type=Path), help="Where logs and state go; else a temporary directory.")
def main(names: tuple[str, ...], quick: bool, kafka: str | None, results: Path, work: Path | None) -> None:
    """Run the benchmarks NAMES; without one, all of them that need no GPU."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a new topic has no leader for a moment: not our news
    failed = False
    with tempfile.TemporaryDirectory(prefix="pricetide-bench-", dir=work) as directory:
        try:
            with _lab(names, kafka, Path(directory), quick) as lab:
                for name in names or [name for name in BENCHMARKS if name not in ON_REQUEST]:
                    where = machine(lab.broker, quick)
                    report = BENCHMARKS[name](lab)
                    if lab.measured_on is not None:  # rates on shoppers that were generated are other rates
                        report.notes.append(f"Log: {lab.measured_on}")
                    publish(report, where, results)
                    failed |= bool(report.wrong) or not (quick or all(claim.held for claim in report.claims))
        except PricetideError as error:
            click.echo(f"benchmarks: {error}", err=True)
            sys.exit(error.exit_code)
    sys.exit(failed)
