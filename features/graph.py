"""The encoder's ONNX graph as a file: its opset, its inputs and outputs, a session on it, its golden vectors.

onnxruntime is imported here only, when it is needed: a worker without a model runs without it. Does not keep rings of
users (features.encoder) and does not read manifests (features.artifact).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadArtifact, BadSettings
from features.inputs import FEATURE_NAMES
from features.signals import SIGNAL_NAMES

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

OPSET = 20
GOLDEN_TOLERANCE = 1e-4
"""Largest difference of an output from its golden value: processors differ by less, another graph by more."""

Provider = Literal["cpu", "cuda"]
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_PROVIDERS: dict[Provider, list[tuple[str, dict[str, str]]]] = {
    "cpu": [(_CPU, {})],
    "cuda": [(_CUDA, {"use_tf32": "0"}), (_CPU, {})],  # TF32 has 10 bits of mantissa: 1e-3, not 1e-5
}

_FIXED, _LENGTH_DELIMITED = {1: 8, 5: 4}, 2
_OPSET_IMPORT = 8


Slabs = dict[str, NDArray[np.float32]]
"""The rings of some users, by the names of the inputs."""


class Sizes(NamedTuple):
    """What of a graph's shapes is fixed."""

    width: int
    """Floats of an item's input row."""
    window: int
    layers: int
    key: int
    """Floats of the keys, and of the values, that a layer keeps of a token: kv_heads * head_dim."""
    vector: int
    """Floats of a user vector, its shares included."""

    @property
    def slabs(self) -> list[str]:
        """Names of the inputs that hold the rings, keys and values (users, window, key); as outputs they end in _out."""
        return [f"{part}_{layer}" for layer in range(self.layers) for part in ("keys", "values")]

    def empty(self, users: int) -> Slabs:
        """Return slabs of `users` rings and one scratch row, all zeros."""
        return {name: np.zeros((users + 1, self.window, self.key), np.float32) for name in self.slabs}


class Golden(NamedTuple):
    """Sequences of tokens from position 0 on, and what the exporter's float64 network makes of each of them.

    Shapes: rows and kinds int64 (users, tokens), features float32 (users, tokens, FEATURE_NAMES), signals float32 (users,
    tokens, SIGNAL_NAMES), vectors float32 (users, tokens, vector), logits float32 (users, tokens).
    """

    rows: NDArray[np.int64]
    kinds: NDArray[np.int64]
    features: NDArray[np.float32]
    signals: NDArray[np.float32]
    vectors: NDArray[np.float32]
    logits: NDArray[np.float32]


def open_session(
    graph: bytes, provider: Provider = "cpu", fixed: Mapping[str, int] = MappingProxyType({})
) -> InferenceSession:
    """Return a session on `graph`, one thread, no spinning, no fallback to another provider.

    Args:
        graph: an ONNX file.
        provider: where it runs.
        fixed: sizes of dimensions that every run of the session will have, by name: what depends on them alone is worked
            out once.

    Raises:
        BadSettings: onnxruntime is not installed, or has no such provider here.
        BadArtifact: onnxruntime cannot load the graph.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise BadSettings(
            "A model needs onnxruntime, which is not installed: pip install 'pricetide[encoder]'"
        ) from error
    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    for name, size in fixed.items():
        options.add_free_dimension_override_by_name(name, size)
    try:
        session = ort.InferenceSession(graph, options, providers=_PROVIDERS[provider])
    except Exception as error:  # onnxruntime raises classes of its binding that share no base
        raise BadArtifact(f"onnxruntime cannot load the graph ({error}): export the model again") from error
    if session.get_providers()[0] != _PROVIDERS[provider][0][0]:
        raise BadSettings(
            f"The provider {provider} is not available here (there are {session.get_providers()}): install "
            "onnxruntime-gpu with the CUDA and cuDNN it names, or set the provider to cpu"
        )
    return session


def graph_opset(graph: bytes) -> int:
    """Return the version of the standard operators that an ONNX file imports.

    Reads the top level of the protobuf only: ModelProto.opset_import (8) with domain (1) and version (2), as in onnx.proto.

    Raises:
        ValueError: not an ONNX file, or one cut short.
    """
    for number, value in _fields(graph):
        if number == _OPSET_IMPORT and isinstance(value, bytes):
            imported = dict(_fields(value))
            if imported.get(1, b"") in {b"", b"ai.onnx"}:
                return int(imported.get(2, 0))
    raise ValueError("it imports no operator set")


def require_interface(session: InferenceSession, sizes: Sizes) -> None:
    """Raise BadArtifact unless the inputs and outputs of the graph have the agreed names, types and shapes."""
    inputs, outputs = _interface(sizes)
    for what, wanted, given in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        if {value.name for value in given} != set(wanted):
            raise BadArtifact(
                f"encoder.onnx has {what}s {sorted(value.name for value in given)}, wanted {sorted(wanted)}: export the "
                "model with this release"
            )
        for value in given:
            kind, shape = wanted[value.name]
            if value.type != kind or not _fits(value.shape, shape):
                raise BadArtifact(
                    f"encoder.onnx: {what} {value.name} is {value.type} {value.shape}, wanted {kind} "
                    f"{list(shape)} (None: any): the graph is of another window or size than the manifest says, or of "
                    "another release; export the model again"
                )


def require_golden(session: InferenceSession, items: NDArray[np.float32], golden: Golden, sizes: Sizes) -> None:
    """Raise BadArtifact if stepping through the golden tokens, or taking them as one chunk, gives other values, or none."""
    users, tokens = golden.rows.shape
    if users == 0 or tokens <= sizes.window:
        raise BadArtifact(
            f"golden.npz has {users} users with {tokens} tokens: wanted some, longer than the window; export the model again"
        )
    ways = {"step by step": [1] * tokens, "as one chunk": [tokens]}
    for way, lengths in ways.items():
        vector, logit = run_through(session, items, golden, sizes, lengths)
        off = max(float(np.abs(vector - golden.vectors).max()), float(np.abs(logit - golden.logits).max()))
        if not off <= GOLDEN_TOLERANCE:  # NaN is not
            raise BadArtifact(
                f"The golden tokens, {way}, give outputs off by {off:.1e}, allowed {GOLDEN_TOLERANCE:.0e}: graph, item "
                "vectors and golden values are not of one model; export it again"
            )


def run_through(
    session: InferenceSession,
    items: NDArray[np.float32],
    tokens: Golden,
    sizes: Sizes,
    lengths: Sequence[int],
    position: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the graph over `tokens`, from empty rings, in chunks of `lengths`; return vectors and logits of all of them.

    Behind a first `position` > 0, only the tokens that see nothing before it mean anything.

    Raises:
        BadArtifact: the graph stops: not all that is wrong inside one shows when it is loaded.
    """
    users = len(tokens.rows)
    slabs = sizes.empty(users)
    names = ["vectors", "logits", *(f"{name}_out" for name in sizes.slabs)]
    vectors, logits, start = [], [], 0
    for length in lengths:
        part = slice(start, start + length)
        feed = {
            "rows": tokens.rows[:, part],
            "kinds": tokens.kinds[:, part],
            "features": tokens.features[:, part],
            "signals": tokens.signals[:, part],
            "position": np.full(users, position + start, np.int64),
            "count": np.full(users, length, np.int64),
            "slots": np.arange(users, dtype=np.int64),
            "items": items,
            **slabs,
        }
        try:
            vector, logit, *written = session.run(names, feed)
        except Exception as error:  # as in open_session
            raise BadArtifact(f"encoder.onnx stops at sound tokens ({error}): export the model again") from error
        slabs = dict(zip(sizes.slabs, written, strict=True))
        vectors.append(vector)
        logits.append(logit)
        start += length
    return np.concatenate(vectors, 1), np.concatenate(logits, 1)


Interface = dict[str, tuple[str, tuple[int | None, ...]]]


def _interface(sizes: Sizes) -> tuple[Interface, Interface]:
    whole, real = "tensor(int64)", "tensor(float)"
    slabs: Interface = dict.fromkeys(sizes.slabs, (real, (None, sizes.window, sizes.key)))
    inputs: Interface = {
        "rows": (whole, (None, None)),
        "kinds": (whole, (None, None)),
        "features": (real, (None, None, len(FEATURE_NAMES))),
        "signals": (real, (None, None, len(SIGNAL_NAMES))),
        "position": (whole, (None,)),
        "count": (whole, (None,)),
        "slots": (whole, (None,)),
        "items": (real, (None, sizes.width)),
        **slabs,
    }
    outputs: Interface = {
        "vectors": (real, (None, None, sizes.vector)),
        "logits": (real, (None, None)),
        **{f"{name}_out": slab for name, slab in slabs.items()},
    }
    return inputs, outputs


def _fits(given: list[Any], wanted: tuple[int | None, ...]) -> bool:
    return len(given) == len(wanted) and all(
        not isinstance(have, int) if want is None else have == want for have, want in zip(given, wanted, strict=True)
    )


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    """Return the fields of a protobuf message as (number, value): an int, or the bytes of what is length-delimited."""
    found: list[tuple[int, int | bytes]] = []
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            found.append((number, value))
            continue
        if wire == _LENGTH_DELIMITED:
            size, place = _varint(message, place)
        elif wire in _FIXED:
            size = _FIXED[wire]
        else:
            raise ValueError("it is no ONNX file")
        if place + size > len(message):
            raise ValueError("it is cut short")
        if wire == _LENGTH_DELIMITED:
            found.append((number, message[place : place + size]))
        place += size
    return found


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message):
        byte = message[place]
        value |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            return value, place
    raise ValueError("it is cut short")
