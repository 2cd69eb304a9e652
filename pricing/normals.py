"""Fixed tables of standard normals: the same numbers for the same seed, for ever. What sampling policies sample with.

Made from Philox (pricing.draws) with counters that no decision can have drawn: a table belongs to a policy version, and a
decision only picks the arm. Not here: anything that depends on a decision.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pricing.draws import philox4x32

_INVERSE = NormalDist().inv_cdf
_HALF = 2.0**-54
"""Half a step of 53 bits, so that no number is 0."""


@lru_cache(maxsize=64)
def normals(seed: int, purpose: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Return (rows, columns) float64 standard normals; read only.

    Args:
        seed: 0 <= seed < 2^64.
        purpose: 0 <= purpose < 2^32; tables for two purposes are independent.
        rows: any.
        columns: any; a table with more rows begins with the same ones.
    """
    count = rows * columns
    counters = np.zeros((4, count), dtype=np.uint64)
    counters[0] = np.arange(count, dtype=np.uint64)
    counters[2] = purpose
    counters[3] = 0x7072_6963  # a decision id has these 32 bits by chance once in 4e9, and then in another place only
    x = philox4x32(counters, (seed & 0xFFFFFFFF, seed >> 32))
    uniforms = ((x[0] >> np.uint64(5)) * 2.0**26 + (x[1] >> np.uint64(6))) * 2.0**-53 + _HALF
    table = np.array([_INVERSE(u) for u in uniforms.tolist()]).reshape(rows, columns)
    table.setflags(write=False)
    return table
