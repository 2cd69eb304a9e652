"""The encoder on CUDA against the one on the CPU, which is held to torch in tests/parity.

With PRICETIDE_REQUIRE_GPU=1 a missing CUDA provider is a failure; without it these tests are skipped, visibly.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

from contracts.errors import BadSettings
from features.encoder import Encoder, UserHistory
from tests.features.models import DEFAULT, ITEMS, START_MS, Shopper, artifact, token

TOLERANCE = 1e-4
"""Of float32 on CUDA, where sums run in another order and TF32 is off."""
HISTORY_MAX = 128


@pytest.fixture
def on_cuda() -> Encoder:
    try:
        return Encoder(artifact(DEFAULT), 600, "cuda")
    except BadSettings as error:
        if os.environ.get("PRICETIDE_REQUIRE_GPU") == "1":
            pytest.fail(f"PRICETIDE_REQUIRE_GPU=1, but: {error}")
        pytest.skip(f"no CUDA here: {error}")


def batches(users: int, rounds: int) -> list[list]:
    random = np.random.default_rng(8)
    shoppers = [Shopper(f"user-{number}".encode(), HISTORY_MAX) for number in range(users)]
    return [
        [
            shopper.ask(
                token(int(random.integers(0, 4)), ITEMS[random.integers(0, 40)], int(random.integers(1, 9_999)), 5_000,
                      START_MS + 60_000 * at)
            )
            for shopper in shoppers
            for _ in range(random.integers(1, 4))
        ]
        for at in range(rounds)
    ]  # fmt: skip


@pytest.mark.parametrize("users", [3, 64, 500], ids=["a few users", "a full run", "a larger run"])
def test_cuda_gives_the_vectors_of_the_cpu_while_rings_fill_and_wrap(on_cuda, users):
    on_cpu = Encoder(artifact(DEFAULT), 600)
    for batch in batches(users, 40):
        found, wanted = on_cuda.encode("p", batch), on_cpu.encode("p", batch)
        assert np.abs(found.vectors - wanted.vectors).max() <= TOLERANCE
        assert np.abs(found.logits - wanted.logits).max() <= TOLERANCE
    assert on_cuda.rebuilt == 0


def test_cuda_rebuilds_users_who_lost_their_ring(on_cuda):
    *_, last = batches(40, 60)
    wanted = Encoder(artifact(DEFAULT), 40).encode("p", last)
    assert np.abs(on_cuda.encode("p", last).vectors - wanted.vectors).max() <= TOLERANCE
    assert on_cuda.rebuilt > 0


def test_cuda_re_embeds_users_in_wide_chunks(on_cuda):
    *_, last = batches(40, 60)
    asks = list({ask.user: ask for ask in last}.values())
    wanted = Encoder(artifact(DEFAULT), 40).encode("p", last)
    place = {ask.user: number for number, ask in enumerate(last)}
    found = on_cuda.re_embed([UserHistory(ask.position + 1, ask.history + ask.token, ask.signals) for ask in asks])
    rows = [place[ask.user] for ask in asks]
    assert np.abs(found.vectors - wanted.vectors[rows]).max() <= TOLERANCE
    assert np.abs(found.logits - wanted.logits[rows]).max() <= TOLERANCE
