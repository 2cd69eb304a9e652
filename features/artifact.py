"""The artifact: a directory with one trained model, as the exporter writes it and every worker reads it.

    manifest.json       what it is (Manifest), with size and SHA-256 of every other file; its own digest names the model
    encoder.onnx        the graph (features.graph)
    items.json          array of item ids; the id at place i has row i + 1, row 0 is of items that the model has not seen
    items.npy           float32 (items + 1, width): what a token of an item reads of it
    candidates.npy      float32 (items + 1, vector), candidate_bias.npy float32 (items + 1), repeat.npy float32 (vector, width):
                        scores of a next item (Artifact.scores)
    golden.npz          tokens and what the graph must make of them (features.graph.Golden)
    weights.safetensors the network's weights, for `pricetide model verify`

Everything is checked before anything is used. Does not read single files (features.artifact_files), train, export (model_export),
or keep users (features.encoder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from contracts.errors import UNREADABLE, BadArtifact, BadSettings
from features.artifact_files import AGAIN, array_of, checked, golden_of, items_of, npy, npz, read, sha256
from features.graph import (
    GOLDEN_TOLERANCE,
    OPSET,
    Golden,
    Sizes,
    graph_opset,
    open_session,
    require_golden,
    require_interface,
)
from features.inputs import FEATURE_NAMES, TOKENISATION, UNKNOWN_ITEM
from features.signals import SIGNAL_NAMES, SIGNALS
from features.tokens import KINDS

MANIFEST = "manifest.json"
FILES = (
    "encoder.onnx",
    "items.json",
    "items.npy",
    "candidates.npy",
    "candidate_bias.npy",
    "repeat.npy",
    "golden.npz",
    "weights.safetensors",
)
NO_ITEM = -1
"""Among the rows of a user's recent items: there was no token yet."""

Positive = Annotated[int, Meta(gt=0)]


class Architecture(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the network."""

    kind: Literal["qwen3"]
    """Of the Hugging Face configuration."""
    width: Positive
    layers: Positive
    heads: Positive
    kv_heads: Positive
    head_dim: Positive
    window: Positive
    """W: tokens that a layer sees, its own included."""
    lattice: Positive
    """M: rotations repeat after so many positions."""
    vector: Positive
    """Length of what candidates are multiplied by: the first part of a user vector."""
    recent: Positive
    """R: a user vector ends in R shares, how much it points at the items of the last R tokens, the newest first."""

    @property
    def sizes(self) -> Sizes:
        """What of the graph's shapes this fixes."""
        key = self.kv_heads * self.head_dim
        return Sizes(self.width, self.window, self.layers, key, self.floats)

    @property
    def floats(self) -> int:
        """Length of a user vector, shares included."""
        return self.vector + self.recent

    @property
    def reach(self) -> int:
        """Tokens before a token that its vector depends on: layers * (window - 1)."""
        return self.layers * (self.window - 1)


class FileEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the artifact."""

    sha256: str
    bytes: int


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artifact is."""

    architecture: Architecture
    items: Positive
    """Items with a row of their own."""
    slope: Literal["prior", "randomised"]
    """Where the propensity's price slope comes from: assumed, or learned from randomised prices."""
    slope_value: Annotated[float, Meta(gt=0)]
    returning: Annotated[float, Meta(ge=0)]
    """Added to the scores of the items of a user's last R tokens."""
    text_encoder: str
    """Name and digest of what made the items' text vectors, or `none`."""
    trained_on: str
    """Digest of the log it was trained on."""
    metrics: dict[str, float]
    versions: dict[str, str]
    """Of the libraries that made it."""
    files: dict[str, FileEntry]
    golden_scores: tuple[tuple[tuple[str, float], ...], ...] = ()
    """Per user of golden.npz, the items with the highest scores after the last token, and these, falling, in float64.

    None in artifacts of earlier releases: a worker takes those, and `pricetide model verify` does not."""
    format: Literal[1] = 1
    opset: int = OPSET
    tokenisation: str = TOKENISATION
    feature_names: tuple[str, ...] = FEATURE_NAMES
    signals: str = SIGNALS
    signal_names: tuple[str, ...] = SIGNAL_NAMES
    kinds: tuple[str, ...] = KINDS


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What `write_artifact` makes a directory of. Shapes and dtypes as in the module's docstring."""

    architecture: Architecture
    graph: bytes
    items: Sequence[str]
    item_rows: NDArray[np.float32]
    candidates: NDArray[np.float32]
    candidate_bias: NDArray[np.float32]
    repeat: NDArray[np.float32]
    golden: Golden
    golden_scores: Sequence[Sequence[tuple[str, float]]]
    """As the manifest has them."""
    weights: bytes
    """A safetensors file."""
    slope: Literal["prior", "randomised"]
    slope_value: float
    returning: float
    text_encoder: str
    trained_on: str
    metrics: Mapping[str, float]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """A model that was read whole and checked. Arrays as in the module's docstring; read only."""

    digest: str
    """First 16 hex digits of the SHA-256 of the manifest's bytes: the name of the model."""
    manifest: Manifest
    graph: bytes
    rows: Mapping[str, int]
    """From item id to row, >= 1; an item that is not here has row 0."""
    item_rows: NDArray[np.float32]
    candidates: NDArray[np.float32]
    candidate_bias: NDArray[np.float32]
    repeat: NDArray[np.float32]

    def scores(self, vectors: NDArray[np.float32], recent: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores (n, items + 1) of every item as the next one of n users.

        (w + repeat . sum over a of s_a x_a) . candidate + bias, and `returning` more for an item of the last R tokens: w and s are
        the user vector's two parts, x_a is the input row of the item a tokens ago.

        Args:
            vectors: (n, vector + R) of users.
            recent: (n, R) rows of the items of their last tokens, the newest first; NO_ITEM where there were fewer.
        """
        own = self.manifest.architecture.vector
        rows = np.where((recent == NO_ITEM)[..., None], np.float32(0), self.item_rows[recent])
        pointed = (vectors[:, own:, None] * rows).sum(1) @ self.repeat.T
        scores: NDArray[np.float32] = (vectors[:, :own] + pointed) @ self.candidates.T + self.candidate_bias
        met = np.zeros(scores.shape, bool)
        user, age = np.nonzero(recent > 0)
        met[user, recent[user, age]] = True
        scores[met] += np.float32(self.manifest.returning)
        return scores

    def nearest(self, vector: NDArray[np.float32], recent: Sequence[int], count: int) -> list[tuple[str, float]]:
        """Return the `count` items with the highest scores, and these, falling.

        Args:
            vector: (vector + R,) of a user.
            recent: rows of the items of the user's last tokens, the newest first; of R at most.
            count: items wanted, >= 1; fewer come where there are fewer.
        """
        last = np.full((1, self.manifest.architecture.recent), NO_ITEM, np.int64)
        last[0, : len(recent)] = recent
        scores = self.scores(vector[None], last)[0, 1:]
        names = list(self.rows)
        return [(names[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")[:count].tolist()]


def write_artifact(directory: Path, parts: Parts) -> str:
    """Write `parts` to `directory`, which is made if needed, the manifest last; return the digest.

    The bytes depend on `parts` alone. Does not check them: load_artifact does.
    """
    contents = {
        "encoder.onnx": parts.graph,
        "items.json": msgspec.json.encode(list(parts.items)),
        "items.npy": npy(parts.item_rows),
        "candidates.npy": npy(parts.candidates),
        "candidate_bias.npy": npy(parts.candidate_bias),
        "repeat.npy": npy(parts.repeat),
        "golden.npz": npz(parts.golden),
        "weights.safetensors": parts.weights,
    }
    manifest = Manifest(
        architecture=parts.architecture,
        items=len(parts.items),
        slope=parts.slope,
        slope_value=parts.slope_value,
        returning=parts.returning,
        text_encoder=parts.text_encoder,
        trained_on=parts.trained_on,
        metrics=dict(parts.metrics),
        versions=dict(parts.versions),
        files={name: FileEntry(sha256=sha256(value), bytes=len(value)) for name, value in contents.items()},
        golden_scores=tuple(map(tuple, parts.golden_scores)),
    )
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in contents.items():
        (directory / name).write_bytes(value)
    written = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    draft = directory / (MANIFEST + ".new")
    draft.write_bytes(written)
    draft.replace(directory / MANIFEST)
    return _digest(written)


def load_artifact(directory: Path) -> Artifact:
    """Read the artifact in `directory`, check all of it, and run its golden tokens.

    Raises:
        BadArtifact: any of it is missing, damaged, of another release, or does not fit together; says which and what to do.
        BadSettings: onnxruntime is not installed.
    """
    try:
        return _loaded(directory)
    except BadArtifact as error:
        raise BadArtifact(f"The model in {directory} cannot be used. {error}") from error
    except BadSettings:
        raise
    except Exception as error:  # a running worker lives on whatever is wrong with a file that somebody puts before it
        raise BadArtifact(
            f"The model in {directory} cannot be used. It is damaged ({type(error).__name__}: {error}): {AGAIN}"
        ) from error


def artifact_digest(directory: Path) -> str:
    """Return the digest of the artifact in `directory` without checking it: whether it is another one than before.

    Raises:
        BadArtifact: there is no manifest.
    """
    return _digest(read(directory / MANIFEST))


def _loaded(directory: Path) -> Artifact:
    written = read(directory / MANIFEST)
    manifest = _manifest(written)
    entries = manifest.files
    contents = {name: checked(directory / name, entries[name].bytes, entries[name].sha256) for name in FILES}

    def table(name: str, *shape: int) -> NDArray[np.float32]:
        return array_of(name, contents[name], shape)

    sizes, own, rows = manifest.architecture.sizes, manifest.architecture.vector, manifest.items + 1
    artifact = Artifact(
        digest=_digest(written),
        manifest=manifest,
        graph=contents["encoder.onnx"],
        rows=items_of(contents["items.json"], manifest.items),
        item_rows=table("items.npy", rows, sizes.width),
        candidates=table("candidates.npy", rows, own),
        candidate_bias=table("candidate_bias.npy", rows),
        repeat=table("repeat.npy", own, sizes.width),
    )
    golden = golden_of(contents["golden.npz"], rows, sizes)
    _require_graph(artifact.graph, artifact.item_rows, golden, sizes)
    _require_scores(artifact, golden)
    return artifact


def _digest(manifest: bytes) -> str:
    return sha256(manifest)[:16]


def _manifest(written: bytes) -> Manifest:
    try:
        manifest = msgspec.json.decode(written, type=Manifest)
    except UNREADABLE as error:
        raise BadArtifact(f"{MANIFEST} is no manifest of this release ({error}): {AGAIN}") from error
    for what, theirs, ours in (
        ("opset", manifest.opset, OPSET),
        ("tokenisation", manifest.tokenisation, TOKENISATION),
        ("feature_names", manifest.feature_names, FEATURE_NAMES),
        ("signals", manifest.signals, SIGNALS),
        ("signal_names", manifest.signal_names, SIGNAL_NAMES),
        ("kinds", manifest.kinds, KINDS),
    ):
        if theirs != ours:
            raise BadArtifact(
                f"{MANIFEST}: {what} is {theirs!r}, this release reads {ours!r}: export the model with this release, or "
                "run the release that made it"
            )
    if set(manifest.files) != set(FILES):
        raise BadArtifact(f"{MANIFEST} lists the files {sorted(manifest.files)}, wanted {sorted(FILES)}: {AGAIN}")
    return manifest


def _require_graph(graph: bytes, items: NDArray[np.float32], golden: Golden, sizes: Sizes) -> None:
    try:
        opset = graph_opset(graph)
    except ValueError as error:
        raise BadArtifact(f"encoder.onnx cannot be read: {error}; {AGAIN}") from error
    if opset != OPSET:
        raise BadArtifact(
            f"encoder.onnx imports opset {opset}, this release runs {OPSET}: export the model with this release"
        )
    session = open_session(graph)
    require_interface(session, sizes)
    require_golden(session, items, golden, sizes)


def _require_scores(artifact: Artifact, golden: Golden) -> None:
    """Raise BadArtifact if items get other scores than the golden ones: no graph reads candidates, bias and names of items."""
    told, shape = artifact.manifest.golden_scores, artifact.manifest.architecture
    if not told:
        return
    recent = golden.rows[:, ::-1][:, : shape.recent]
    for nearest, scores in zip(told, artifact.scores(golden.vectors[:, -1], recent), strict=True):
        wanted = np.array([score for _, score in nearest])
        given = scores[[artifact.rows.get(item, UNKNOWN_ITEM) for item, _ in nearest]]
        highest = np.sort(scores[1:])[: -len(nearest) - 1 : -1]
        differences = np.abs((given - wanted, highest - wanted)) / max(1.0, np.abs(wanted).max())
        off = float(differences.max())
        if not off <= GOLDEN_TOLERANCE:  # NaN is not
            raise BadArtifact(
                f"The golden scores are off by {off:.1e}, allowed {GOLDEN_TOLERANCE:.0e}: candidates, bias, names of items and "
                "golden values are not of one model; export it again"
            )
