"""The exported step with several key heads, in ragged chunks, against the network in float64 over whole histories."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export: pip install 'pricetide[model-export]'")
torch.set_num_threads(1)

from features.graph import Golden, open_session, run_through  # noqa: E402 - torch first, or there is nothing to test
from features.signals import SIGNAL_NAMES  # noqa: E402
from model_export.export import export_graph, recompute  # noqa: E402
from model_export.network import DEFAULT, random_network  # noqa: E402

USERS, TOKENS = 4, 60


# One key head is what all others are tested with; a layer less is exported a quarter faster.
@pytest.mark.parametrize(("kv_heads", "layers"), [(2, 1), (4, 2)])
def test_any_number_of_key_heads_steps_to_the_recompute(kv_heads, layers):
    shape = msgspec.structs.replace(DEFAULT, kv_heads=kv_heads, layers=layers, window=8, lattice=32)
    network, random = random_network(shape, 3), np.random.default_rng(kv_heads)
    with torch.no_grad():
        network.calibration.copy_(torch.tensor([1.5, 0.4, -0.7]))
        network.seen[1] = network.signals.seen[1] = 0.0
        network.signals.standardise(torch.rand(50, 5), torch.rand(50, len(SIGNAL_NAMES)) * 8)
        network.signals.rate[7] = 0.0
    items = random.standard_normal((30, shape.width)).astype(np.float32)
    rows, kinds = random.integers(0, 30, (USERS, TOKENS)), random.integers(0, 4, (USERS, TOKENS))
    features = random.random((USERS, TOKENS, 5)).astype(np.float32)
    signals = 8 * random.random((USERS, TOKENS, len(SIGNAL_NAMES))).astype(np.float32)
    exact = recompute(network, items, rows, kinds, features, signals)
    tokens = Golden(rows, kinds, features, signals, *exact)
    session, lengths = open_session(export_graph(network)), [1, 1, 11, 1, 7, 8, 9, 1, 1, 20]
    assert sum(lengths) == TOKENS
    for found, wanted in zip(run_through(session, items, tokens, shape.sizes, lengths), exact, strict=True):
        assert np.abs(found - wanted).max() <= 1e-5
