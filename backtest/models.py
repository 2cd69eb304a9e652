"""The models of a backtest: artifacts opened and checked as a worker does, by digest. Without one no runtime is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contracts.semantics import Semantics
from features.artifact import load_artifact
from features.encoder import Encoder

RESIDENT_USERS_MAX = 16_384
"""Users whose keys and values stay in memory, per model; others are rebuilt from their tokens. Changes no byte."""


def open_models(
    directories: Sequence[Path], semantics: Semantics, residents_max: int = RESIDENT_USERS_MAX
) -> dict[str, Encoder]:
    """Read and check the artifacts in `directories`; return their encoders by digest, with so many resident users each.

    Raises:
        BadSettings: onnxruntime is missing, an artifact is broken, or needs a longer history than the log's semantics keep.
    """
    models = {}
    for directory in directories:
        encoder = Encoder(load_artifact(directory), residents_max)
        encoder.require_history(semantics.history_events_max)
        models[encoder.digest] = encoder
    return models
