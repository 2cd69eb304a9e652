"""Artifacts that are damaged although every digest is right, as a bad copy never is and a bad export may be. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np

Damage = Callable[[Path], None]


def resealed(directory: Path) -> None:
    """Write size and SHA-256 of the files as they are now into the manifest."""
    manifest = msgspec.json.decode((directory / "manifest.json").read_bytes())
    for name in manifest["files"]:
        content = (directory / name).read_bytes()
        manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Return the damage that changes the bytes of one file, the manifest's entry for it included."""

    def damage(directory: Path) -> None:
        file = directory / name
        file.write_bytes(change(file.read_bytes()))
        if name != "manifest.json":
            resealed(directory)

    return damage


def in_place_of(name: str, other: str) -> Damage:
    """Return the damage that leaves the file `other` where `name` should be."""

    def damage(directory: Path) -> None:
        (directory / name).write_bytes((directory / other).read_bytes())
        resealed(directory)

    return damage


def badly_compressed(written: bytes) -> bytes:
    with np.load(BytesIO(written)) as arrays:
        out = BytesIO()
        np.savez_compressed(out, **arrays)
    value = bytearray(out.getvalue())
    value[200] ^= 255
    return bytes(value)


def with_shape(said: bytes) -> Callable[[bytes], bytes]:
    """Return the change of a .npy file's header, which stays as long as it was, to another shape."""

    def change(written: bytes) -> bytes:
        header, rest = written[:128], written[128:]
        before = header[: header.index(b"'shape': ")]
        return (before + b"'shape': " + said).ljust(127) + b"\n" + rest

    return change


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a manifest with a byte that is no UTF-8": (
        rewritten("manifest.json", lambda old: old.replace(b'"qwen3"', b'"qw\xe9n3"')),
        r"manifest\.json is no manifest",
    ),
    "a manifest of brackets": (
        rewritten("manifest.json", lambda old: b"[" * 100_000),
        r"manifest\.json is no manifest",
    ),
    "items with a byte that is no UTF-8": (
        rewritten("items.json", lambda old: old[:3] + b"\xe9" + old[4:]),
        r"items\.json is no array",
    ),
    "golden tokens as a table": (in_place_of("items.npy", "golden.npz"), r"items\.npy is no NumPy array"),
    "a table as golden tokens": (in_place_of("golden.npz", "items.npy"), r"golden\.npz holds no golden tokens"),
    "golden tokens badly compressed": (
        rewritten("golden.npz", badly_compressed),
        r"golden\.npz holds no golden tokens",
    ),
    "a table with a broken header": (
        rewritten("items.npy", lambda old: old.replace(b"'descr'", b"'de\n(['")),
        r"items\.npy is no NumPy array",
    ),
    "a table that says it is huge": (
        rewritten("candidates.npy", with_shape(b"(999999999999999,), }")),
        r"candidates\.npy is no NumPy array",
    ),
    "a graph that is none": (rewritten("encoder.onnx", lambda old: b"\x00\x01\x02"), r"encoder\.onnx cannot be read"),
}
