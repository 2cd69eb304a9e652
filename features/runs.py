"""Runs of the encoder's graph over a resident slab: sessions, buffers and bindings, on the CPU or on a CUDA device.

The slabs are bound as inputs and as outputs, so the graph writes them in place. A run has one of a few fixed sizes, with
buffers that are bound once; what is missing in a run goes to the slabs' last row, which is nobody's. Does not know users
(features.encoder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadSettings
from features.artifact import Artifact
from features.graph import Provider, Sizes, open_session
from features.inputs import FEATURE_NAMES, UNKNOWN_ITEM
from features.signals import SIGNAL_NAMES

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, IOBinding, OrtValue


class Tokens:
    """Tokens of a batch, ready for runs; n of them. Arrays as in features.inputs.Inputs, and three more."""

    __slots__ = ("features", "kinds", "positions", "rows", "signals", "slots")

    def __init__(
        self,
        rows: NDArray[np.int64],
        kinds: NDArray[np.int64],
        features: NDArray[np.float32],
        signals: NDArray[np.float32],
        positions: NDArray[np.int64],
        slots: NDArray[np.int64],
    ) -> None:
        self.rows, self.kinds, self.features = rows, kinds, features
        self.signals = signals
        """(n, SIGNAL_NAMES)."""
        self.positions = positions
        """(n,) tokens of the user before it."""
        self.slots = slots
        """(n,) row of the slab."""


class GraphRuns:
    """A session, the slab of `slots` rings and one scratch row, and the buffers of each size."""

    def __init__(self, artifact: Artifact, slots: int, provider: Provider, sizes: Sequence[int]) -> None:
        """Load the graph, and take all the memory that runs will need.

        Args:
            artifact: the model.
            slots: rings to keep, >= 1.
            provider: where the graph runs and the slab lies.
            sizes: users per run, ascending.

        Raises:
            BadSettings: the provider is not available, or there is no memory for so many rings.
        """
        import onnxruntime as ort

        fixed = {"tokens": 1} | ({"users": sizes[0]} if len(sizes) == 1 else {})
        self._session: InferenceSession = open_session(artifact.graph, provider, fixed)
        self._graph, self._ort, self._provider = artifact.graph, ort, provider
        shape = artifact.manifest.architecture.sizes
        self._vector = shape.vector
        self._items = self._on_device(artifact.item_rows)
        self._empty = self._values(shape.empty(0))
        slabs = self._slabs(shape, slots)
        self._buffers = [_Buffers(self, size, slots, slabs) for size in sizes]
        self.width = sizes[-1]

    def step(self, tokens: Tokens, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph on the tokens `chosen`, of different users, at most `width`; each is the next of its ring.

        Returns:
            vectors (k, vector) and logits (k,): views that hold until the next run.
        """
        buffers = next(buffers for buffers in self._buffers if buffers.size >= len(chosen))
        return buffers.run(tokens, chosen)

    def chunks(
        self,
        rows: NDArray[np.int64],
        kinds: NDArray[np.int64],
        features: NDArray[np.float32],
        signals: NDArray[np.float32],
        positions: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph on whole chunks from empty rings; no ring of the slab is read or written.

        Args:
            rows: (users, K).
            kinds: (users, K).
            features: (users, K, FEATURE_NAMES).
            signals: (users, K, SIGNAL_NAMES).
            positions: (users,) of the first token.
            counts: (users,) valid tokens, 1..K.

        Returns:
            vectors (users, K, vector) and logits (users, K).
        """
        nobody = np.zeros(len(rows), np.int64)
        feed = {
            "rows": rows,
            "kinds": kinds,
            "features": features,
            "signals": signals,
            "position": positions,
            "count": counts,
            "slots": nobody,
        }
        given = self._values({name: np.ascontiguousarray(value) for name, value in feed.items()})
        given |= {"items": self._items, **self._empty}
        vectors, logits = self._any_length.run_with_ort_values(["vectors", "logits"], given)
        return vectors.numpy(), logits.numpy()

    @cached_property
    def _any_length(self) -> InferenceSession:
        """The session for chunks, opened when there are any: the one for steps is of fixed sizes."""
        return open_session(self._graph, self._provider)

    def _slabs(self, shape: Sizes, slots: int) -> dict[str, OrtValue]:
        try:
            rings = shape.empty(slots)
            for ring in rings.values():
                ring.fill(0)  # the pages now: at a user's first token they would cost half as much as the run
            return self._values(rings)
        except (MemoryError, RuntimeError) as error:  # of NumPy, of a device
            raise BadSettings(
                f"There is no memory for the keys and values of {slots:,} users on the {self._provider} ({error}): set "
                "encoder.users_max lower; an exchange of models needs twice the memory for a moment"
            ) from error

    def _values(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, OrtValue]:
        return {name: self._on_device(array) for name, array in arrays.items()}

    def _on_device(self, array: NDArray[Any]) -> OrtValue:
        """Return `array` where the graph runs; on the CPU the value is the array's own memory."""
        return self._ort.OrtValue.ortvalue_from_numpy(array, self._provider, 0)


class _Buffers:
    """What runs of one size read and write, bound once."""

    def __init__(self, runs: GraphRuns, size: int, scratch: int, slabs: Mapping[str, OrtValue]) -> None:
        self.size = size
        self._session, self._scratch = runs._session, scratch
        self._rows = np.full((size, 1), UNKNOWN_ITEM, np.int64)
        self._kinds = np.zeros((size, 1), np.int64)
        self._features = np.zeros((size, 1, len(FEATURE_NAMES)), np.float32)
        self._signals = np.zeros((size, 1, len(SIGNAL_NAMES)), np.float32)
        self._positions = np.zeros(size, np.int64)
        self._slots = np.full(size, scratch, np.int64)
        self._vectors = np.zeros((size, 1, runs._vector), np.float32)
        self._logits = np.zeros((size, 1), np.float32)
        self._binding: IOBinding = runs._session.io_binding()
        host: dict[str, NDArray[Any]] = {
            "rows": self._rows,
            "kinds": self._kinds,
            "features": self._features,
            "signals": self._signals,
            "position": self._positions,
            "slots": self._slots,
        }
        values = runs._values(host)
        self._copied = [] if runs._provider == "cpu" else [(values[name], host[name]) for name in host]
        values |= {"count": runs._on_device(np.ones(size, np.int64)), "items": runs._items, **slabs}
        for name, value in values.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, array in (("vectors", self._vectors), ("logits", self._logits)):
            self._binding.bind_ortvalue_output(name, runs._ort.OrtValue.ortvalue_from_numpy(array))
        for name, slab in slabs.items():
            self._binding.bind_ortvalue_output(f"{name}_out", slab)

    def run(self, tokens: Tokens, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        users = len(chosen)
        self._rows[:users, 0] = tokens.rows[chosen]
        self._kinds[:users, 0] = tokens.kinds[chosen]
        self._features[:users, 0] = tokens.features[chosen]
        self._signals[:users, 0] = tokens.signals[chosen]
        self._positions[:users] = tokens.positions[chosen]
        self._slots[:users] = tokens.slots[chosen]
        self._slots[users:] = self._scratch
        for value, array in self._copied:
            value.update_inplace(array)
        self._session.run_with_iobinding(self._binding)
        return self._vectors[:users, 0], self._logits[:users, 0]
