"""One training run from a log to a directory: reads, trains, writes. What `pricetide model train` does, as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contracts.errors import BadInput
from contracts.log import open_log
from features.inputs import FEATURE_NAMES
from model_export.checkpoints import delete_checkpoint
from model_export.dataset import Dataset, read_dataset, text_vectors
from model_export.runs import RUN, Run, slope_of, write_run
from model_export.training import Options, Progress, Tell, Training

_PRICES_DIFFER_MIN = 0.05
"""Share of tokens at another price than list that a log of randomised prices must have, at least."""


class Work(NamedTuple):
    """What to train on."""

    log: Path
    until_ms: int | None
    validation: float
    text: Path | None
    learns_from: Callable[[str], bool] = lambda user: True
    """Whether a user's events may be learned from."""


def train_run(
    directory: Path,
    work: Work,
    options: Options,
    *,
    resume: bool = False,
    tell: Tell = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> Run:
    """Train on `work` and leave the run in `directory`.

    Args:
        directory: of the run; holds a checkpoint until it is finished.
        work: log, end, validation slice, text vectors.
        options: of training.
        resume: go on from a checkpoint.
        tell: called with lines.
        progress: called with what is done, and how much there is.

    Raises:
        BadInput: no such log, too little of it, a finished run in `directory`, or prices that nobody randomised.
    """
    if (directory / RUN).is_file():
        raise BadInput(f"{directory} holds a finished run: use another directory, or delete it")
    dataset = read_dataset(open_log(work.log), work.until_ms, work.validation, progress, work.learns_from)
    if options.randomised_prices:
        _require_prices(dataset)
    text, encoder = text_vectors(dataset.items, work.text)
    tell(f"{len(dataset.tokens):,} events, {len(dataset.items.ids):,} items; text: {encoder}")
    trained = Training(dataset, text, options, directory, tell, progress).run(resume=resume)
    slope, slope_value = slope_of(options, trained.metrics)
    run = Run(
        options=options,
        trained_on=dataset.log_digest,
        until_ms=dataset.until_ms,
        validation_ms=dataset.validation_ms,
        text_encoder=encoder,
        slope=slope,
        slope_value=slope_value,
        epochs=trained.epochs,
        metrics=trained.metrics,
    )
    write_run(directory, run, trained, dataset.items.ids)
    delete_checkpoint(directory)
    return run


def _require_prices(dataset: Dataset) -> None:
    ratio = dataset.tokens.features[:, FEATURE_NAMES.index("log_price_over_list")]
    share = float(np.count_nonzero(ratio)) / max(1, len(ratio))
    if share < _PRICES_DIFFER_MIN:
        raise BadInput(
            f"{share:.1%} of the events show a price other than list: such a log cannot tell the price slope; train without "
            "--randomised-prices, then the artifact states the assumed one"
        )
