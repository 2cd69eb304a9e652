"""The checkpoint of a training run: one file, written after every epoch, replaced in one step.

Holds everything a run needs to go on as if it had not been interrupted, and the identity of its options and data, so that
no run goes on with others. Not here: what is in a finished run (model_export.runs).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from msgspec.structs import asdict
from torch import Tensor

from contracts.errors import BadInput

CHECKPOINT = "checkpoint.pt"


class Checkpoint(Struct):
    """A run after some epochs."""

    stage: str
    epoch: int = 0
    """Done in this stage."""
    state: dict[str, Tensor] = {}
    optimizer: dict[str, Any] = {}
    best: dict[str, Tensor] = {}
    """The state of the best epoch of the first stage."""
    best_epoch: int = 0
    best_score: float = -1.0
    metrics: dict[str, float] = {}
    judged: Tensor = torch.empty(0, dtype=torch.int64)
    """Places of the validation slice's examples of the propensity."""
    logits: Tensor = torch.empty(0, dtype=torch.float64)
    """What the trunk of the best epoch says of them."""
    pointing: float = 1.0
    returning: float = 0.0


def write_checkpoint(directory: Path, identity: str, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` of the run that `identity` names."""
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / (CHECKPOINT + ".new")
    torch.save({"identity": identity, **asdict(checkpoint)}, draft)
    draft.replace(directory / CHECKPOINT)


def read_checkpoint(directory: Path, identity: str, *, resume: bool) -> Checkpoint | None:
    """Return the checkpoint in `directory`, None if there is none.

    Raises:
        BadInput: there is one and `resume` is False, or it is damaged, or of another run.
    """
    file = directory / CHECKPOINT
    if not file.is_file():
        return None
    if not resume:
        raise BadInput(f"{directory} holds an unfinished run: go on with --resume, or use another directory")
    try:
        found = torch.load(file, weights_only=True)
        theirs = found.pop("identity")
        checkpoint = Checkpoint(**found)
    except Exception as error:  # bytes that are not its own may raise anything, with advice that nobody should follow
        raise BadInput(
            f"{file} is no checkpoint of this release ({type(error).__name__}): delete it and train again"
        ) from error
    if theirs != identity:
        raise BadInput(f"{file} is of a run with other options, another log or other texts: use another directory")
    return checkpoint


def delete_checkpoint(directory: Path) -> None:
    """Delete the checkpoint of a run that is finished."""
    (directory / CHECKPOINT).unlink(missing_ok=True)
