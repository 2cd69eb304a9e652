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
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec.structs import replace

from backtest.estimates import Settings
from backtest.logged_draws import LoggedDraws, read_draws
from backtest.models import open_models
from backtest.replay import How, Replay
from backtest.report import scope
from backtest.report.churn import churn_columns
from backtest.report.divisions import Divisions, divide
from backtest.report.draws import Draws, describe_demand, draws_of, write_draws
from backtest.report.facts import Codes, Decisions, Floats, read_decisions, write_decisions
from backtest.report.figures import Figures, write_figures
from backtest.report.page import page_of, require_jinja2
from backtest.report.plots import require_matplotlib
from backtest.report.prices import busiest_items, describe_paths, describe_prices
from backtest.report.quality import (
    NEXT_ITEM,
    NEXT_ITEMS,
    PROPENSITY,
    Columns,
    Watcher,
    describe_next_item,
    describe_propensity,
    write_predictions,
)
from backtest.report.reward_model import describe_folds, expected_rewards, require_sklearn, target_rewards
from backtest.report.targets import asked, best_uniform, folds_of, list_price
from backtest.report.truth import describe_truth, truth_of
from backtest.report.values import (
    Judged,
    describe_goals,
    describe_growth,
    describe_parts,
    describe_value,
    stays_away,
)
from backtest.summary import Summary
from backtest.what_if import Wanted, backtest_all
from contracts.currency import minor_digits
from contracts.errors import BadInput
from contracts.log import Log, open_log
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
class Runs:
    """The log replayed, as it was and under each policy."""

    log: Log
    summary: Summary
    users: Codes
    items: Codes
    logged: Decisions
    under: dict[str, Decisions]
    """By policy; the logged run comes first."""
    divisions: Divisions
    titles: dict[int, str]
    """Of the items, by code."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a report is asked about, and how."""

    wanted: Wanted
    """The log, and how it is replayed. Of several models the first is in force in every replay of a plain log, and all are
    compared; a recorded log needs those that were in force."""
    policies: Sequence[Path] = ()
    """TOML files; their names must differ."""
    settings: Settings = field(default_factory=Settings)
    """Of the off-policy evaluation."""


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
        runs, draws = _replay_all(log, ask, names, scratch, progress)
    scope.describe_page(figures, log, names, files)
    scope.describe_log(figures, log, ask.wanted, runs.summary, len(runs.users.of), len(runs.items.of))
    for name, run in runs.under.items():
        describe_prices(figures, name, run, runs.divisions)
    busiest = busiest_items(runs.logged)
    for name, run in runs.under.items():
        describe_paths(figures, name, run, busiest, runs.titles, runs.divisions.minor)
    _judge(figures, runs, draws, policies, ask.settings, files)
    _compare(figures, log, ask.wanted, artifacts, files.predictions, progress)
    scope.describe_versions(figures, ask.settings, policies, ask.wanted.models)
    write_decisions(files.decisions, runs.under)
    write_figures(figures, files.figures_json, files.figures_parquet)
    files.page.write_text(page_of(figures), encoding="utf-8")
    return figures


@contextmanager
def _scratch(resume: Path | None) -> Iterator[Path]:
    """Yield a directory for the tables of the runs; beside a directory to resume from it outlives a kill."""
    if resume is None:
        with TemporaryDirectory(prefix="pricetide-") as temporary:
            yield Path(temporary)
        return
    kept = resume.with_name(f"{resume.name}.tables")
    kept.mkdir(parents=True, exist_ok=True)
    yield kept
    shutil.rmtree(kept)


def _replay_all(
    log: Log, ask: Ask, names: Sequence[str], scratch: Path, progress: Progress
) -> tuple[Runs, LoggedDraws | None]:
    """Replay the log as it was, and under each policy; return the runs, and the draws if they were shown."""
    users, items = Codes(), Codes()
    decisions, draws = scratch / "decisions.parquet", scratch / "draws.parquet"
    shown = log.manifest.offers == "shown"
    found = backtest_all(
        replace(
            ask.wanted,
            decisions=decisions,
            draws=draws if shown else None,
            models=ask.wanted.models if log.recorded else ask.wanted.models[:1],
        ),
        ask.policies,
        partial(progress, "replay"),
    )
    under = {AS_LOGGED: read_decisions(decisions, users, items)}
    for name in names:
        under[name] = read_decisions(scratch / f"decisions.what-if-{name}.parquet", users, items)
    logged = under[AS_LOGGED]
    if not len(logged.user):
        raise BadInput(f"{log.directory} leads to no price decision: there is nothing to report; name another log")
    titles, categories = scope.catalogue_of(log, items)
    minor = 10 ** minor_digits(log.manifest.semantics.currency)
    runs = Runs(log, found.logged, users, items, logged, under, divide(logged, categories, minor), titles)
    return runs, read_draws(draws) if shown else None


def _judge(
    figures: Figures,
    runs: Runs,
    logged: LoggedDraws | None,
    policies: Sequence[Policy],
    settings: Settings,
    files: Files,
) -> None:
    """Add what the log says of value, or why it says nothing."""
    files.draws.unlink(missing_ok=True)
    if logged is None:
        scope.refuse(figures, policies, scope.NOT_SHOWN)
        return
    if logged.refusal is not None or not len(logged):
        scope.refuse(figures, policies, logged.refusal or scope.NO_DRAWS)
        return
    draws = draws_of(logged, runs.users, runs.items)
    targets = [asked(logged, one.name) for one in policies]
    kept = np.flatnonzero(draws.exposed & (draws.learnable | draws.forced))
    scope.describe_draws(figures, draws, logged.pending, len(kept))
    if not len(kept):
        scope.refuse(figures, policies, scope.NO_DRAWS)
        return
    draws = draws.where(kept)
    targets = [one.where(kept) for one in targets]
    judged = _judged(figures, runs, draws, settings)
    against = [list_price(draws), best_uniform(draws, judged.reward)]
    for target in (*targets, *against):
        found = describe_value(figures, judged, target, against)
        if target.says:
            figures.add("targets", "says", policy=target.name, unit="text", text=target.says)
        if target.name in runs.under:
            describe_goals(figures, judged, target)
            describe_parts(figures, judged, target, runs.divisions)
            if found.verdict != "REFUSE":
                describe_growth(figures, judged, target, runs.divisions)
    scope.drop_verdicts(figures, [one.name for one in against])
    worth = truth_of(runs.log, draws, judged.goal, judged.minor)
    if worth is not None:
        describe_truth(figures, judged, [*targets, *against], worth, runs.divisions)
    describe_demand(figures, draws, runs.divisions)
    describe_folds(figures, draws, runs.divisions)
    scope.describe_files(figures, "draws", files.draws)
    more = {"reward": judged.reward, "fold": folds_of(draws.user).astype(np.float64)}
    more |= churn_columns(figures, logged, kept, draws, runs.logged)
    if judged.gone is not None:
        more["stays away"] = judged.gone
    if judged.expected is not None:
        more["q: drawn"] = judged.expected.of_drawn
        more |= {f"q: {one.name}": target_rewards(judged.expected, one.choices) for one in (*targets, *against)}
    write_draws(files.draws, draws, runs.divisions, {one.name: one.probability for one in (*targets, *against)}, more)


def _judged(figures: Figures, runs: Runs, draws: Draws, settings: Settings) -> Judged:
    goal, reward = scope.goal_of(figures, draws)
    window_ms = runs.log.manifest.semantics.outcome_window_ms
    horizon_ms = scope.horizon_of(figures, runs.log, window_ms)
    gone: Floats | None = None
    if horizon_ms is not None:
        every = runs.logged
        gone = stays_away(draws, every.user, every.time_ms, window_ms, horizon_ms, int(every.time_ms.max()))
    return Judged(
        draws=draws,
        goal=goal,
        reward=reward / runs.divisions.minor,
        minor=runs.divisions.minor,
        expected=expected_rewards(draws, runs.divisions, goal),
        gone=gone,
        adaptive=scope.learns(figures, runs.log),
        settings=settings,
    )


def _artifacts(models: Sequence[Path]) -> list[Artifact]:
    """Open the artifacts, before any replay."""
    artifacts = [load_artifact(one) for one in models]
    if len({one.digest for one in artifacts}) < len(artifacts):
        raise BadInput("Two of the models are the same artifact: name each once")
    return artifacts


def _compare(
    figures: Figures, log: Log, wanted: Wanted, artifacts: Sequence[Artifact], file: Path, progress: Progress
) -> None:
    """Add how well each artifact foretells the log, and write what it foretold."""
    file.unlink(missing_ok=True)
    if not artifacts:
        return
    if log.recorded:
        figures.add("scope", "quality", unit="text", text=scope.RECORDED)
        return
    from_ms = scope.test_from(figures, log, artifacts)
    total = sum(map(sum, log.manifest.records.values()))
    parts: list[tuple[str, str, Columns]] = []
    for directory, artifact in zip(wanted.models, artifacts, strict=True):
        name = f"{directory.name} ({artifact.digest[:8]})"
        (encoder,) = open_models([directory], log.manifest.semantics).values()
        watcher = Watcher(encoder, artifact, from_ms, min(1.0, NEXT_ITEMS / max(total, 1)))
        how = How(order=wanted.order, as_of=wanted.as_of)
        _watch(log, watcher, how, partial(progress, f"model {name}"), total)
        parts.append((name, PROPENSITY, describe_propensity(figures, name, watcher, from_ms)))
        parts.append((name, NEXT_ITEM, describe_next_item(figures, name, watcher)))
    scope.describe_files(figures, "predictions", file)
    write_predictions(file, parts)


def _watch(log: Log, watcher: Watcher, how: How, progress: Callable[[int, int], None], total: int) -> None:
    """Replay the log with the watched model."""
    replay = Replay(log, models={watcher.digest: watcher}, how=how)
    replay.run(lambda partition, step: progress(len(watcher.rows), total))


def require_all() -> None:
    """Raise BadInput that says how to get it, if a library is missing that a report needs: before hours of work."""
    for require in (require_matplotlib, require_sklearn, require_jinja2):
        require()
