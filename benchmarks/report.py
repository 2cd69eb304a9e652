"""What a benchmark says: a table, claims with their limits, notes, and where it was measured; on screen and in files.

A claim is held or missed by its number alone. Outputs that differ from the oracle are `wrong`, and make every number of
the report worthless. Does not measure.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
WIDTH = 118
PLAIN_LOOP = 3_000_000
_LIBRARIES = ("aiokafka", "faust-streaming", "msgspec", "numpy", "rocksdict")

Cell = str | int | float | None


class Claim(Struct, frozen=True, kw_only=True):
    """One promise of the README, and what was measured."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool
    """True: the limit is a minimum; False: a maximum."""

    @property
    def held(self) -> bool:
        """Whether the number keeps the promise."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def sentence(self, judged: bool) -> str:
        """Return the claim in words, with a verdict if the sizes allow one."""
        bound = "at least" if self.at_least else "at most"
        verdict = ("held" if self.held else "MISSED") if judged else "not judged at --quick sizes"
        return f"{self.what}: {self.measured:,.4g} {self.unit}, wanted {bound} {self.limit:,g}: {verdict}"


class Report(Struct, kw_only=True):
    """What one benchmark found."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """How outputs differ from the oracle; empty when every one is equal."""


class Machine(Struct, kw_only=True):
    """Where and with what it was measured."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str
    kafka: str
    libraries: dict[str, str]
    commit: str
    date: str
    load_before: float
    """Load average of the minute before: above 0.5, other work was going on."""
    plain_loop_s: float
    """What PLAIN_LOOP additions take in one Python loop, the best of three: a shared machine's speed changes by the hour."""
    quick: bool


def machine(kafka: str, quick: bool) -> Machine:
    """Return the description of this machine now; `kafka` says which broker."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        system=platform.platform(terse=True),
        python=platform.python_version(),
        kafka=kafka,
        libraries={name: version(name) for name in _LIBRARIES},
        commit=_commit(),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        load_before=round(os.getloadavg()[0], 2),
        plain_loop_s=round(min(_plain_loop_s() for _ in range(3)), 3),
        quick=quick,
    )


def _plain_loop_s() -> float:
    begun, total = time.perf_counter(), 0
    for number in range(PLAIN_LOOP):
        total += number
    return time.perf_counter() - begun


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """Return the short hash of HEAD, marked when tracked files differ from it."""
    command = ["git", "describe", "--always", "--dirty=-modified", "--exclude=*"]
    found = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def publish(report: Report, where: Machine, results: Path = RESULTS) -> None:
    """Print the report and write it to `results`/<name>.txt and .json."""
    results.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=WIDTH)
    table = Table(title=report.title, title_justify="left")
    for number, column in enumerate(report.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in report.rows:
        table.add_row(*map(_cell, row))
    console.print(table)
    for claim in report.claims:
        colour = "yellow" if where.quick else "green" if claim.held else "red"
        console.print(f"[{colour}]{claim.sentence(not where.quick)}[/]")
    for note in report.notes:
        console.print(note, style="dim", highlight=False)
    for sentence in report.wrong:
        console.print(f"WRONG OUTPUT: {sentence}", style="bold red")
    console.print(_signature(where), style="dim", highlight=False)
    (results / f"{report.name}.txt").write_text(console.export_text())
    both = {"machine": where, "report": report}
    (results / f"{report.name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(both), indent=2) + b"\n")


def _cell(value: Cell) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else value


def _signature(where: Machine) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in where.libraries.items())
    return (
        f"{where.date}, commit {where.commit}, {'--quick, ' if where.quick else ''}{where.processor}, {where.cores} cores, "
        f"{where.memory_gib} GiB, {where.system}, Python {where.python}, {where.kafka}, {libraries}; "
        f"load before {where.load_before}, {PLAIN_LOOP:,} additions in a Python loop {where.plain_loop_s} s"
    )
