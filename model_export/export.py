"""The exporter: a UserNetwork's StepGraph as an ONNX graph, and the parts of a whole artifact around it.

Plain operators, and every dimension dynamic that a run may choose. A trained network and a random one go the same way.
Not here: the format of the directory (features.artifact), and the proof that it is right (model_export.verify).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.export import Dim

from features.artifact import Architecture, Parts, write_artifact
from features.graph import Golden
from features.inputs import FEATURE_NAMES
from features.signals import SIGNAL_NAMES
from features.tokens import KINDS
from model_export.network import DEFAULT, UserNetwork, random_network
from model_export.onnx_graph import graph_bytes
from model_export.step_graph import StepGraph

INPUTS = ("rows", "kinds", "features", "signals", "position", "count", "slots", "items")
"""And the slabs behind them."""
OUTPUTS = ("vectors", "logits")
"""And the slabs behind them."""
PRIOR_SLOPE = 1.5
"""Price slope of the propensity where the log identifies none: odds fall by 1.5 per cent for each per cent of price."""
_GOLDEN_USERS, _GOLDEN_ITEMS = 4, 5
_GOLDEN_DIGITS = 6
"""Behind the point, of a golden score: the last bits of a float64 are not the same everywhere."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network with the tables of its items; row 0 is of an item that the model has not seen.

    Shapes: item_rows (N + 1, width), candidates (N + 1, vector), candidate_bias (N + 1,), all float32; how they
    score a next item is features.artifact.Artifact.scores.
    """

    network: UserNetwork
    items: Sequence[str]
    item_rows: NDArray[np.float32]
    candidates: NDArray[np.float32]
    candidate_bias: NDArray[np.float32]
    text_encoder: str
    slope: Literal["prior", "randomised"] = "prior"
    slope_value: float = PRIOR_SLOPE


def export_graph(network: UserNetwork) -> bytes:
    """Return the ONNX graph of `network`: inputs and outputs as StepGraph.forward has them, float32.

    With slabs bound as inputs and outputs alike, a step writes in place: each slab is written once, and read after that.
    """
    slabs = network.architecture.sizes.slabs
    users, tokens, items, slab = (Dim(name, max=1 << 30) for name in ("users", "tokens", "items", "slab"))
    both = {0: users, 1: tokens}
    return graph_bytes(
        StepGraph(deepcopy(network).float()).eval(),
        _example(network.architecture),
        (*INPUTS, *slabs),
        (*OUTPUTS, *(f"{name}_out" for name in slabs)),
        (both, both, both, both, {0: users}, {0: users}, {0: users}, {0: items}, ({0: slab},) * len(slabs)),
    )


def write_model(directory: Path, model: Model, trained_on: str, metrics: dict[str, float], seed: int) -> str:
    """Write the artifact of `model` to `directory` and return its digest.

    Args:
        directory: made if needed.
        model: the network in float32.
        trained_on: digest of the training log.
        metrics: what was measured, by name.
        seed: of the golden tokens.
    """
    golden = golden_of(model, seed)
    parts = Parts(
        architecture=model.network.architecture,
        graph=export_graph(model.network),
        items=model.items,
        item_rows=model.item_rows,
        candidates=model.candidates,
        candidate_bias=model.candidate_bias,
        repeat=model.network.repeat.weight.detach().float().numpy(),
        golden=golden,
        golden_scores=golden_scores_of(model, golden),
        weights=save({name: weight.contiguous() for name, weight in model.network.state_dict().items()}),
        slope=model.slope,
        slope_value=model.slope_value,
        returning=float(model.network.returning),
        text_encoder=model.text_encoder,
        trained_on=trained_on,
        metrics=metrics,
        versions={name: version(name) for name in ("pricetide", "torch", "transformers", "onnx", "onnxscript")},
    )
    return write_artifact(directory, parts)


def golden_of(model: Model, seed: int) -> Golden:
    """Return random sequences, longer than the reach of the network, and what it makes of them in float64."""
    random = np.random.default_rng(seed)
    shape = (_GOLDEN_USERS, model.network.architecture.reach + 2)
    rows = random.integers(0, len(model.item_rows), shape)
    kinds = random.integers(0, len(KINDS), shape)
    features = random.random((*shape, len(FEATURE_NAMES)), np.float32)
    signals = random.random((*shape, len(SIGNAL_NAMES)), np.float32)
    vectors, logits = recompute(model.network, model.item_rows, rows, kinds, features, signals)
    return Golden(rows, kinds, features, signals, vectors.astype(np.float32), logits.astype(np.float32))


def golden_scores_of(model: Model, golden: Golden) -> list[list[tuple[str, float]]]:
    """Return, per golden user, the items with the highest scores after the last token, and these, falling, in float64."""
    network, recent = model.network, model.network.architecture.recent
    with torch.inference_mode():
        pointed = (
            deepcopy(network)
            .double()
            .pointed(torch.from_numpy(golden.vectors).double(), torch.from_numpy(model.item_rows[golden.rows]).double())
        )
    scores = pointed[:, -1].numpy() @ model.candidates.astype(np.float64).T + model.candidate_bias
    for own, rows in zip(scores, golden.rows, strict=True):
        own[np.unique(rows[-recent:])] += float(network.returning)
    places = np.argsort(-scores[:, 1:], kind="stable")[:, :_GOLDEN_ITEMS]
    return [
        [(model.items[place], round(float(own[place + 1]), _GOLDEN_DIGITS)) for place in chosen]
        for own, chosen in zip(scores, places.tolist(), strict=True)
    ]


def recompute(
    network: UserNetwork,
    item_rows: NDArray[np.float32],
    rows: NDArray[np.int64],
    kinds: NDArray[np.int64],
    features: NDArray[np.float32],
    signals: NDArray[np.float32],
    position: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return vectors (B, T, v + R) and logits (B, T) of whole histories in float64: what every step must equal.

    Args:
        network: of any precision; not changed.
        item_rows: (N + 1, width).
        rows: (B, T) of `item_rows`.
        kinds: (B, T).
        features: (B, T, F).
        signals: (B, T, S).
        position: of the first token.
    """
    exact = deepcopy(network).double().eval()
    start = torch.full((len(rows),), position)
    with torch.inference_mode():
        vectors, logits = exact.history(
            torch.from_numpy(item_rows[rows]).double(),
            torch.from_numpy(kinds),
            torch.from_numpy(features).double(),
            torch.from_numpy(signals).double(),
            start,
        )
    return vectors.numpy(), logits.numpy()


def random_model(items: Sequence[str], seed: int, architecture: Architecture = DEFAULT) -> Model:
    """Return a model that knows nothing: random weights and tables, for tests and for measuring speed."""
    random = np.random.default_rng(seed)
    rows = len(items) + 1
    return Model(
        network=random_network(architecture, seed),
        items=items,
        item_rows=random.standard_normal((rows, architecture.width), np.float32),
        candidates=random.standard_normal((rows, architecture.vector), np.float32),
        candidate_bias=random.standard_normal(rows, np.float32),
        text_encoder="none",
    )


def write_random_artifact(
    directory: Path, items: Sequence[str], seed: int, architecture: Architecture = DEFAULT
) -> str:
    """Write the artifact of `random_model` to `directory` and return its digest."""
    return write_model(directory, random_model(items, seed, architecture), "none", {}, seed)


def _example(shape: Architecture) -> tuple[Tensor, ...]:
    """Return inputs of a shape that no dimension shares with another, so that the export ties none together."""
    users, tokens = 3, 5
    return (
        torch.ones(users, tokens, dtype=torch.int64),
        torch.zeros(users, tokens, dtype=torch.int64),
        torch.zeros(users, tokens, len(FEATURE_NAMES)),
        torch.zeros(users, tokens, len(SIGNAL_NAMES)),
        torch.tensor([0, 3, 200]),
        torch.tensor([5, 1, 3]),
        torch.tensor([0, 1, 2]),
        torch.zeros(9, shape.width),
        *(torch.from_numpy(slab) for slab in shape.sizes.empty(6).values()),
    )
