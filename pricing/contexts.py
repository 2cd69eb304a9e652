"""Features of a draw as numbers: x = [1, ...] in the order of the rule's names. Allowed ones only, of fixed scales.

The user vector of the model is projected to fewer numbers by a random orthonormal map that its seed fixes for ever. Not
here: which features exist and which are refused (contracts.rules), what is learned of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import fsum, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.rules import Features
from pricing.normals import normals

Floats = NDArray[np.float64]

ROWS_AT_A_TIME = 64
"""Of a projection, so that the products of a batch stay in the cache."""
PROJECTION = 2
"""Purpose of the normals behind the map."""
COMPONENT_MAX = 4.0
"""No number of x is larger: bounds what one odd draw can teach."""
_CHANCE_MIN = 1e-4


class Seen(NamedTuple):
    """What is known of one draw when its turn comes."""

    list_price: int
    intent: int
    preference: float | None = None
    """r_ui in 0..1; None without a model."""
    vector: NDArray[np.float32] | Floats | None = None
    """(v,): the user's; None without a model."""


class Scene(NamedTuple):
    """n draws as a policy sees them."""

    x: Floats
    """(n, D)."""
    intents: NDArray[np.int64]
    """(n,)."""


def scene_of(features: Features | None, seen: Sequence[Seen]) -> Scene:
    """Return the features of each draw; x has no columns for a rule without features."""
    intents = np.array([each.intent for each in seen], dtype=np.int64)
    if features is None:
        return Scene(np.empty((len(seen), 0)), intents)
    x = np.zeros((len(seen), features.width))
    x[:, 0] = 1.0
    column = 1
    for name in features.names:
        if name == "vector":
            _fill_vectors(x[:, column : column + features.dims], features, seen)
            column += features.dims
        else:
            x[:, column] = [_SCALARS[name](each) for each in seen]
            column += 1
    np.minimum(x, COMPONENT_MAX, out=x)
    np.maximum(x, -COMPONENT_MAX, out=x)
    return Scene(x, intents)


def names_of(features: Features) -> tuple[str, ...]:
    """Return the name of every number in x, as contributions carry them: `base`, `vector_0`, ..."""
    names = ["base"]
    for name in features.names:
        names += [f"vector_{number}" for number in range(features.dims)] if name == "vector" else [name]
    return tuple(names)


def _preference(seen: Seen) -> float:
    """Return the logit of r_ui, 0 at 5 % and without a model, a half per unit of log-odds."""
    if seen.preference is None:
        return 0.0
    chance = min(max(seen.preference, _CHANCE_MIN), 1.0 - _CHANCE_MIN)
    return (log(chance / (1.0 - chance)) + 3.0) / 2.0


def _intent(seen: Seen) -> float:
    """Return the level of intent, 0 at level 2, one per two levels."""
    return (seen.intent - 2) / 2.0


def _price(seen: Seen) -> float:
    """Return the logarithm of list price, 0 at 100 major units of two digits, one per factor e^1.5."""
    return log(seen.list_price / 10_000.0) / 1.5


_SCALARS = {"preference": _preference, "intent": _intent, "price": _price}


def _fill_vectors(x: Floats, features: Features, seen: Sequence[Seen]) -> None:
    """Write the projection of every user vector that there is; others stay 0."""
    rows = [row for row, each in enumerate(seen) if each.vector is not None]
    if not rows:
        return
    vectors = np.array([seen[row].vector for row in rows], dtype=np.float64)
    directions = projection(features.seed, vectors.shape[1], features.dims)
    for at in range(0, len(rows), ROWS_AT_A_TIME):
        some = rows[at : at + ROWS_AT_A_TIME]
        x[some, : len(directions)] = np.add.reduce(vectors[at : at + ROWS_AT_A_TIME, None] * directions, -1)


@lru_cache(maxsize=16)
def projection(seed: int, width: int, dims: int) -> Floats:
    """Return min(dims, width) orthonormal directions, (., width) float64; read only.

    Gram-Schmidt, twice, with exactly rounded sums: no library's matrix routine has a say in it.
    """
    rows: list[list[float]] = []
    for start in normals(seed, PROJECTION, min(dims, width), width).tolist():
        row = start
        for earlier in [*rows, *rows]:
            along = fsum(a * b for a, b in zip(row, earlier, strict=True))
            row = [a - along * b for a, b in zip(row, earlier, strict=True)]
        length = sqrt(fsum(a * a for a in row))
        rows.append([a / length for a in row])
    table = np.array(rows)
    table.setflags(write=False)
    return table
