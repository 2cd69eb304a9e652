"""One backtest from a log's directory to its files and its summary: in this process or in several, to be resumed or not."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backtest.jobs import DEAD, DRAWS, TABLES, Done, Job, run_job
from backtest.logged_draws import write_draws
from backtest.outputs import write_dead_letters, write_table
from backtest.replay import BATCH_MAX, STATES_BYTES, How, Order
from backtest.summary import End, Summary
from backtest.tables import PUBLISHED
from backtest.user_digests import digest_of
from contracts.errors import BadInput
from contracts.log import MANIFEST, Log, open_log
from contracts.policies import Policy
from pricing.garbage import collected_seldom

Progress = Callable[[int, int], None]
"""Called with records applied, and records of the log."""
WAIT_S = 0.2
_OTHER_FORMATS = frozenset({".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".xlsx"})
"""Endings of names that a Parquet file must not have: whoever opens it would take it for what it is not."""


class Files(Struct, frozen=True, kw_only=True):
    """What to write; None: not that."""

    prices: Path | None = None
    decisions: Path | None = None
    outcomes: Path | None = None
    shadow_decisions: Path | None = None
    dead_letters: Path | None = None
    draws: Path | None = None
    """Table of logged draws (backtest.logged_draws)."""

    def asked(self) -> frozenset[str]:
        """Return the names of what is asked for, as backtest.jobs has them."""
        found = {DEAD: self.dead_letters, DRAWS: self.draws} | {name: getattr(self, name) for name in TABLES}
        return frozenset(name for name, path in found.items() if path is not None)


def run_backtest(
    directory: Path,
    prices: Path | None = None,
    decisions: Path | None = None,
    dead_letters: Path | None = None,
    batch_max: int = BATCH_MAX,
    progress: Progress = lambda done, total: None,
    models: Sequence[Path] = (),
    outcomes: Path | None = None,
    *,
    shadow_decisions: Path | None = None,
    draws: Path | None = None,
    targets: Sequence[Policy] = (),
    what_if: Policy | None = None,
    order: Order = "merged",
    as_of: float = inf,
    processes: int = 1,
    resume: Path | None = None,
    states_bytes: int = STATES_BYTES,
    verify: bool = True,
) -> Summary:
    """Replay the log in `directory`, write the files that are asked for (Files), and return the summary.

    `batch_max`, `order`, `as_of`, `states_bytes` are those of How. `progress` is called now and then; `models` are directories
    of the artifacts in force. The table of `draws` has probabilities of the `targets`, which have distinct names. Under
    `what_if`, whose name gets WHAT_IF in front, there are no outcomes. `processes` share the partitions, and change no byte.
    With `resume`, a directory to keep progress in, a killed backtest goes on from there. `verify` holds the files of the log
    against their digests first.

    Raises:
        BadInput: the log cannot be read or has no events, or pyarrow is missing; a policy does not fit; `resume` holds the
            progress of another backtest; as of Replay.
        BadSettings: a model cannot be used.
    """
    files = Files(prices=prices, decisions=decisions, outcomes=outcomes, shadow_decisions=shadow_decisions,
                  dead_letters=dead_letters, draws=draws)  # fmt: skip
    log = open_log(directory, verify=verify)
    _check(log, files, targets, what_if)
    work = Path(mkdtemp(prefix=".pricetide-", dir=_beside(files))) if resume is None else resume
    how = How(
        batch_max=batch_max,
        order=order,
        as_of=as_of,
        what_if=what_if,
        targets=tuple(targets) if draws else None,
        states_bytes=states_bytes,
        work=work,
        resumable=resume is not None,
    )
    job = Job(directory=directory, how=how, models=tuple(models), asked=files.asked())
    try:
        if resume is not None:
            _claim(job)
        summary = _run(job, log, files, min(processes, log.manifest.topology.partitions), progress)
    except BaseException:
        if resume is None:
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)
    return summary


def _check(log: Log, files: Files, targets: Sequence[Policy], what_if: Policy | None) -> None:
    if not sum(map(sum, log.manifest.records.values())):
        raise BadInput(f"{log.directory} has no events: there is nothing to replay")
    for path in (files.prices, files.decisions, files.outcomes, files.shadow_decisions, files.draws):
        if path is not None and path.suffix in _OTHER_FORMATS:
            raise BadInput(f"{path} would be a Parquet file: let its name end in .parquet")
    names = [policy.name for policy in targets]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"Two policies are named {name}: give each its own name")
    if what_if is not None and (files.outcomes or files.draws):
        raise BadInput(
            f"Under {what_if.name}, which priced nobody, there are no outcomes: leave --outcomes and --draws to the logged run"
        )


def _beside(files: Files) -> Path | None:
    """Return where to work: beside the first file, which has room; None for the system's place."""
    paths = (files.prices, files.decisions, files.outcomes, files.shadow_decisions, files.draws, files.dead_letters)
    for path in paths:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.parent
    return None


def _claim(job: Job) -> None:
    """Take the directory of a resumable backtest, or refuse that of another one.

    What changes no byte may change in between: the batch, the number of processes, where the files go.
    """
    work = job.how.work
    assert work is not None
    what: dict[str, Any] = {
        "manifest": hashlib.sha256((job.directory / MANIFEST).read_bytes()).hexdigest(),
        "models": [str(path.resolve()) for path in job.models],
        "how": msgspec.json.encode([job.how.order, job.how.as_of, job.how.what_if, job.how.targets]).decode(),
        "asked": sorted(job.asked),
        "version": version("pricetide"),
    }
    file = work / "backtest.json"
    if file.exists():
        before = msgspec.json.decode(file.read_bytes())
        other = [name for name, value in what.items() if before.get(name) != value]
        if other:
            raise BadInput(
                f"{work} holds the progress of another backtest ({', '.join(other)} differ): name another directory, or "
                "remove it"
            )
        return
    if work.exists() and any(work.iterdir()):
        raise BadInput(f"{work} is not empty, and holds no progress of a backtest: name another directory")
    work.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.encode(what))


@collected_seldom()
def _run(job: Job, log: Log, files: Files, processes: int, progress: Progress) -> Summary:
    total = sum(map(sum, log.manifest.records.values()))
    partitions = log.manifest.topology.partitions
    started = time.perf_counter()
    if processes <= 1:
        applied = [0] * partitions

        def told(partition: int, count: int) -> None:
            applied[partition] = count
            progress(sum(applied), total)

        done = [run_job(job, told)]
    else:
        done = _in_processes(job, partitions, processes, lambda count: progress(count, total))
    seconds = time.perf_counter() - started
    work = job.how.work
    assert work is not None
    for name, table in TABLES.items():
        path: Path | None = getattr(files, name)
        if path is not None:
            write_table(work, name, partitions, {**table.columns, **PUBLISHED}, path)
    if files.dead_letters is not None:
        write_dead_letters(work, partitions, files.dead_letters)
    if files.draws is not None:
        pending = sum(one.pending for one in done)
        write_draws(
            work,
            log,
            [p.name for p in job.how.targets or ()],
            [s for one in done for s in one.draws],
            pending,
            files.draws,
        )
    return _summary(done, seconds, digest_of(work, partitions))


def _summary(done: Sequence[Done], seconds: float, digest: str) -> Summary:
    first, *others = done
    for one in others:
        first.tally.join(one.tally)
    end = End(
        seconds=seconds,
        applied=sum(one.applied for one in done),
        pending=sum(one.pending for one in done),
        not_applied=sum(one.not_applied for one in done),
        unknown=sum(one.unknown for one in done),
        refused_references=max(one.refused_references for one in done),
        digest=digest,
    )
    return first.tally.summary(end)


_counts: Any = None
"""In a process of a pool: records applied by partition, shared."""


def _share(counts: Any) -> None:  # noqa: ANN401 - a ctypes array
    global _counts  # noqa: PLW0603 - what a pool's initializer is for
    _counts = counts


def _tell(partition: int, applied: int) -> None:
    _counts[partition] = applied


def _in_processes(job: Job, partitions: int, processes: int, progress: Callable[[int], None]) -> list[Done]:
    """Run the job as `processes` jobs, each with every so-many-th partition."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("q", partitions, lock=False)
    jobs = [
        replace(
            job,
            how=replace(
                job.how,
                partitions=tuple(range(first, partitions, processes)),
                states_bytes=job.how.states_bytes // processes,
            ),
            jobs=processes,
        )
        for first in range(processes)
    ]
    with ProcessPoolExecutor(processes, context, _share, (counts,)) as pool:
        futures = [pool.submit(partial(run_job, one, _tell)) for one in jobs]
        while not all(future.done() for future in futures):
            failed = next((one for one in futures if one.done() and one.exception() is not None), None)
            if failed is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                break
            wait(futures, timeout=WAIT_S)
            progress(sum(counts))
        try:
            return [future.result() for future in sorted(futures, key=lambda one: not one.done())]
        except BrokenProcessPool:
            raise BadInput(
                "A process of the backtest was killed, perhaps for want of memory: use fewer --processes; with --resume "
                "the same command goes on"
            ) from None
