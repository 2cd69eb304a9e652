"""Cross-validation of the user transformer: trained anew for every fold, asked about what the fold's training never saw.

A directory, each fold finished on its own, so that a killed run goes on with what is not:

    plan.json               what is done (Plan); a run with another plan does not go on here
    fold-1/run, artifact    as of `model train` and `model export`
    fold-1/result.json      what the fold found (Fold), written last
    crossvalidation.json    plan, folds, summary (CrossValidation)

Training, its validation slice included, sees the learned side of a split alone (splits); of the rest only the catalogue
in force when learning ends, and text vectors where they are given: those of an encoder that was tuned on the same log have
seen its tests. Baselines learn from the same events, and choose their settings among them. Not here: figures and their
spread (spreads), the tables (crossvalidation_page).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np
import torch
from msgspec import Struct

from contracts.catalogue import Catalogue
from contracts.errors import BadInput
from contracts.log import open_log
from features.artifact import load_artifact
from features.encoder import Encoder
from model_export.applied import catalogue_of
from model_export.dataset import FALLBACK_TEXT, log_digest
from model_export.evaluation import (
    USERS_RESIDENT,
    next_item_result,
    propensity_result,
    require_enough,
)
from model_export.observed import Observed, Progress, observe
from model_export.runs import RUN, export_run, write_json
from model_export.splits import Split, fold_of, folds_in_time, folds_of_users
from model_export.spreads import Fold, Spread, figures_of, summary_of
from model_export.training import Options, Tell
from model_export.training_run import Work, train_run

PLAN, RESULT, FOUND = "plan.json", "result.json", "crossvalidation.json"
Stage = Callable[[str], AbstractContextManager[Progress]]


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cross-validation is decided by."""

    by: Literal["user", "time"]
    folds: int
    log_digest: str
    source: str
    validation: float
    text: str
    threads: int
    """Of torch: equal runs need equal threads."""
    options: Options


class CrossValidation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything."""

    plan: Plan
    folds: list[Fold]
    summary: list[Spread]


def crossvalidate(
    directory: Path,
    work: Work,
    by: Literal["user", "time"],
    folds: int,
    options: Options,
    *,
    resume: bool = False,
    tell: Tell = lambda line: None,
    stage: Stage = lambda title: nullcontext(lambda done, total: None),
) -> CrossValidation:
    """Train and test `folds` models, and leave what was found in `directory`.

    Args:
        directory: made if needed.
        work: log, validation slice, text vectors; the rest of it is each fold's own.
        by: how the log is split.
        folds: how often, at least 2.
        options: of every training.
        resume: go on with the folds that are not finished.
        tell: called with lines.
        stage: called with what is done now; gives what is told of its progress.

    Raises:
        BadInput: no such log, too little of it for so many folds, or a directory of another or an interrupted run.
    """
    log = open_log(work.log)
    catalogue = catalogue_of(log)
    with stage("read the log") as progress:
        observed = observe(log, catalogue, progress=progress)
    events = observed.interactions
    splits = folds_in_time(events, folds) if by == "time" else folds_of_users(events, folds, work.validation)
    for number, split in enumerate(splits, 1):
        try:
            require_enough(observed, catalogue, split)
        except BadInput as error:
            raise BadInput(f"Fold {number} of {folds} by {by}: {error}") from None
    plan = Plan(
        by=by,
        folds=folds,
        log_digest=log_digest(log),
        source=log.manifest.source,
        validation=work.validation,
        text=_text_of(work.text),
        threads=torch.get_num_threads(),
        options=options,
    )
    _require_plan(directory, plan, resume=resume)
    found = []
    for number, split in enumerate(splits, 1):
        fold = Folding(directory / f"fold-{number}", number, split, _part(work, by, folds, number, split))
        found.append(fold.finished() or fold.run(catalogue, options, tell, stage))
    done = CrossValidation(plan=plan, folds=found, summary=summary_of(found))
    write_json(directory / FOUND, done)
    return done


def _part(work: Work, by: Literal["user", "time"], folds: int, number: int, split: Split) -> Work:
    """Return what fold `number` trains on."""
    if by == "time":
        return work._replace(until_ms=split.learned_until_ms)
    return work._replace(until_ms=None, learns_from=lambda user: fold_of(user, folds) != number - 1)


class Folding:
    """One fold."""

    def __init__(self, directory: Path, number: int, split: Split, work: Work) -> None:
        self._directory, self._number, self._split, self._work = directory, number, split, work

    def finished(self) -> Fold | None:
        """Return what was found before, if the fold was finished."""
        file = self._directory / RESULT
        return _read(file, Fold, "delete it, and go on with --resume") if file.is_file() else None

    def run(self, catalogue: Catalogue, options: Options, tell: Tell, stage: Stage) -> Fold:
        """Train, from the last checkpoint if there is one, export, and test."""
        run, title = self._directory / "run", f"fold {self._number}"
        if not (run / RUN).is_file():
            with stage(f"{title}: train") as progress:
                train_run(
                    run, self._work, options, resume=True, tell=lambda line: tell(f"{title}: {line}"), progress=progress
                )
        trained, digest = export_run(run, self._directory / "artifact")
        artifact = load_artifact(self._directory / "artifact")
        with stage(f"{title}: test") as progress:
            encoder = Encoder(artifact, USERS_RESIDENT)
            observed = observe(open_log(self._work.log), catalogue, encoder, progress)
        ranked = next_item_result(observed, catalogue, self._split, artifact)
        judged = propensity_result(observed, self._split)
        fold = Fold(
            fold=self._number,
            **self._sizes(observed),
            tested_events=ranked.events,
            new_user_share=ranked.new_user_share,
            cold_share=ranked.cold_share,
            examples=judged.examples,
            bought_share=judged.bought_share,
            model=digest,
            epochs=trained.epochs,
            settings={**ranked.settings, **judged.settings},
            figures=figures_of(ranked, judged),
        )
        write_json(self._directory / RESULT, fold)
        return fold

    def _sizes(self, observed: Observed) -> dict[str, int]:
        split, user = self._split, observed.interactions.user
        return {
            "learned_events": int(split.learned.sum()),
            "learned_users": len(np.unique(user[split.learned])),
            "learned_until_ms": split.learned_until_ms,
            "tested_users": len(np.unique(user[split.tested])),
            "tested_from_ms": split.tested_from_ms,
            "tested_until_ms": split.tested_until_ms,
        }


def _text_of(directory: Path | None) -> str:
    if directory is None:
        return FALLBACK_TEXT
    from model_export.text import read_item_texts

    manifest = read_item_texts(directory).manifest
    return f"{manifest.encoder} {manifest.digest}"


def _require_plan(directory: Path, plan: Plan, *, resume: bool) -> None:
    file = directory / PLAN
    if not file.is_file():
        if (directory / FOUND).exists() or any(directory.glob("fold-*")):
            raise BadInput(
                f"{directory} holds folds and no {PLAN} that says of what, so nobody can go on with them: use another directory"
            )
        directory.mkdir(parents=True, exist_ok=True)
        write_json(file, plan)
    elif not resume:
        raise BadInput(f"{directory} holds a cross-validation: go on with --resume, or use another directory")
    elif _read(file, Plan, "use another directory, for nobody can tell what the folds in this one are of") != plan:
        raise BadInput(
            f"{file} is of another cross-validation (its log, folds, threads or options): use another directory, or what it "
            "was begun with"
        )


_Told = TypeVar("_Told", bound=Struct)


def _read(file: Path, told: type[_Told], remedy: str) -> _Told:
    try:
        return msgspec.json.decode(file.read_bytes(), type=told)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} cannot be read ({error}): {remedy}") from None
