"""The models of a backtest: artifacts opened and checked as a worker does, by digest. The runtime is imported for them only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import BadInput, BadSettings
from contracts.semantics import Semantics

if TYPE_CHECKING:
    from features.encoder import Encoder

RESIDENT_USERS_MAX = 16_384
"""Users whose keys and values stay in memory, per model; others are rebuilt from their tokens. Changes no byte."""


def open_models(directories: Sequence[Path], semantics: Semantics) -> dict[str, Encoder]:
    """Read and check the artifacts in `directories`; return their encoders by digest.

    Raises:
        BadInput: onnxruntime is missing.
        BadSettings: an artifact is broken, or needs a longer history than the log's semantics keep.
    """
    if not directories:
        return {}
    try:
        from features.artifact import load_artifact
        from features.encoder import Encoder
    except ImportError:
        raise BadInput("A model needs onnxruntime: pip install 'pricetide[encoder]', or leave --model out") from None
    models = {}
    for directory in directories:
        encoder = Encoder(load_artifact(directory), RESIDENT_USERS_MAX)
        if encoder.history_needed > semantics.history_events_max:
            raise BadSettings(
                f"The model in {directory} needs the last {encoder.history_needed} tokens of a user, the log's semantics "
                f"keep {semantics.history_events_max}: set history_events_max in its manifest.json, or use another model"
            )
        models[encoder.digest] = encoder
    return models
