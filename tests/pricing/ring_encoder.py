"""A model for tests that keeps, as the real one does, what it has read of a user, and trusts it where the position fits."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from features.tokens import HEADER_BYTES
from features.vectors import Encoded, TokenAsk
from tests.pricing.fake_encoder import answer

REACH = 5
"""Tokens that an answer hangs on, the one asked for included."""


class RingEncoder:
    """Answers hang on the last REACH tokens as it has read them: a ring of another past shows."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.rebuilt = 0
        self._rings: dict[tuple[Hashable, bytes], tuple[int, list[bytes]]] = {}

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        answers = []
        for ask in asks:
            position, ring = self._rings.get((owner, ask.user), (-1, []))
            if position != ask.position:
                ring = split(ask.history)
                self.rebuilt += 1
            ring = [*ring, ask.token][-REACH:]
            self._rings[owner, ask.user] = ask.position + 1, ring
            answers.append(answer(self.digest, ask._replace(history=b"".join(ring))))
        numbers = np.array(answers, dtype=np.float32)
        return Encoded(numbers[:, 1:], numbers[:, 0])

    def release(self, owner: Hashable) -> None:
        self._rings = {key: ring for key, ring in self._rings.items() if key[0] is not owner}

    def forget(self, owner: Hashable, user: bytes) -> None:
        self._rings.pop((owner, user), None)


def split(history: bytes) -> list[bytes]:
    pieces = []
    while history:
        end = HEADER_BYTES + int.from_bytes(history[:2], "big")
        pieces.append(history[:end])
        history = history[end:]
    return pieces
