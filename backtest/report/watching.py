"""What a model says of a log: a replay with an encoder that remembers what it was asked, what it said, and what came.

Models may not be in force: a recorded log is watched in the order in which it was applied, whatever priced it. What is kept is
bounded: of a log with more than EXAMPLES_MAX events the events of a sample of users, and of NEXT_ITEMS events what came next.
What came of it is a file, so that a report that was interrupted need not watch again. Not here: figures (quality).
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from zlib import crc32

import numpy as np

from backtest.replay import How, Replay
from backtest.report.facts import Bools, Codes, Floats, Ints
from contracts.log import Log
from features.artifact import NO_ITEM, Artifact
from features.tokens import KINDS, token_fields
from features.vectors import Encoded, TokenAsk, TokenEncoder
from pricing.engine import Step

PURCHASE_WITHIN_MS = 1_800_000
EXAMPLES_MAX = 1_000_000
"""Events, about, whose purchases are asked for: those of a sample of the users of a longer log, by a hash."""
NEXT_ITEMS = 20_000
"""Events, about, whose next item is asked for: a sample of a longer log, by a hash of user and position."""
_AT_ONCE = 256
_VIEW, _PURCHASE = KINDS.index("view"), KINDS.index("purchase")


@dataclass(frozen=True, slots=True)
class Foretold:
    """What a model foretold, and what came; rows of examples and rows of next items."""

    user: Ints
    """Of examples, codes."""
    time_ms: Ints
    """Of examples."""
    known: Bools
    """Whether the user of the example had an event before those that are tested."""
    probability: Floats
    """Of a purchase of the item within PURCHASE_WITHIN_MS after a view, click or cart."""
    bought: Bools
    next_user: Ints
    """Of next items, codes."""
    rank: Ints
    """Of the item that came among the candidates; 0: it is none."""
    candidates: int
    views: int
    clicks: int
    """Carts among them."""
    purchases: int
    """These three of all events that are tested."""
    share: float
    """Of the users who are sampled for examples."""

    def write(self, file: Path) -> None:
        """Write it; the file appears when it is whole."""
        growing = file.with_name(file.name + ".part")
        with growing.open("wb") as opened:
            np.savez(opened, **asdict(self))
        growing.replace(file)

    @classmethod
    def read(cls, file: Path) -> Foretold:
        """Return what `write` wrote."""
        with np.load(file) as found:
            return cls(**{name: found[name] if found[name].ndim else found[name].item() for name in found.files})


@dataclass(slots=True)
class Watcher:
    """An encoder that remembers what it said of the events of some users, and of a sample what it had said before them."""

    encoder: TokenEncoder
    artifact: Artifact
    from_ms: int
    """Only events from here on are tested."""
    share: float
    """Of the events whose next item is remembered."""
    users_share: float = 1.0
    """Of the users whose events are remembered."""
    seen: int = 0
    kinds: Counter[int] = field(default_factory=Counter)
    """Of all events that are tested."""
    last_ms: int = 0
    rows: tuple[array[int], ...] = field(default_factory=lambda: tuple(array("q") for _ in range(4)))
    """User and item as codes, time, kind; per user in the order applied."""
    logits: array[float] = field(default_factory=lambda: array("d"))
    vectors: list[Floats] = field(default_factory=list)
    recent: list[Ints] = field(default_factory=list)
    """Of each of `vectors`: rows of the items of the user's last tokens then, as Artifact.scores wants them."""
    targets: list[tuple[int, int]] = field(default_factory=list)
    """Of each of `vectors`: the user, and the candidate that came (0: none)."""
    users: Codes = field(default_factory=Codes)
    items: Codes = field(default_factory=Codes)
    _last: dict[tuple[Hashable, bytes], tuple[Floats, Ints]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The artifact's."""
        return self.encoder.digest

    def encode(self, owner: Hashable, asks: Sequence[TokenAsk]) -> Encoded:
        """Return what the encoder says, and remember it."""
        encoded = self.encoder.encode(owner, asks)
        for ask, vector, logit in zip(asks, encoded.vectors, encoded.logits.tolist(), strict=True):
            ((kind, item, _, _, time_ms),) = token_fields(ask.token)
            self.seen += 1
            self.last_ms = max(self.last_ms, time_ms)
            if time_ms >= self.from_ms:
                self.kinds[kind] += 1
            if crc32(ask.user) < self.users_share * 2.0**32:
                row = self.users.code(ask.user.decode("utf-8", "replace")), self.items.code(item), time_ms, kind
                for column, value in zip(self.rows, row, strict=True):
                    column.append(value)
                self.logits.append(logit)
            self._expect(owner, ask, vector, item, time_ms)
        return encoded

    def _expect(self, owner: Hashable, ask: TokenAsk, vector: Floats, item: str, time_ms: int) -> None:
        """Meet what was said before this event, and remember what is said now, if it is of the sample."""
        before = self._last.pop((owner, ask.user), None)
        if before is not None and time_ms >= self.from_ms:
            self.vectors.append(before[0])
            self.recent.append(before[1])
            user = self.users.code(ask.user.decode("utf-8", "replace"))
            self.targets.append((user, self.artifact.rows.get(item, 0)))
        if crc32(ask.user, ask.position + 1) < self.share * 2.0**32:
            self._last[owner, ask.user] = vector.copy(), self._recent(ask)

    def _recent(self, ask: TokenAsk) -> Ints:
        count = self.artifact.manifest.architecture.recent
        items = [item for _, item, *_ in token_fields(ask.history + ask.token)][: -count - 1 : -1]
        rows = np.full(count, NO_ITEM, np.int64)
        rows[: len(items)] = [self.artifact.rows.get(item, 0) for item in items]
        return rows

    def release(self, owner: Hashable) -> None:
        """Pass on; what was said stays said."""
        self.encoder.release(owner)

    def forget(self, owner: Hashable, user: bytes) -> None:
        """Pass on; nothing is expected of the user's next event any more."""
        self._last.pop((owner, user), None)
        self.encoder.forget(owner, user)

    def foretold(self) -> Foretold:
        """Return what was foretold, and what came."""
        user, item, time_ms, kind = (np.array(column, np.int64) for column in self.rows)
        bought = followed_by_purchase(user, item, time_ms, kind == _PURCHASE)
        example = (kind != _PURCHASE) & (time_ms >= self.from_ms) & (time_ms + PURCHASE_WITHIN_MS <= self.last_ms)
        logit = np.array(self.logits, np.float64)[example]
        next_user, target = np.array(self.targets, np.int64).reshape(-1, 2).T
        views, purchases = self.kinds[_VIEW], self.kinds[_PURCHASE]
        return Foretold(
            user=user[example],
            time_ms=time_ms[example],
            known=_first_of(user, time_ms)[user[example]] < self.from_ms,
            probability=1.0 / (1.0 + np.exp(-logit)),
            bought=bought[example],
            next_user=next_user,
            rank=self._ranks(target),
            candidates=len(self.artifact.rows),
            views=views,
            clicks=self.kinds.total() - views - purchases,
            purchases=purchases,
            share=self.users_share,
        )

    def _ranks(self, target: Ints) -> Ints:
        """Return the rank of each row's item among the candidates, ties before it; 0 for none."""
        rank = np.zeros(len(target), np.int64)
        for start in range(0, len(target), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            scores = self.artifact.scores(np.stack(self.vectors[part]), np.stack(self.recent[part]))[:, 1:]
            own = scores[np.arange(len(scores)), np.maximum(target[part] - 1, 0)]
            rank[part] = np.where(target[part] > 0, (scores >= own[:, None]).sum(1), 0)
        return rank


def watch(
    log: Log,
    artifact: Artifact,
    encoder: TokenEncoder,
    from_ms: int,
    how: How,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Foretold:
    """Replay the log with a model, and return what it foretold from `from_ms` on.

    Args:
        log: plain, or recorded.
        artifact: of the model.
        encoder: as opened from it.
        from_ms: event time.
        how: order and as-of cut of the replay.
        progress: called with records applied, and records of the log.

    Raises:
        BadInput: as of Replay.
    """
    total = sum(map(sum, log.manifest.records.values()))
    many = max(total, 1)
    watcher = Watcher(encoder, artifact, from_ms, min(1.0, NEXT_ITEMS / many), min(1.0, EXAMPLES_MAX / many))
    applied: Counter[int] = Counter()
    replay = Replay(log, models={watcher.digest: watcher}, how=how)

    def published(partition: int, step: Step) -> None:
        applied[partition] = step.partition.applied
        progress(applied.total(), total)

    replay.run(published)
    return watcher.foretold()


def _first_of(user: Ints, time_ms: Ints) -> Ints:
    """Return the time of every user's first event, by code."""
    first = np.full(int(user.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, user, time_ms)
    return first


def followed_by_purchase(user: Ints, item: Ints, time_ms: Ints, purchase: Bools) -> Bools:
    """Return which events are followed by a purchase of the item by the user within PURCHASE_WITHIN_MS, (n,).

    Args:
        user: codes, (n,); rows of one user in the order applied.
        item: codes, (n,).
        time_ms: event times, (n,).
        purchase: which events are purchases, (n,); their own answers mean nothing.
    """
    if not len(user):
        return np.zeros(0, np.bool_)
    pairs = user * (int(item.max()) + 1) + item
    order = np.lexsort((np.arange(len(pairs)), pairs))
    names, times = pairs[order], time_ms[order]
    places = np.where(purchase[order], np.arange(len(order)), len(order))
    nearest = np.minimum.accumulate(places[::-1])[::-1]  # the next purchase in this order, maybe of another pair
    at = np.minimum(nearest, len(order) - 1)
    gap = times[at] - times
    bought = np.zeros(len(order), np.bool_)
    bought[order] = (nearest < len(order)) & (names[at] == names) & (gap >= 0) & (gap <= PURCHASE_WITHIN_MS)
    return bought
