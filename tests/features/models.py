"""Random models and shoppers for tests of the encoder: weights large enough that old tokens change new vectors.

An export takes half a minute, so each graph is made once per run of the tests, whichever process asks for it first; models
that differ in their items share one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export: pip install 'pricetide[model-export]'")
torch.set_num_threads(1)

from features.artifact import Architecture, Artifact, Parts, load_artifact, write_artifact  # noqa: E402
from features.encoder import TokenAsk  # noqa: E402
from features.signals import SIGNAL_NAMES, Signals  # noqa: E402
from features.tokens import append_token  # noqa: E402
from model_export.export import Model, export_graph, golden_of, golden_scores_of, random_model  # noqa: E402
from model_export.network import DEFAULT  # noqa: E402
from tests.once import once  # noqa: E402

SMALL = Architecture(
    kind="qwen3", width=16, layers=2, heads=2, kv_heads=1, head_dim=8, window=8, lattice=64, vector=12, recent=4
)
ITEMS = [f"item-{number}" for number in range(40)]
GENERATED = tuple(f"item-{number:04d}" for number in range(140))
"""Most of the items of generated logs, and not all."""
START_MS = 1_572_566_400_000


@cache
def model(architecture: Architecture = SMALL) -> Model:
    made = random_model(ITEMS, 5, architecture)
    made.network.returning.fill_(0.5)
    return made


@cache
def graph(architecture: Architecture) -> bytes:
    """Return the ONNX graph of the network of `model(architecture)`."""
    name = f"graph-{blake2b(repr(architecture).encode()).hexdigest()[:12]}"
    return once(name, lambda _: export_graph(model(architecture).network))


@cache
def parts(
    architecture: Architecture = SMALL, items_seed: int | None = None, items: tuple[str, ...] = tuple(ITEMS)
) -> Parts:
    """Return the parts of a sound artifact; another `items_seed` gives the items other vectors, `items` are others."""
    made = model(architecture)
    if items_seed is not None:
        other = random_model(items, items_seed, architecture)
        tables = ("items", "item_rows", "candidates", "candidate_bias")
        made = replace(made, **{name: getattr(other, name) for name in tables})
    golden = golden_of(made, 1)
    return Parts(
        architecture=architecture,
        graph=graph(architecture),
        items=made.items,
        item_rows=made.item_rows,
        candidates=made.candidates,
        candidate_bias=made.candidate_bias,
        repeat=made.network.repeat.weight.detach().numpy(),
        golden=golden,
        golden_scores=golden_scores_of(made, golden),
        weights=b"not read by a worker",
        slope="prior",
        slope_value=1.5,
        returning=float(made.network.returning),
        text_encoder="none",
        trained_on="none",
        metrics={"recall": 0.25},
        versions={"torch": "0"},
    )


@cache
def artifact(architecture: Architecture = SMALL, items_seed: int | None = None) -> Artifact:
    with TemporaryDirectory() as directory:
        write_artifact(Path(directory), parts(architecture, items_seed))
        return load_artifact(Path(directory))


def token(kind: int, item: str, price: int, list_price: int, time_ms: int) -> bytes:
    """Return a token from the documented layout, without the code under test."""
    name = item.encode()
    return (len(name) << 112 | time_ms << 70 | price << 36 | list_price << 2 | kind).to_bytes(16, "big") + name


def signals(name: bytes, position: int) -> Signals:
    """Return signals that differ from user to user and from token to token."""
    random = Random(f"{name!r} {position}")
    return tuple(random.uniform(0, 3) for _ in SIGNAL_NAMES)


@dataclass
class Shopper:
    """A user whose tokens are appended as a state does it."""

    name: bytes
    history_max: int
    history: bytes = b""
    kept: int = 0
    position: int = 0

    def ask(self, made: bytes) -> TokenAsk:
        """Append a token, and return what the engine asks about it."""
        asked = TokenAsk(self.name, self.position, self.history, made, signals(self.name, self.position))
        self.history, self.kept = append_token(self.history, self.kept, made, self.history_max)
        self.position += 1
        return asked


__all__ = [
    "DEFAULT", "GENERATED", "ITEMS", "SMALL", "START_MS", "Shopper", "artifact", "graph", "model", "parts", "signals", "token",
]  # fmt: skip
