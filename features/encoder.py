"""The encoder: tokens of users to user vectors, one graph run for up to 64 users, each user's past kept as a ring.

A ring is derived state. It is used only if it has seen exactly the tokens before the one that is asked for; else the user
is rebuilt from the token history. On the CPU every token, also of a burst or a rebuild, is a step of one in a run of 64
rows, missing ones filled up: so its bits cannot depend on batches, evictions or restarts. On CUDA runs may be
larger, and bits depend on their size.

Not here: who asks (vectors), what the graph reads of a token (inputs), which runs there are (schedule), the memory
and the session (runs).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadSettings
from features.artifact import Artifact
from features.graph import Provider
from features.inputs import UNKNOWN_ITEM, last_token, read_inputs, suffix
from features.rings import NOTHING, Ring, Rings
from features.runs import GraphRuns, Tokens
from features.schedule import schedule
from features.signals import NO_SIGNALS, SIGNAL_NAMES, Signals
from features.tokens import tokens
from features.vectors import Encoded, TokenAsk

RUN_SIZES: dict[Provider, tuple[int, ...]] = {"cpu": (64,), "cuda": (64, 1024, 4096)}
"""Users per run; on the CPU one size, see above."""
TOKENS_AT_ONCE = 32_768
"""Bounds what a batch takes beside the slab: a batch with more, rebuilds included, is worked off in parts."""
CHUNK_USERS: dict[Provider, int] = {"cpu": 64, "cuda": 1024}


class UserHistory(NamedTuple):
    """All that is known of a user, for `re_embed`."""

    position: int
    """Tokens ever appended, >= 1."""
    history: bytes
    """The token history, the last token included."""
    signals: Signals = NO_SIGNALS
    """As of the last token; without them the vector stands, and the logit means nothing."""


class Encoder:
    """A model at work. One thread at a time; a new model is a new Encoder.

    Attributes:
        digest: of the artifact.
        history_needed: tokens that a rebuild reads, the one asked for included; a state must keep one more than these,
            from whose time the first of them counts its gap.
        asked, hits, rebuilt: tokens asked for; those of them that found their ring ready; tokens that were run again
            because a ring was not.
    """

    def __init__(self, artifact: Artifact, users_max: int, provider: Provider = "cpu") -> None:
        """Load the model and take the memory for `users_max` resident users.

        Raises:
            BadSettings: users_max < 1 or more than there is memory for, or the provider is not available.
        """
        if users_max < 1:
            raise BadSettings(
                f"The encoder cannot keep {users_max} users: set the number of resident users to 1 or more"
            )
        self.artifact = artifact
        self.digest = artifact.digest
        self._reach = artifact.manifest.architecture.reach
        self.history_needed = self._reach + 1
        self._users_max, self._provider = users_max, provider
        self._runs = GraphRuns(artifact, users_max, provider, RUN_SIZES[provider])
        self._rings = Rings(users_max)
        self.asked = self.hits = self.rebuilt = 0

    def require_history(self, kept: int) -> None:
        """Raise BadSettings if a state that keeps `kept` tokens is too short for an exact rebuild."""
        if kept < self.history_needed:
            raise BadSettings(
                f"The model {self.digest} needs the last {self.history_needed} tokens of a user, the state keeps {kept}: set "
                f"semantics.history_events_max to {self.history_needed} or more, or use another model"
            )

    @property
    def residents(self) -> int:
        """Users that have a ring."""
        return len(self._rings)

    @property
    def evicted(self) -> int:
        """Users that lost their ring to another one."""
        return self._rings.evicted

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """Return vector and logit of each of `asks`.

        Args:
            owner: whose states these are: rings are kept by owner and user, and live until `release`.
            asks: in applied order; several of one user are in order, too.
        """
        encoded = Encoded(
            np.empty((len(asks), self.artifact.manifest.architecture.floats), np.float32),
            np.empty(len(asks), np.float32),
        )
        asks_of: dict[bytes, list[int]] = {}
        for number, ask in enumerate(asks):
            asks_of.setdefault(ask.user, []).append(number)
        part = _Part()
        for user, numbers in asks_of.items():
            if len(part.lengths) == self._users_max or len(part.targets) >= TOKENS_AT_ONCE:
                self._work_off(part, encoded)
                part = _Part()
            self._plan(part, self._rings.take((owner, user)), asks, numbers)
        self._work_off(part, encoded)
        self.asked += len(asks)
        return encoded

    def release(self, owner: Hashable) -> None:
        """Forget every ring of `owner`."""
        self._rings.release(owner)

    def forget(self, owner: Hashable, user: bytes) -> None:
        """Forget the ring of one user of `owner`."""
        self._rings.forget((owner, user))

    def of_history(self, user: bytes, position: int, history: bytes) -> NDArray[np.float32] | None:
        """Return the vector (vector + R,) after the last token of `history`, as `encode` gave it; None without a token.

        Args:
            user: their key; no ring of theirs is used or changed.
            position: tokens ever appended, those of `history` included.
            history: as a state keeps it.
        """
        if not history:
            return None
        before, last = last_token(history)
        nobody = object()
        ask = TokenAsk(user, position - 1, before, last, NO_SIGNALS)
        vector: NDArray[np.float32] = self.encode(nobody, [ask]).vectors[0]
        self.release(nobody)
        return vector

    def nearest(self, vector: NDArray[np.float32], history: bytes, count: int) -> list[tuple[str, float]]:
        """Return the `count` items that the model ranks first as the next one, with their scores, falling.

        Args:
            vector: as `of_history` gives it.
            history: the same.
            count: items wanted, >= 1.
        """
        items = [token.item for token in tokens(history)][-self.artifact.manifest.architecture.recent :]
        return self.artifact.nearest(
            vector, [self.artifact.rows.get(item, UNKNOWN_ITEM) for item in items[::-1]], count
        )

    def re_embed(self, users: Sequence[UserHistory]) -> Encoded:
        """Return vector and logit of the last token of each of `users`, in wide chunks that leave every ring alone.

        For jobs over many users that are not priced: equal to `encode` within 1e-5, not in every bit.
        """
        size = CHUNK_USERS[self._provider]
        parts = [self._chunk(users[start : start + size]) for start in range(0, len(users), size)]
        if not parts:
            return self.encode(None, [])
        return Encoded(
            np.concatenate([part.vectors for part in parts]), np.concatenate([part.logits for part in parts])
        )

    def _plan(self, part: _Part, ring: Ring, asks: Sequence[TokenAsk], numbers: list[int]) -> None:
        """Add the tokens of one user, `numbers` of `asks`, to `part`, and before them what a rebuild needs."""
        begun = len(part.targets)
        ready, before_ms = ring.position, ring.time_ms
        ring.position = NOTHING  # until the runs are done
        for number in numbers:
            ask = asks[number]
            if ask.position != ready:
                count = min(ask.position, self._reach)
                past = suffix(ask.history, ask.position, count)
                part.befores[len(part.targets)] = past.before_ms
                part.pieces.append(past.history)
                part.targets += [_NOBODY] * count
                part.positions += range(ask.position - count, ask.position)
                self.rebuilt += count
            else:
                self.hits += 1
                if number == numbers[0]:
                    part.befores[begun] = before_ms
            part.pieces.append(ask.token)
            part.signals.append(ask.signals)
            part.targets.append(number)
            part.positions.append(ask.position)
            ready = ask.position + 1
        part.rings.append(ring)
        part.lengths.append(len(part.targets) - begun)

    def _work_off(self, part: _Part, encoded: Encoded) -> None:
        """Run the tokens of `part`, put what was asked for into `encoded`, and mark the rings as ready for the next one."""
        if not part.pieces:
            return
        inputs = read_inputs(b"".join(part.pieces), part.befores, self.artifact.rows)
        lengths = np.array(part.lengths, np.int64)
        slots = np.repeat(np.array([ring.row for ring in part.rings], np.int64), lengths)
        targets = np.array(part.targets, np.int64)
        signals = np.zeros((len(targets), len(SIGNAL_NAMES)), np.float32)
        signals[targets != _NOBODY] = part.signals
        positions = np.array(part.positions, np.int64)
        ready = Tokens(inputs.rows, inputs.kinds, inputs.features, signals, positions, slots)
        for chosen in schedule(lengths, self._runs.width):
            vectors, logits = self._runs.step(ready, chosen)
            target = targets[chosen]
            asked = target != _NOBODY
            encoded.vectors[target[asked]] = vectors[asked]
            encoded.logits[target[asked]] = logits[asked]
        last = -1
        for ring, length in zip(part.rings, part.lengths, strict=True):
            last += length
            ring.position, ring.time_ms = part.positions[last] + 1, inputs.times[last]

    def _chunk(self, users: Sequence[UserHistory]) -> Encoded:
        counts = np.array([min(user.position, self._reach + 1) for user in users], np.int64)
        pasts = [suffix(user.history, user.position, int(count)) for user, count in zip(users, counts, strict=True)]
        starts = np.cumsum(counts) - counts
        befores = {int(start): past.before_ms for start, past in zip(starts, pasts, strict=True)}
        inputs = read_inputs(b"".join(past.history for past in pasts), befores, self.artifact.rows)
        places = starts[:, None] + np.minimum(np.arange(counts.max()), counts[:, None] - 1)
        positions = np.array([user.position for user in users], np.int64) - counts
        last = np.arange(len(users)), counts - 1
        signals = np.zeros((*places.shape, len(SIGNAL_NAMES)), np.float32)
        signals[last] = [user.signals for user in users]
        vectors, logits = self._runs.chunks(
            inputs.rows[places], inputs.kinds[places], inputs.features[places], signals, positions, counts
        )
        return Encoded(vectors[last], logits[last])


_NOBODY = -1
"""Target of a token whose vector nobody asked for: one of a rebuild."""


class _Part:
    """Tokens of some users of a batch, user after user."""

    __slots__ = ("befores", "lengths", "pieces", "positions", "rings", "signals", "targets")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.befores: dict[int, int | None] = {}
        self.positions: list[int] = []
        self.targets: list[int] = []
        self.signals: list[Signals] = []
        """Of the tokens that are asked for."""
        self.rings: list[Ring] = []
        self.lengths: list[int] = []
