"""A report from a log's directory to the page and the files beside it.

What is done: the log is replayed as it was, once under each policy asked about, and once with each artifact; if its offers
were shown, its draws are judged off-policy. Then every figure is computed, written, and shown. Equal logs, policies, models
and settings give equal bytes, on one machine. Not here: what a figure is computed from (prices, values, quality).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from backtest.estimates import Settings
from backtest.logged_draws import logged_draws
from backtest.models import open_models
from backtest.outputs import DecisionTable
from backtest.replay import How, Replay
from backtest.report import scope
from backtest.report.divisions import Divisions, divide
from backtest.report.draws import Draws, describe_demand, draws_of, write_draws
from backtest.report.facts import Codes, Decisions, Floats, read_decisions, write_decisions
from backtest.report.figures import Figures, write_figures
from backtest.report.page import page_of
from backtest.report.prices import busiest_items, describe_paths, describe_prices
from backtest.report.quality import Watcher, describe_funnel, describe_next_item, describe_propensity
from backtest.report.reward_model import describe_folds, expected_rewards
from backtest.report.targets import asked, best_uniform, list_price
from backtest.report.values import (
    Judged,
    describe_goals,
    describe_growth,
    describe_parts,
    describe_value,
    stays_away,
)
from backtest.summary import Summary, Tally
from contracts.currency import minor_digits
from contracts.errors import BadInput
from contracts.log import Log, open_log
from contracts.policies import Policy
from contracts.policy_files import read_policy
from features.artifact import load_artifact
from features.vectors import TokenEncoder
from pricing.engine import Step

AS_LOGGED = "as logged"
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


def files_of(page: Path) -> Files:
    """Return the files of the report at `page`; those beside it have its name and other endings."""
    return Files(
        page,
        *(
            page.with_suffix(f".{one}")
            for one in ("figures.json", "figures.parquet", "draws.parquet", "decisions.parquet")
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


def write_report(
    directory: Path,
    policies: Sequence[Path],
    page: Path,
    models: Sequence[Path] = (),
    settings: Settings = Settings(),  # noqa: B008 - frozen
    progress: Progress = lambda title, done, total: None,
) -> Figures:
    """Write the report on the log in `directory` and return its figures.

    Args:
        directory: of the log.
        policies: TOML files; their names must differ.
        page: HTML file to write; the other files stand beside it.
        models: artifacts. The first is in force in every replay of a plain log; all are compared. A recorded log needs those
            that were in force.
        settings: of the off-policy evaluation.
        progress: called while replaying.

    Raises:
        BadInput: the log, a policy or a model cannot be used, two policies have one name, or a library is missing.
    """
    wanted = [read_policy(file) for file in policies]
    names = [one.name for one in wanted]
    if len(set(names)) < len(names):
        raise BadInput(f"Two of the policies are named alike ({', '.join(names)}): give each file another name = ...")
    if AS_LOGGED in names:
        raise BadInput(f"A policy is named {AS_LOGGED!r}, as the log's own column is: give it another name")
    log = open_log(directory)
    files = files_of(page)
    page.parent.mkdir(parents=True, exist_ok=True)
    in_force = models if log.recorded else models[:1]
    figures = Figures()
    with TemporaryDirectory() as scratch:
        runs = _replay_all(log, wanted, in_force, Path(scratch), progress)
    scope.describe_page(figures, log, names, files)
    scope.describe_log(figures, log, runs.summary, len(runs.users.of), len(runs.items.of))
    for name, run in runs.under.items():
        describe_prices(figures, name, run, runs.divisions)
    busiest = busiest_items(runs.logged)
    for name, run in runs.under.items():
        describe_paths(figures, name, run, busiest, runs.titles, runs.divisions.minor)
    _judge(figures, runs, wanted, in_force, settings, files)
    _compare(figures, log, models, progress)
    scope.describe_versions(figures, settings, runs.summary, wanted, models)
    write_decisions(files.decisions, runs.under)
    write_figures(figures, files.figures_json, files.figures_parquet)
    files.page.write_text(page_of(figures), encoding="utf-8")
    return figures


def _replay_all(
    log: Log, policies: Sequence[Policy], models: Sequence[Path], scratch: Path, progress: Progress
) -> Runs:
    users, items = Codes(), Codes()
    under: dict[str, Decisions] = {}
    summaries = []
    for policy in (None, *policies):
        name = AS_LOGGED if policy is None else policy.name
        encoders = open_models(models, log.manifest.semantics)
        summaries.append(_replay(log, encoders, policy, scratch / "decisions.parquet", name, progress))
        under[name] = read_decisions(scratch / "decisions.parquet", users, items)
    logged = under[AS_LOGGED]
    if not len(logged.user):
        raise BadInput(f"{log.directory} leads to no price decision: there is nothing to report; name another log")
    titles, categories = scope.catalogue_of(log, items)
    minor = 10 ** minor_digits(log.manifest.semantics.currency)
    return Runs(log, summaries[0], users, items, logged, under, divide(logged, categories, minor), titles)


def _replay(
    log: Log, models: Mapping[str, TokenEncoder], policy: Policy | None, file: Path, title: str, progress: Progress
) -> Summary:
    """Replay the log under `policy`, or as it was, into a table of decisions."""
    total = sum(map(sum, log.manifest.records.values()))
    tally, applied = Tally(), [0] * log.manifest.topology.partitions
    replay = Replay(log, models=models, how=How(what_if=policy))
    with closing(DecisionTable(file)) as table:

        def publish(partition: int, step: Step) -> None:
            tally.add(step, step.partition.applied - applied[partition])
            applied[partition] = step.partition.applied
            table.append(partition, step.decisions)
            progress(title, sum(applied), total)

        replay.run(publish)
    return tally.summary(0.0, replay.not_applied, replay.refused_references, replay.pending)


def _judge(
    figures: Figures,
    runs: Runs,
    policies: Sequence[Policy],
    models: Sequence[Path],
    settings: Settings,
    files: Files,
) -> None:
    """Add what the log says of value, or why it says nothing."""
    files.draws.unlink(missing_ok=True)
    if runs.log.manifest.offers != "shown":
        scope.refuse(figures, policies, scope.NOT_SHOWN)
        return
    logged = logged_draws(runs.log.directory, policies, models)
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
        describe_value(figures, judged, target, against)
        if target.says:
            figures.add("targets", "says", policy=target.name, unit="text", text=target.says)
    for target in targets:
        describe_goals(figures, judged, target)
        describe_parts(figures, judged, target, runs.divisions)
        describe_growth(figures, judged, target, runs.divisions)
    scope.drop_verdicts(figures, [one.name for one in against])
    describe_demand(figures, draws, runs.divisions)
    describe_folds(figures, draws, runs.divisions)
    scope.describe_files(figures, "draws", files.draws)
    more = {"reward": judged.reward} | ({} if judged.gone is None else {"stays away": judged.gone})
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
        adaptive=scope.learns(runs.log),
        settings=settings,
    )


def _compare(figures: Figures, log: Log, models: Sequence[Path], progress: Progress) -> None:
    """Add how well each artifact foretells the log; of a recorded log those in force, as one."""
    if not models:
        return
    artifacts = [load_artifact(one) for one in models]
    if log.recorded:
        figures.add("scope", "quality", unit="text", text=scope.RECORDED)
        return
    from_ms = scope.test_from(figures, log, artifacts)
    topology = log.manifest.topology
    for place, (directory, artifact) in enumerate(zip(models, artifacts, strict=True)):
        name = f"{directory.name} ({artifact.digest[:8]})" if len(models) > 1 else artifact.digest[:16]
        (encoder,) = open_models([directory], log.manifest.semantics).values()
        watcher = Watcher(encoder, artifact, from_ms)
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / "decisions.parquet"
            _replay(log, {watcher.digest: watcher}, None, file, f"model {name}", progress)
            run = read_decisions(file, Codes(), Codes())
        describe_propensity(figures, name, run, from_ms, int(run.time_ms.max()))
        describe_next_item(figures, name, watcher)
        if place == 0:
            describe_funnel(figures, name, run, (topology.views, topology.clicks), from_ms)
