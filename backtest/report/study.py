"""A report from a log's directory to the page and the files beside it.

What is done: the log is replayed as it was, once under each policy asked about, and once with each artifact; if its offers
were shown, its draws are judged off-policy. Then every figure is computed, written, and shown. Equal logs, policies, models
and settings give equal bytes, on one machine. Not here: what a figure is computed from (prices, values, quality).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from msgspec.structs import replace

from backtest.estimates import Settings
from backtest.learning import moved
from backtest.logged_draws import read_head
from backtest.models import open_models
from backtest.replay import How
from backtest.report import scope
from backtest.report.divisions import Extent, divide
from backtest.report.draws import knowledge_at, read_draws
from backtest.report.facts import Codes, DecisionFile, DecisionWriter
from backtest.report.figures import Figures, write_figures
from backtest.report.judging import Runs, judge
from backtest.report.page import page_of, require_jinja2
from backtest.report.plots import require_matplotlib
from backtest.report.prices import PriceTally
from backtest.report.quality import (
    describe_differences,
    describe_next_item,
    describe_propensity,
    describe_slices,
    write_predictions,
)
from backtest.report.reward_model import require_sklearn
from backtest.report.spill import Spill
from backtest.report.targets import asked
from backtest.report.watching import Foretold, watch
from backtest.what_if import Wanted, backtest_all, forget
from contracts.currency import minor_digits
from contracts.errors import BadInput
from contracts.log import MANIFEST, Log, open_log, sha256_of
from contracts.policies import Policy
from contracts.policy_files import read_policy
from features.artifact import Artifact, load_artifact

AS_LOGGED = "as logged"
"""No policy can be named so: names have no spaces."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, records applied, and records of the log."""


@dataclass(frozen=True, slots=True)
class Files:
    """What a report consists of."""

    page: Path
    figures_json: Path
    figures_parquet: Path
    draws: Path
    decisions: Path
    predictions: Path


def files_of(page: Path) -> Files:
    """Return the files of the report at `page`; those beside it have its name and other endings."""
    return Files(
        page,
        *(
            page.with_suffix(f".{one}")
            for one in ("figures.json", "figures.parquet", "draws.parquet", "decisions.parquet", "predictions.parquet")
        ),
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """What a report is asked about, and how."""

    wanted: Wanted
    """The log, and how it is replayed. Of several models the first is in force in every replay of a plain log, and all are
    compared; a recorded log needs those that were in force, and may have others to compare."""
    policies: Sequence[Path] = ()
    """TOML files; their names must differ."""
    settings: Settings = field(default_factory=Settings)
    """Of the off-policy evaluation."""
    truth: Path | None = None
    """What simulated shoppers would have paid; None: what stands beside the log, if anything."""


def write_report(ask: Ask, page: Path, progress: Progress = lambda title, done, total: None) -> Figures:
    """Write the report to `page`, an HTML file, and the files beside it; return its figures.

    Raises:
        BadInput: the log, a policy or a model cannot be used, two policies have one name, or a library is missing.
    """
    policies = [read_policy(file) for file in ask.policies]
    names = [one.name for one in policies]
    require_all()
    log = open_log(ask.wanted.directory)
    artifacts = _artifacts(ask.wanted.models)
    files = files_of(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    figures = Figures()
    with _scratch(ask.wanted.resume) as scratch:
        runs = _replayed(log, ask, scratch, progress)
        scope.describe_page(figures, log, names, files, ask.wanted.as_of)
        scope.describe_log(figures, log, ask.wanted, runs.summary, len(runs.users), len(runs.items))
        _publish(figures, runs, names, scratch, files.decisions, progress)
        _judge(figures, runs, policies, ask.settings, scratch, files.draws, progress)
        _compare(figures, log, ask.wanted, artifacts, scratch, files.predictions, progress)
        scope.describe_versions(figures, ask.settings, policies, ask.wanted.models)
        write_figures(figures, files.figures_json, files.figures_parquet)
        files.page.write_text(page_of(figures), encoding="utf-8")
        forget(ask.wanted)
    return figures


@contextmanager
def _scratch(resume: Path | None) -> Iterator[Path]:
    """Yield a directory for the tables of the runs, and what else does not fit; beside that of --resume it outlives a kill."""
    if resume is None:
        with TemporaryDirectory(prefix="pricetide-") as temporary:
            yield Path(temporary)
        return
    kept = resume.with_name(f"{resume.name}.tables")
    kept.mkdir(parents=True, exist_ok=True)
    yield kept
    shutil.rmtree(kept)


_DECISIONS, _DRAWS = "decisions.parquet", "draws.parquet"
"""In the scratch directory."""


def _replayed(log: Log, ask: Ask, scratch: Path, progress: Progress) -> Runs:
    """Replay the log as it was, and under each policy; return what is known of it then."""
    found = backtest_all(
        replace(
            ask.wanted,
            decisions=scratch / _DECISIONS,
            draws=scratch / _DRAWS if log.manifest.offers == "shown" else None,
            models=ask.wanted.models if log.recorded else ask.wanted.models[:1],
        ),
        ask.policies,
        partial(progress, "replay"),
        keep=True,
    )
    users, items, extent = Codes(), Codes(), Extent()
    logged = DecisionFile(scratch / _DECISIONS, users, items)
    events = Spill(scratch, "events", 2, logged.rows)
    for chunk in logged:
        extent.add(chunk)
        events.append(chunk.user, np.stack([chunk.user, chunk.time_ms], axis=1))
    if not extent.decisions:
        raise BadInput(scope.nothing_decided(log, ask.wanted.as_of))
    titles, categories = scope.catalogue_of(log, items)
    minor = 10 ** minor_digits(log.manifest.semantics.currency)
    divisions = divide(extent, categories, minor)
    return Runs(log, found.logged, users, items, extent, divisions, titles, events, ask.truth)


def _publish(figures: Figures, runs: Runs, names: Sequence[str], scratch: Path, file: Path, progress: Progress) -> None:
    """Add what each policy publishes, and write the decisions of all runs."""
    tables = {AS_LOGGED: scratch / _DECISIONS}
    tables |= {name: scratch / f"{Path(_DECISIONS).stem}.what-if-{name}.parquet" for name in names}
    runs_of = {policy: DecisionFile(table, runs.users, runs.items) for policy, table in tables.items()}
    total, done, paths = sum(run.rows for run in runs_of.values()), 0, {}
    growing = file.with_name(f"{file.name}.part")
    writer = DecisionWriter(growing)
    for policy, run in runs_of.items():
        tally = PriceTally(runs.divisions, runs.extent, scratch, run.rows)
        for chunk in run:
            tally.add(chunk)
            writer.append(policy, chunk)
            done += len(chunk.user)
            progress("prices", done, total)
        tally.describe(figures, policy)
        paths[policy] = tally.paths
    writer.close()
    growing.replace(file)
    for policy, found in paths.items():
        found.describe(figures, policy, runs.titles, runs.divisions.minor)


def _judge(
    figures: Figures,
    runs: Runs,
    policies: Sequence[Policy],
    settings: Settings,
    scratch: Path,
    out: Path,
    progress: Progress,
) -> None:
    """Add what the log says of value, or why it says nothing."""
    out.unlink(missing_ok=True)
    if runs.log.manifest.offers != "shown":
        scope.refuse(figures, policies, scope.NOT_SHOWN)
        return
    table = scratch / _DRAWS
    head = read_head(table)
    if head.refusal is not None or not head.rows:
        scope.refuse(figures, policies, head.refusal or scope.NO_DRAWS)
        return
    draws, wishes = read_draws(table, head, runs.users, runs.items, scratch)
    kept = np.flatnonzero(draws.exposed & (draws.learnable | draws.forced))
    scope.describe_draws(figures, draws, head, len(kept))
    if not len(kept):
        scope.refuse(figures, policies, scope.NO_DRAWS)
        return
    targets = [asked(one.name, wishes[one.name], kept) for one in policies]
    draws = draws.where(kept)  # the others are let go
    known = knowledge_at(table, head, draws.row[~draws.forced])
    scope.describe_learning(figures, policies, known)
    judge(figures, runs, draws, targets, table, settings, moved(known), out, partial(progress, "value"))


def _artifacts(models: Sequence[Path]) -> list[Artifact]:
    """Open the artifacts, before any replay."""
    artifacts = [load_artifact(one) for one in models]
    if len({one.digest for one in artifacts}) < len(artifacts):
        raise BadInput("Two of the models are the same artifact: name each once")
    return artifacts


def _compare(
    figures: Figures,
    log: Log,
    wanted: Wanted,
    artifacts: Sequence[Artifact],
    scratch: Path,
    file: Path,
    progress: Progress,
) -> None:
    """Add how well each artifact foretells the log, and write what it foretold."""
    file.unlink(missing_ok=True)
    if not artifacts:
        return
    from_ms = scope.test_from(figures, log, artifacts)
    how = How(order=wanted.order, as_of=wanted.as_of, one_model=log.recorded)
    every: dict[str, Foretold] = {}
    for directory, artifact in zip(wanted.models, artifacts, strict=True):
        name = f"{directory.name} ({artifact.digest[:8]})"
        kept = scratch / f"foretold-{_key(log, artifact, from_ms, how)}.npz"
        if not kept.exists():
            (encoder,) = open_models([directory], log.manifest.semantics).values()
            watch(log, artifact, encoder, from_ms, how, partial(progress, f"model {name}")).write(kept)
        every[name] = found = Foretold.read(kept)
        describe_propensity(figures, name, found)
        describe_next_item(figures, name, found)
        describe_slices(figures, name, found)
    describe_differences(figures, every)
    scope.describe_samples(figures, log, min(one.share for one in every.values()))
    scope.describe_files(figures, "predictions", file)
    write_predictions(file, every)


def _key(log: Log, artifact: Artifact, from_ms: int, how: How) -> str:
    """Return what a model's predictions of a log hang on, as a short text."""
    parts = [sha256_of(log.directory / MANIFEST), artifact.digest, from_ms, how.order, how.as_of]
    return sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def require_all() -> None:
    """Raise BadInput that says how to get it, if a library is missing that a report needs: before hours of work."""
    for require in (require_matplotlib, require_sklearn, require_jinja2):
        require()
