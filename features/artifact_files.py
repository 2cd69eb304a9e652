"""The files of an artifact one by one: how its tables and golden tokens become bytes, and bytes become these again, checked.

Whatever is wrong with a file becomes a BadArtifact with a sentence that names it. What NumPy, zipfile and msgspec raise of bytes
that are not theirs has no base in common (zlib.error, TokenError, MemoryError and more), so any Exception of a reader counts as
damage. Not here: which files there are, and that they fit together (features.artifact).
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.errors import UNREADABLE, BadArtifact
from features.graph import Golden, Sizes
from features.inputs import FEATURE_NAMES
from features.signals import SIGNAL_NAMES
from features.tokens import KINDS

AGAIN = "copy the artifact again, or export the model again"
Array = TypeVar("Array", bound=NDArray[Any])


def sha256(value: bytes) -> str:
    """Return the digest of a file, 64 hex digits."""
    return hashlib.sha256(value).hexdigest()


def npy(array: NDArray[np.float32]) -> bytes:
    """Return a .npy file; its bytes depend on the numbers alone."""
    out = BytesIO()
    np.save(out, np.ascontiguousarray(array), allow_pickle=False)
    return out.getvalue()


def npz(golden: Golden) -> bytes:
    """Return a .npz file of golden tokens."""
    out = BytesIO()
    np.savez(out, **golden._asdict())
    return out.getvalue()


def read(file: Path) -> bytes:
    """Return what is in a file, or raise BadArtifact."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadArtifact(f"{file.name} cannot be read ({error.strerror}): {AGAIN}") from error


def checked(file: Path, size: int, digest: str) -> bytes:
    """Return what is in a file, or raise BadArtifact if it is not of that size and SHA-256."""
    value = read(file)
    if len(value) != size:
        raise BadArtifact(f"{file.name} has {len(value)} bytes, the manifest says {size}: {AGAIN}")
    if sha256(value) != digest:
        raise BadArtifact(f"{file.name} has SHA-256 {sha256(value)[:16]}…, the manifest says {digest[:16]}…: {AGAIN}")
    return value


def items_of(written: bytes, count: int) -> dict[str, int]:
    """Return the rows of the items in items.json by id, from 1 on, or raise BadArtifact if they are not `count` different ones."""
    try:
        names = msgspec.json.decode(written, type=list[str])
    except UNREADABLE as error:
        raise BadArtifact(f"items.json is no array of item ids ({error}): {AGAIN}") from error
    rows = {name: row for row, name in enumerate(names, 1)}
    if not len(rows) == len(names) == count:
        raise BadArtifact(f"items.json has {len(names)} ids, {len(rows)} different, the manifest says {count}: {AGAIN}")
    return rows


def array_of(name: str, written: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the float32 array in the .npy file `name`, or raise BadArtifact if it has another shape or numbers not finite."""
    try:
        array = np.lib.format.read_array(BytesIO(written), allow_pickle=False)
    except Exception as error:  # see above
        raise BadArtifact(f"{name} is no NumPy array ({error}): {AGAIN}") from error
    return _required(name, array, np.float32, shape)


def golden_of(written: bytes, rows: int, sizes: Sizes) -> Golden:
    """Return the golden tokens in a .npz file, or raise BadArtifact if they are not of `rows` items and of these sizes."""
    try:
        with np.load(BytesIO(written), allow_pickle=False) as arrays:
            golden = Golden(**{name: arrays[name] for name in Golden._fields})
    except Exception as error:  # see above
        raise BadArtifact(f"golden.npz holds no golden tokens ({error}): {AGAIN}") from error
    tokens = (*golden.rows.shape, 0, 0)[:2]
    _required("golden.npz rows", golden.rows, np.int64, tokens)
    _required("golden.npz kinds", golden.kinds, np.int64, tokens)
    _required("golden.npz features", golden.features, np.float32, (*tokens, len(FEATURE_NAMES)))
    _required("golden.npz signals", golden.signals, np.float32, (*tokens, len(SIGNAL_NAMES)))
    _required("golden.npz vectors", golden.vectors, np.float32, (*tokens, sizes.vector))
    _required("golden.npz logits", golden.logits, np.float32, tokens)
    for name, values, end in (("rows", golden.rows, rows), ("kinds", golden.kinds, len(KINDS))):
        if values.size and not 0 <= values.min() <= values.max() < end:
            raise BadArtifact(f"golden.npz: {name} are not all within 0..{end - 1}: {AGAIN}")
    return golden


def _required(name: str, array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> Array:
    if array.dtype != dtype or array.shape != shape:
        raise BadArtifact(
            f"{name} is {array.dtype} {array.shape}, wanted {np.dtype(dtype)} {shape}, by the manifest: {AGAIN}"
        )
    if not np.isfinite(array).all():
        raise BadArtifact(f"{name} holds numbers that are not finite: train the model again")
    return array
