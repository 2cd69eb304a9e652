"""The proof that an artifact is one model: torch == ONNX == golden vectors, or a sentence that says where it is not.

features.artifact checks what a worker can: digests, shapes, opset, the graph against the golden vectors, and the tables of items
against the golden scores, which must be there. Here the network is built anew from weights.safetensors and recomputes whole
histories in float64, golden ones and fresh ones; the graph steps through the same tokens one by one, and takes them in
chunks. So golden vectors that fit a graph but not the weights are found, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load

from contracts.errors import BadArtifact
from features.artifact import Artifact, load_artifact
from features.graph import Golden, open_session, run_through
from features.inputs import FEATURE_NAMES
from features.signals import SIGNAL_NAMES
from features.tokens import KINDS
from model_export.export import recompute
from model_export.network import UserNetwork

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-5
"""Largest difference, relative to the size of the vectors where that is above 1."""
_USERS = 5
_CHUNKS = (1, 8, 3, 64, 65, 1, 100)
_TURNS, _TOKENS_FAR = 300, 8
"""Far tokens come behind so many turns of the lattice of positions, more than a million: the last of its table, then the first."""


class Verified(NamedTuple):
    """Largest differences from the recompute in float64."""

    digest: str
    golden: float
    """Of the golden vectors and logits."""
    steps: float
    """Of the graph, tokens one by one."""
    chunks: float
    """Of the graph, tokens in chunks."""
    far: float
    """Of the graph, tokens one by one behind more than a million others."""


def verify(directory: Path, seed: int = 0) -> Verified:
    """Check the artifact in `directory` against torch.

    Args:
        directory: of the artifact.
        seed: of the fresh tokens.

    Raises:
        BadArtifact: it is damaged, or not one model; says where.
    """
    artifact = load_artifact(directory)
    network = _network(artifact, directory)
    with np.load(directory / "golden.npz", allow_pickle=False) as arrays:
        golden = Golden(**{name: arrays[name] for name in Golden._fields})
    _require_tables(artifact, network, directory)
    if not artifact.manifest.golden_scores:
        raise BadArtifact(
            f"The model in {directory} has no golden scores, for it is of an earlier release: nothing tells whether its candidates "
            "are its own; export the model again"
        )
    exact = recompute(network, artifact.item_rows, golden.rows, golden.kinds, golden.features, golden.signals)
    random, reach = np.random.default_rng(seed), artifact.manifest.architecture.reach
    fresh = _fresh(artifact, network, random, sum(_CHUNKS))
    position = _TURNS * artifact.manifest.architecture.lattice - reach
    far = _fresh(artifact, network, random, reach + _TOKENS_FAR, position)
    session = open_session(artifact.graph)
    found = Verified(
        artifact.digest,
        _off((golden.vectors, golden.logits), exact),
        _graph_off(session, artifact, fresh, [1] * sum(_CHUNKS)),
        _graph_off(session, artifact, fresh, _CHUNKS),
        _graph_off(session, artifact, far, [1] * (reach + _TOKENS_FAR), position, reach),
    )
    parts = ("golden vectors", "graph, step by step,", "graph, in chunks,", f"graph, at position {position + reach},")
    for what, off in zip(parts, found[1:], strict=True):
        if not off <= TOLERANCE:
            raise BadArtifact(
                f"The model in {directory} is not one model. The {what} differ from its weights, recomputed in float64, by "
                f"{off:.1e}, allowed {TOLERANCE:.0e}: export the model again"
            )
    return found


def _network(artifact: Artifact, directory: Path) -> UserNetwork:
    network = UserNetwork(artifact.manifest.architecture)
    try:
        network.load_state_dict(load((directory / "weights.safetensors").read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise BadArtifact(
            f"The model in {directory} cannot be verified: weights.safetensors does not fit its architecture ({error}); "
            "export the model again"
        ) from None
    return network


def _require_tables(artifact: Artifact, network: UserNetwork, directory: Path) -> None:
    """Raise BadArtifact if next items are scored by other numbers than the weights have: no graph, no golden token reads them."""
    repeat, returning = network.repeat.weight.detach().numpy(), float(network.returning)
    if not np.array_equal(artifact.repeat, repeat) or artifact.manifest.returning != returning:
        raise BadArtifact(
            f"The model in {directory} is not one model. repeat.npy, or `returning` in the manifest, is not that of "
            "weights.safetensors: export the model again"
        )


def _fresh(
    artifact: Artifact, network: UserNetwork, random: np.random.Generator, tokens: int, position: int = 0
) -> Golden:
    """Return random tokens from `position` on, and what the network makes of them."""
    shape = (_USERS, tokens)
    rows = random.integers(0, len(artifact.item_rows), shape)
    kinds = random.integers(0, len(KINDS), shape)
    features = random.random((*shape, len(FEATURE_NAMES)), np.float32)
    signals = random.random((*shape, len(SIGNAL_NAMES)), np.float32)
    vectors, logits = recompute(network, artifact.item_rows, rows, kinds, features, signals, position)
    return Golden(rows, kinds, features, signals, vectors.astype(np.float32), logits.astype(np.float32))


def _graph_off(
    session: InferenceSession,
    artifact: Artifact,
    tokens: Golden,
    lengths: Sequence[int],
    position: int = 0,
    skipped: int = 0,
) -> float:
    """Return how far the graph is off on `tokens` in chunks of `lengths`; the first `skipped` may be anything."""
    given = run_through(session, artifact.item_rows, tokens, artifact.manifest.architecture.sizes, lengths, position)
    return _off(
        tuple(values[:, skipped:] for values in given), (tokens.vectors[:, skipped:], tokens.logits[:, skipped:])
    )


def _off(given: tuple[NDArray[np.floating], ...], exact: tuple[NDArray[np.floating], ...]) -> float:
    """Return the largest difference, relative to the root mean square of the exact values where that is above 1."""
    return max(
        float(np.abs(one - other).max() / max(1.0, np.sqrt(np.square(other).mean())))
        for one, other in zip(given, exact, strict=True)
    )
