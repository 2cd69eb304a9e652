"""The exported step with several key heads, in ragged chunks, against the network in float64 over whole histories."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export: pip install 'pricetide[model-export]'")
torch.set_num_threads(1)

from model_export.export import recompute  # noqa: E402 - torch first, or there is nothing to test
from model_export.network import DEFAULT, random_network  # noqa: E402
from model_export.step_graph import StepGraph  # noqa: E402

USERS, TOKENS = 4, 60


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_any_number_of_key_heads_steps_to_the_recompute(kv_heads):
    shape = msgspec.structs.replace(DEFAULT, kv_heads=kv_heads, window=8, lattice=32)
    network, random = random_network(shape, 3), np.random.default_rng(kv_heads)
    with torch.no_grad():
        network.calibration.copy_(torch.tensor([1.5, -0.7]))
        network.seen[1] = 0.0
    items = random.standard_normal((30, shape.width)).astype(np.float32)
    rows, kinds = random.integers(0, 30, (USERS, TOKENS)), random.integers(0, 4, (USERS, TOKENS))
    features = random.random((USERS, TOKENS, 5)).astype(np.float32)
    exact = recompute(network, items, rows, kinds, features)
    step, slab, at, worst = StepGraph(network).eval(), torch.zeros(USERS + 1, 8, shape.sizes.ring), 0, 0.0
    while at < TOKENS:
        part = slice(at, at + int(random.integers(1, 12)))
        tokens = (torch.from_numpy(array[:, part]) for array in (rows, kinds, features))
        length = rows[:, part].shape[1]
        with torch.inference_mode():
            vectors, logits, slab = step(
                *tokens, torch.full((USERS,), at), torch.full((USERS,), length), torch.arange(USERS),
                torch.from_numpy(items), slab,
            )  # fmt: skip
        worst = max(worst, np.abs(vectors.numpy() - exact[0][:, part]).max())
        worst = max(worst, np.abs(logits.numpy() - exact[1][:, part]).max())
        at += length
    assert worst <= 1e-5
