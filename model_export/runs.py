"""A finished training run as a directory: what `pricetide model train` leaves and `export` reads. No pickles.

    run.json            the options, the data, the metrics (Run)
    items.json          ids of the items, in the order of their rows, from row 1 on
    model.safetensors   `network.*`, item_rows, candidates, candidate_bias

Not here: checkpoints of an unfinished run (checkpoints), what is in an artifact (export).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import torch
from msgspec import Struct
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from contracts.errors import BadInput
from model_export.evaluation import LEARNED_UNTIL
from model_export.export import PRIOR_SLOPE, Model, write_model
from model_export.network import UserNetwork
from model_export.replacing import replacing
from model_export.training import Options, Trained
from model_export.verify import verify

RUN, ITEMS, WEIGHTS = "run.json", "items.json", "model.safetensors"
_TABLES = ("item_rows", "candidates", "candidate_bias")


class Run(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run was."""

    options: Options
    trained_on: str
    """Digest of the log."""
    until_ms: int
    """Event time before which it learned."""
    validation_ms: int
    text_encoder: str
    slope: Literal["prior", "randomised"]
    slope_value: float
    epochs: int
    metrics: dict[str, float]
    format: Literal[1] = 1


def write_run(directory: Path, run: Run, trained: Trained, items: list[str]) -> None:
    """Write a finished run to `directory`; run.json comes last and at once: where it is, the run is whole."""
    directory.mkdir(parents=True, exist_ok=True)
    weights = {f"network.{name}": weight.contiguous() for name, weight in trained.learner.network.state_dict().items()}
    tables = zip(_TABLES, trained.learner.tables.tables(), strict=True)
    weights |= {name: torch.from_numpy(table) for name, table in tables}
    save_file(weights, directory / WEIGHTS)
    (directory / ITEMS).write_bytes(msgspec.json.encode(items))
    write_json(directory / RUN, run)


def write_json(file: Path, told: Struct) -> None:
    """Write `told` for people, at once: whoever finds the file finds all of it."""
    draft = file.with_name(file.name + ".new")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n")
    draft.replace(file)


def read_run(directory: Path) -> tuple[Run, Model]:
    """Return the run in `directory` and its model.

    Raises:
        BadInput: there is none, or it is damaged.
    """
    try:
        run = msgspec.json.decode((directory / RUN).read_bytes(), type=Run)
        items = msgspec.json.decode((directory / ITEMS).read_bytes(), type=list[str])
        weights = load_file(directory / WEIGHTS)
        tables = {name: weights.pop(name).numpy() for name in _TABLES}
        network = UserNetwork(run.options.architecture)
        network.load_state_dict({name.removeprefix("network."): weight for name, weight in weights.items()})
    except (OSError, ValueError, SafetensorError, KeyError, RuntimeError) as error:  # bad UTF-8 and deep JSON included
        raise BadInput(
            f"{directory} holds no finished run ({error}): run pricetide model train, or go on with --resume"
        ) from None
    model = Model(
        network=network.eval(),
        items=items,
        text_encoder=run.text_encoder,
        slope=run.slope,
        slope_value=run.slope_value,
        **tables,
    )
    return run, model


def export_run(directory: Path, artifact: Path) -> tuple[Run, str]:
    """Write the artifact of the finished run in `directory`, prove it, and put it in its place; return the run, and its digest.

    The artifact's metrics say up to when it learned, so that nobody tests it on what it learned. What was at `artifact` before
    stays until the new one is proved.

    Raises:
        BadInput: there is no such run, it is damaged, or `artifact` cannot be replaced.
        BadArtifact: what was written is not one model.
    """
    run, model = read_run(directory)
    metrics = {**run.metrics, LEARNED_UNTIL: float(run.until_ms)}
    with replacing(artifact) as draft:
        digest = write_model(draft, model, run.trained_on, metrics, run.options.seed)
        verify(draft)
    return run, digest


def slope_of(options: Options, metrics: dict[str, float]) -> tuple[Literal["prior", "randomised"], float]:
    """Return where the price slope comes from, and its value."""
    if options.randomised_prices:
        return "randomised", metrics["price_slope"]
    return "prior", PRIOR_SLOPE
