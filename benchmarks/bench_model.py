"""Events per second of the whole job with a user transformer and without, side by side, through the real broker.

The same log, the same worker, in turns; the model knows every item of the catalogue and has random weights, on which speed
does not depend. What was published is compared with the backtest's, with the model in the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lab import Job, Lab
from benchmarks.published import differences, expected, published, transactions
from benchmarks.report import Cell, Claim, Report
from contracts.errors import BadSettings
from features.artifact import load_artifact
from features.encoder import Encoder

SHARE_MIN = 0.6
ROUNDS = 3
USERS_MAX = 65_536
"""All users of the log: 1 GiB. With fewer, those that come back are rebuilt, which `rebuilt tokens` would show."""


def run(lab: Lab) -> Report:
    """Let one worker work off the log in turns, with and without the model; judge the median of the pairs."""
    items = list(dict.fromkeys(row.item for rows in lab.log.catalogue() for row in rows if row.item))
    model = lab.work / "model"
    _write_random_model(model, items)
    encoder = Encoder(load_artifact(model), USERS_MAX)
    lab.cold  # noqa: B018 - warms the broker
    rows: list[tuple[Cell, ...]] = []
    shares, wrong = [], []
    for _ in range(1 if lab.quick else ROUNDS):
        rates = {}
        for modelled in (False, True):
            settings: dict[str, Any] = {"encoder": {"model": model, "users_max": USERS_MAX}} if modelled else {}
            deployment = lab.deploy(lab.log, **settings)
            job = lab.work_off(deployment)
            found, _ = published(deployment)
            wrong += differences(expected(deployment.log, {encoder.digest: encoder} if modelled else {}), found)
            rates[modelled] = transactions(deployment).rate
            rows.append(_row(modelled, rates[modelled], job))
            lab.discard(deployment)
        shares.append(rates[True] / rates[False])
    return Report(
        name="model",
        title="The whole job with and without a user transformer: one worker",
        columns=("", "events/s", "process CPU µs/event", "resident users", "rebuilt tokens"),
        rows=rows,
        claims=[
            Claim(
                what="With the model, as a share of without",
                measured=sorted(shares)[len(shares) // 2],
                limit=SHARE_MIN,
                unit="of the events/s",
                at_least=True,
            )
        ],
        notes=["Rows are in the order in which they were measured; the share is the median of the pairs'."],
        wrong=wrong,
    )


def _write_random_model(directory: Path, items: Sequence[str]) -> None:
    try:
        from model_export.export import write_random_artifact
    except ImportError as error:
        raise BadSettings(f"The benchmark exports a model ({error}): pip install 'pricetide[model-export]'") from error
    write_random_artifact(directory, items, seed=1)


def _row(modelled: bool, rate: float, job: Job) -> tuple[Cell, ...]:
    def count(name: str) -> Cell:
        return int(job.metrics.get(f"pricetide_encoder_{name}", 0)) if modelled else None

    name = "with the model" if modelled else "without"
    return name, rate, job.cpu_us or None, count("resident_users"), count("rebuilt_tokens_total")
