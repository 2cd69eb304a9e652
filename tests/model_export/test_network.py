"""Scores point past the layers at the items of the last tokens, and the network learns at which."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export")
torch.set_num_threads(1)

from model_export.dataset import Items  # noqa: E402 - torch first, or there is nothing to test
from model_export.item_tables import ItemTables  # noqa: E402
from model_export.network import DEFAULT, UserNetwork  # noqa: E402
from model_export.objectives import NextItem  # noqa: E402

SHAPE = msgspec.structs.replace(DEFAULT, width=16, heads=2, head_dim=8, window=8, lattice=64, vector=24, recent=3)
USERS, TOKENS, ITEMS = 2, 7, 60


def inputs(rows):
    shape = rows.shape[:2]
    return rows, torch.zeros(shape, dtype=torch.int64), torch.zeros(*shape, 5)


def test_scores_see_the_items_of_the_last_tokens_by_the_shares_of_their_ages_and_nothing_older():
    torch.manual_seed(0)
    network = UserNetwork(SHAPE).double().eval()
    rows = torch.randn(USERS, TOKENS, SHAPE.width, dtype=torch.float64)
    with torch.inference_mode():
        network.head.weight.zero_()
        network.shares.weight.zero_()
        network.shares.bias.copy_(torch.tensor([3.0, -2.0, 0.5]))
        network.repeat.weight.normal_()
        vectors = network.pointed(network.history(*inputs(rows))[0], rows)
    repeat = network.repeat.weight.detach().numpy()
    for user in range(USERS):
        for at in range(TOKENS):
            wanted = np.zeros(SHAPE.vector)
            for age, share in enumerate((3.0, -2.0, 0.5)):
                if age <= at:
                    wanted += share * (repeat @ rows[user, at - age].numpy())
            assert np.abs(vectors[user, at].numpy() - wanted).max() < 1e-9


def test_the_shares_depend_on_what_the_layers_see():
    torch.manual_seed(0)
    network = UserNetwork(SHAPE).eval()
    rows = torch.randn(1, TOKENS, SHAPE.width)
    item, kinds, features = inputs(rows)
    other = kinds.clone()
    other[0, 0] = 1
    with torch.inference_mode():
        one, two = (network.history(item, kind, features)[0][0, -1, SHAPE.vector :] for kind in (kinds, other))
    assert (one - two).abs().max() > 1e-4


def test_a_network_learns_to_point_at_the_item_before_the_last_of_users_it_has_not_met():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    items = Items([str(row) for row in range(ITEMS)], [""] * ITEMS, np.zeros(ITEMS, np.int64), 1)
    network, tables = UserNetwork(SHAPE), ItemTables(items, np.zeros((ITEMS, 1), np.float32), SHAPE)
    counts = np.append(0, np.ones(ITEMS, np.int64))
    next_item = NextItem(counts, counts, negatives=ITEMS)
    optimizer = torch.optim.Adam([*network.parameters(), *tables.parameters()], lr=0.01)

    def alternating(users):
        pairs = np.stack([random.permutation(ITEMS)[:2] + 1 for _ in range(users)])
        return torch.from_numpy(np.tile(pairs, 3))

    for _ in range(120):
        rows = alternating(16)
        item = tables.inputs(rows[:, :-1])
        vectors = network.pointed(network.history(*inputs(item))[0], item)
        loss = next_item.loss(vectors[:, 1:].flatten(0, 1), rows[:, 2:].flatten(), tables, random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        rows = alternating(200)
        item = tables.inputs(rows[:, :-1])
        vectors = network.pointed(network.history(*inputs(item))[0], item)
        candidates, bias = tables.candidates(torch.arange(1, ITEMS + 1))
        found = (vectors[:, -1] @ candidates.T + bias).argmax(-1) + 1
    assert (found == rows[:, -1]).float().mean() > 0.8
