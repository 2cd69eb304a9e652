"""A model for tests of the engine: what it answers hangs on every byte of the question, so a wrong question shows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from hashlib import sha256

import numpy as np

from features.vectors import Encoded, TokenAsk

WIDTH = 4


class FakeEncoder:
    """Keeps nothing but what it was asked, and by whom."""

    def __init__(self, digest: str = "fake") -> None:
        self.digest = digest
        self.asks: list[TokenAsk] = []
        self.owners: set[Hashable] = set()
        self.forgotten: list[bytes] = []

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        assert asks, "nothing to read is no question"
        self.asks += asks
        self.owners.add(owner)
        numbers = np.array([answer(self.digest, ask) for ask in asks], dtype=np.float32)
        return Encoded(numbers[:, 1:], numbers[:, 0])

    def forget(self, owner: Hashable, user: bytes) -> None:
        self.forgotten.append(user)


def answer(digest: str, ask: TokenAsk) -> list[float]:
    """A logit in -4..4 and the vector, from the hash of the question."""
    words = sha256(repr((digest, *ask)).encode()).digest()
    return [int.from_bytes(words[place : place + 4], "big") / 2**29 - 4 for place in range(0, 4 * (WIDTH + 1), 4)]
