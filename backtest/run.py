"""One backtest from a log's directory to its files and its summary."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from backtest.models import open_models
from backtest.outputs import DeadLetterFile, DecisionTable, OutcomeTable, PriceTable
from backtest.replay import BATCH_MAX, Replay
from backtest.summary import Summary, Tally
from contracts.log import open_log
from pricing.engine import Step

Progress = Callable[[int, int], None]
"""Called with records applied, and records of the log."""


def run_backtest(
    directory: Path,
    prices: Path | None = None,
    decisions: Path | None = None,
    dead_letters: Path | None = None,
    batch_max: int = BATCH_MAX,
    progress: Progress = lambda done, total: None,
    models: Sequence[Path] = (),
    outcomes: Path | None = None,
    shadow_decisions: Path | None = None,
) -> Summary:
    """Replay the log in `directory`, write the files that are asked for, and return the summary.

    Raises:
        BadInput: the log cannot be read, or pyarrow is missing for a Parquet file; as of Replay.
        BadSettings: a model cannot be used.
    """
    log = open_log(directory)
    manifest = log.manifest
    replay = Replay(log, batch_max, open_models(models, manifest.semantics))
    total = sum(map(sum, manifest.records.values()))
    tally = Tally()
    applied = [0] * manifest.topology.partitions
    with ExitStack() as files:
        price_table = files.enter_context(closing(PriceTable(prices))) if prices else None
        decision_table = files.enter_context(closing(DecisionTable(decisions))) if decisions else None
        outcome_table = files.enter_context(closing(OutcomeTable(outcomes))) if outcomes else None
        shadow_table = files.enter_context(closing(DecisionTable(shadow_decisions))) if shadow_decisions else None
        dead_file = (
            files.enter_context(closing(DeadLetterFile(dead_letters, manifest.topology.sources)))
            if dead_letters
            else None
        )

        def publish(partition: int, step: Step) -> None:
            tally.add(step, step.partition.applied - applied[partition])
            applied[partition] = step.partition.applied
            if price_table is not None:
                price_table.append(partition, step.prices)
            if decision_table is not None:
                decision_table.append(partition, step.decisions)
            if outcome_table is not None:
                outcome_table.append(partition, step.outcomes)
            if shadow_table is not None:
                shadow_table.append(partition, step.shadows)
            if dead_file is not None:
                dead_file.append(partition, step.dead)
            progress(sum(applied), total)

        started = time.perf_counter()
        replay.run(publish)
        seconds = time.perf_counter() - started
    return tally.summary(seconds, replay.not_applied, replay.refused_references, replay.pending)
