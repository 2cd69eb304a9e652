"""One evaluation: a log, a split in time, the baselines tuned on the slice before it, and a model if there is one.

Baselines are chosen on the last part of what lies before the split (as long as the test, at most half of it), learned
anew from everything before the split, and then asked once. The model must have been trained on nothing from the split on.
Not here: the protocols (next_item, propensity), the page (quality_report).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.errors import BadInput
from contracts.log import Log, open_log
from features.artifact import NO_ITEM, Artifact
from features.inputs import UNKNOWN_ITEM
from features.tokens import KINDS
from features.vectors import TokenEncoder
from model_export.applied import catalogue_of
from model_export.baselines import families, tuned
from model_export.dataset import log_digest
from model_export.next_item import Interactions, Metrics, Task, default_split_ms, ranks_of, sliced_metrics, task_between
from model_export.observed import Observed, Progress, observe
from model_export.propensity import (
    PURCHASE_WITHIN_MS,
    REGULARISATIONS,
    ROLLING,
    PropensityMetrics,
    RollingBaseline,
    propensity_metrics,
    purchase_labels,
)
from model_export.splits import Split, split_at

MODEL = "the model"
ROLLING_BASELINE = "logistic regression"
VALIDATION_ROWS_MAX = 6_000
"""Events that settings are chosen on: a sample, so that a choice takes seconds."""
LEARNED_UNTIL = "until_ms"
"""The metric of a manifest that says where its training data ended, event time."""
USERS_RESIDENT = 16_384
"""Users whose keys and values are in memory while a model is asked about a log."""
_SEED = 11
_PURCHASE = KINDS.index("purchase")
_OVER_LIST = ROLLING.index("price over list")


@dataclass(frozen=True, slots=True)
class NextItemResult:
    """The next-item table: per method its settings and its metrics by slice."""

    methods: Mapping[str, Mapping[str, Metrics]]
    settings: Mapping[str, str]
    candidates: int
    events: int
    cold_share: float
    """Share of the events whose item is no candidate."""
    repeat_share: float
    """Share of the events whose item is the user's last one."""
    new_user_share: float

    @property
    def standard_error(self) -> float:
        """The largest standard error of a recall in the table."""
        return max(one.error for slices in self.methods.values() for one in slices.values() if one.events)


@dataclass(frozen=True, slots=True)
class PropensityResult:
    """The propensity table."""

    methods: Mapping[str, PropensityMetrics]
    settings: Mapping[str, str]
    examples: int
    bought_share: float
    learned_examples: int
    learned_bought_share: float
    off_list_share: float
    """Share of the tested examples whose user saw a price other than list."""


class Doubt(NamedTuple):
    """Tested events that a model may have learned from: of a time that its training covered, in another log by digest.

    The digest is of a log's manifest, so the same events written again, in other partitions say, have another one.
    """

    until_ms: int
    """Event time at which the model's training ended."""
    events: int
    """Tested events before it."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation found."""

    source: str
    """Attribution of the log."""
    log_digest: str
    """sha256 of the log's events."""
    split_ms: int
    until_ms: int
    model: str | None
    """Digest of the artifact."""
    doubt: Doubt | None
    """What may make the figures of the model too good."""
    next_item: NextItemResult
    propensity: PropensityResult | str
    """The sentence that says why there is none, where a slice of the log has no purchases."""


class ModelScores:
    """The model as a method of the next-item protocol: its scores by the user's vector after the event before."""

    name = MODEL

    def __init__(self, task: Task, vectors: NDArray[np.float32], artifact: Artifact) -> None:
        self._artifact, self._vectors = artifact, vectors
        self._rows = np.array([artifact.rows.get(item, UNKNOWN_ITEM) for item in task.candidates])

    def scores(self, task: Task, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the artifact's scores; the user's recent items are those of the events before each row."""
        before = rows[:, None] - 1 - np.arange(self._artifact.manifest.architecture.recent)
        place = task.item[np.maximum(before, 0)]
        known = np.where(place < len(self._rows), self._rows[np.minimum(place, len(self._rows) - 1)], UNKNOWN_ITEM)
        recent = np.where(before >= task.first[rows, None], known, NO_ITEM)
        return self._artifact.scores(self._vectors[rows - 1], recent)[:, self._rows]


def evaluate(
    directory: Path,
    split_ms: int | None = None,
    artifact: Artifact | None = None,
    encoder: TokenEncoder | None = None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Evaluate the baselines, and a model if given, on the log in `directory`.

    Args:
        directory: of the log.
        split_ms: event time at which the test begins; None: where the model's learning from this log ended, else
            default_split_ms.
        artifact: the model's candidates.
        encoder: of the same artifact; both or none.
        progress: called with records read.

    Raises:
        BadInput: no log, a model that learned from the test part, nothing to predict after the split, or nothing to learn from
            before it. Too few purchases leave the propensity out alone.
    """
    log = open_log(directory)
    catalogue = catalogue_of(log)
    observed = observe(log, catalogue, encoder, progress)
    events = observed.interactions
    learned_until_ms = _learned_until_ms(artifact, log)
    if learned_until_ms is not None and learned_until_ms > events.time_ms.max(initial=0):
        raise BadInput(
            "The model learned from the whole of this log: train it with --until, or evaluate it on another log"
        )
    if split_ms is None:
        split_ms = default_split_ms(events) if learned_until_ms is None else learned_until_ms
    if learned_until_ms is not None and split_ms < learned_until_ms:
        raise BadInput(
            f"The model learned from this log up to {learned_until_ms} ms, which is after the split at {split_ms} ms: "
            "leave --test-from out, or train another model with --until"
        )
    split = split_at(events, split_ms, int(events.time_ms.max(initial=split_ms)) + 1)
    return Evaluation(
        source=log.manifest.source,
        log_digest=log.manifest.tables["events"].sha256,
        split_ms=split_ms,
        until_ms=split.tested_until_ms,
        model=artifact.digest if artifact is not None else None,
        doubt=_doubt(artifact, events, split),
        next_item=next_item_result(observed, catalogue, split, artifact),
        propensity=_propensity_if_any(observed, split),
    )


def _propensity_if_any(observed: Observed, split: Split) -> PropensityResult | str:
    try:
        return propensity_result(observed, split)
    except BadInput as error:
        return str(error)


def _learned_until_ms(artifact: Artifact | None, log: Log) -> int | None:
    """Return up to when the model learned from this very log, None if it did not, or does not say."""
    if artifact is None or artifact.manifest.trained_on != log_digest(log):
        return None
    until_ms = artifact.manifest.metrics.get(LEARNED_UNTIL)
    return int(until_ms) if until_ms is not None else None


def _doubt(artifact: Artifact | None, events: Interactions, split: Split) -> Doubt | None:
    """Return what of the test lies before the end of the model's training, None if nothing does or it does not say.

    Where it learned from this very log, nothing does: `evaluate` has refused such a split.
    """
    until_ms = 0 if artifact is None else int(artifact.manifest.metrics.get(LEARNED_UNTIL, 0))
    early = int(np.count_nonzero(split.tested & (events.time_ms < until_ms)))
    return Doubt(until_ms, early) if early else None


class _Tasks(NamedTuple):
    """What settings are chosen on, and the test."""

    validation: Task
    test: Task


def _tasks(events: Interactions, catalogue: Catalogue, split: Split) -> _Tasks:
    late = split.learned & (events.time_ms >= split.validation_ms)
    asked = ((split.learned & ~late, late, split.validation_ms), (split.learned, split.tested, split.learned_until_ms))
    tasks = []
    for train, tested, until_ms in asked:
        known = [item for item in catalogue if catalogue.at(item, until_ms - 1) is not None]
        task = task_between(events, train, tested, known)
        if not task.train.any() or not len(task.rows):
            raise BadInput(
                "The log has no events before the split, or none of a returning user from it on, of those to learn from "
                f"or to test: {split.remedy}"
            )
        tasks.append(task)
    return _Tasks(*tasks)


def next_item_result(
    observed: Observed, catalogue: Catalogue, split: Split, artifact: Artifact | None = None
) -> NextItemResult:
    """Return the next-item table of the baselines, and of the model if it was asked about every event.

    Raises:
        BadInput: nothing to learn from, or nothing to predict.
    """
    validation, task = _tasks(observed.interactions, catalogue, split)
    validation = _sampled(validation)
    methods, settings = {}, {}
    for name, choices in families().items():
        chosen = tuned(validation, choices)
        settings[name] = chosen.settings
        methods[name] = sliced_metrics(task, ranks_of(chosen.make(task), task))
    if artifact is not None and observed.vectors is not None:
        methods[MODEL] = sliced_metrics(task, ranks_of(ModelScores(task, observed.vectors, artifact), task))
    return NextItemResult(
        methods=methods,
        settings=settings,
        candidates=len(task.candidates),
        events=len(task.rows),
        cold_share=float((task.target >= len(task.candidates)).mean()),
        repeat_share=float((task.target == task.last).mean()),
        new_user_share=float(task.new_user.mean()),
    )


def _sampled(task: Task) -> Task:
    if len(task.rows) <= VALIDATION_ROWS_MAX:
        return task
    kept = np.random.default_rng(_SEED).choice(len(task.rows), VALIDATION_ROWS_MAX, replace=False)
    kept.sort()
    return replace(task, rows=task.rows[kept], new_user=task.new_user[kept])


class _Examples(NamedTuple):
    """Examples of the propensity, (n,) each, and what became of all events."""

    early: NDArray[np.bool_]
    late: NDArray[np.bool_]
    learned: NDArray[np.bool_]
    test: NDArray[np.bool_]
    bought: NDArray[np.bool_]


def _examples(observed: Observed, split: Split) -> _Examples:
    events = observed.interactions
    bought = purchase_labels(events.user, events.item, observed.kind, events.time_ms)

    def between(chosen: NDArray[np.bool_], from_ms: int, over_ms: int) -> NDArray[np.bool_]:
        """Return the examples among `chosen` from `from_ms` on whose windows are over by `over_ms`."""
        found: NDArray[np.bool_] = chosen & (observed.kind != _PURCHASE)
        found &= (events.time_ms >= from_ms) & (events.time_ms < over_ms - PURCHASE_WITHIN_MS)
        if len(np.unique(bought[found])) < 2:
            raise BadInput(
                f"Between {from_ms} and {over_ms} ms there are no views that ended in a purchase within "
                f"{PURCHASE_WITHIN_MS // 60_000} min, or no others: {split.remedy}"
            )
        return found

    return _Examples(
        early=between(split.learned, 0, split.validation_ms),
        late=between(split.learned, split.validation_ms, split.learned_until_ms),
        learned=between(split.learned, 0, split.learned_until_ms),
        test=between(split.tested, split.tested_from_ms, int(events.time_ms.max(initial=0)) + 1),
        bought=bought,
    )


def require_enough(observed: Observed, catalogue: Catalogue, split: Split) -> None:
    """Raise BadInput if a part of `split` has too little in it for an evaluation; takes seconds, a training takes minutes."""
    _tasks(observed.interactions, catalogue, split)
    _examples(observed, split)


def propensity_result(observed: Observed, split: Split) -> PropensityResult:
    """Return the propensity table of the baseline, and of the model if it was asked about every event.

    Raises:
        BadInput: a slice holds no example that was bought, or none that was not.
    """
    early, late, learned, test, bought = _examples(observed, split)

    def loss(regularisation: float) -> float:
        model = RollingBaseline(observed.rolling[early], bought[early], regularisation)
        return propensity_metrics(model.probability(observed.rolling[late]), bought[late]).log_loss

    regularisation = min(REGULARISATIONS, key=loss)
    baseline = RollingBaseline(observed.rolling[learned], bought[learned], regularisation)
    methods = {ROLLING_BASELINE: propensity_metrics(baseline.probability(observed.rolling[test]), bought[test])}
    if observed.logits is not None:
        probability = 1.0 / (1.0 + np.exp(-observed.logits[test].astype(np.float64)))
        methods[MODEL] = propensity_metrics(probability, bought[test])
    return PropensityResult(
        methods=methods,
        settings={ROLLING_BASELINE: f"C = {regularisation:g}"},
        examples=int(test.sum()),
        bought_share=float(bought[test].mean()),
        learned_examples=int(learned.sum()),
        learned_bought_share=float(bought[learned].mean()),
        off_list_share=float(np.count_nonzero(observed.rolling[test, _OVER_LIST]) / test.sum()),
    )
