"""What is learned from tokens: for each, the item of the next event, and whether its item was bought; in batches of users.

As of a time: nothing is known, met or labelled here that was not before `learn_ms`. Not here: tokens (dataset), losses
(objectives).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.inputs import UNKNOWN_ITEM
from model_export.dataset import Dataset, labelled


class Examples(NamedTuple):
    """The tokens of a dataset as of a time, n of them, user by user; arrays (n,) unless said otherwise."""

    user: NDArray[np.int32]
    row: Tensor
    """Items that were not known then are UNKNOWN_ITEM."""
    kind: Tensor
    features: Tensor
    """(n, F)."""
    signals: Tensor
    """(n, S)."""
    target: Tensor
    """Row of the user's next event; UNKNOWN_ITEM where there is none, or its item is not known."""
    repeated: NDArray[np.bool_]
    """Whether the next event is about the same item, known or not."""
    bought: Tensor
    follows: NDArray[np.bool_]
    """Whether the next event, too, lies before `learn_ms`."""
    later: NDArray[np.bool_]
    """Whether there is a next event at or after `learn_ms`."""
    judged: NDArray[np.bool_]
    """Whether the token is an example of a purchase, or of none, that was over by `learn_ms`."""
    judged_later: NDArray[np.bool_]
    """The same, over between `learn_ms` and the dataset's end."""
    first: NDArray[np.int64]
    """(users + 1,): where each user's tokens begin, and where the last one's end."""
    known: NDArray[np.bool_]
    """(N + 1,): which rows are of items known then."""


def examples_of(dataset: Dataset, learn_ms: int) -> Examples:
    """Return what may be learned from `dataset` before `learn_ms`, and what can be validated after it."""
    tokens = dataset.tokens
    known = dataset.known_ms < learn_ms
    row = np.where(known[tokens.row], tokens.row, UNKNOWN_ITEM)
    continues = np.append(tokens.user[1:] == tokens.user[:-1], False)
    next_ms = np.append(tokens.time_ms[1:], 0)
    early = tokens.time_ms < learn_ms
    judged = labelled(tokens, 0, learn_ms)
    starts = np.flatnonzero(np.append(True, ~continues[:-1]))
    return Examples(
        user=tokens.user,
        row=torch.from_numpy(row),
        kind=torch.from_numpy(tokens.kind),
        features=torch.from_numpy(tokens.features),
        signals=torch.from_numpy(tokens.signals),
        target=torch.from_numpy(np.where(continues, np.append(row[1:], UNKNOWN_ITEM), UNKNOWN_ITEM)),
        repeated=continues & np.append(tokens.item[1:] == tokens.item[:-1], False),
        bought=torch.from_numpy(tokens.bought),
        follows=continues & early & (next_ms < learn_ms),
        later=continues & (next_ms >= learn_ms),
        judged=judged,
        judged_later=labelled(tokens, 0, dataset.until_ms) & ~judged,
        first=np.append(starts, len(row)),
        known=known,
    )


class Batch(NamedTuple):
    """Tokens of some users from their first on, (users, longest)."""

    token: Tensor
    """Places in the examples; 0 where nothing is."""
    valid: Tensor


def batches(
    examples: Examples, wanted: NDArray[np.bool_], tokens_max: int, random: np.random.Generator | None
) -> Iterator[Batch]:
    """Yield the users with a wanted token, up to the last such, so that padding is small.

    Args:
        examples: whose users.
        wanted: (n,).
        tokens_max: per batch, padding included; a longer user is a batch of their own.
        random: shuffles users of equal length, and the batches; None: in order of length.
    """
    last = np.where(wanted, np.arange(len(wanted)), -1)
    ends = np.maximum.reduceat(last, examples.first[:-1]) + 1
    asked = np.flatnonzero(ends > examples.first[:-1])
    starts, ends = examples.first[asked], ends[asked]
    length = ends - starts
    order = np.argsort(length + (random.random(len(length)) if random is not None else 0.0), kind="stable")
    cuts = list(_cuts(length[order], tokens_max))
    groups = [order[start:end] for start, end in pairwise(cuts)]
    for place in random.permutation(len(groups)) if random is not None else range(len(groups)):
        group = groups[place]
        index = starts[group, None] + np.arange(length[group].max())
        valid = index < ends[group, None]
        yield Batch(torch.from_numpy(np.where(valid, index, 0)), torch.from_numpy(valid))


def _cuts(length: NDArray[np.int64], tokens_max: int) -> Iterator[int]:
    """Yield where groups of rising lengths begin, and where the last ends."""
    begin = 0
    yield begin
    for place, longest in enumerate(length.tolist()):
        if place > begin and longest * (place + 1 - begin) > tokens_max:
            begin = place
            yield begin
    if len(length):
        yield len(length)
