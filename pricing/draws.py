"""Draws: one uniform number per decision, from the counter-based generator Philox4x32-10.

The key is the policy's seed, the counter the decision id: the same decision draws the same number in any batch, process
or order. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; checked against the
known answers of Random123. Not numpy.random.Philox, which is the 4x64 variant and keeps a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counters: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Return the 10-round Philox of each counter.

    Args:
        counters: (4, n) uint64, words below 2^32.
        key: two words below 2^32.

    Returns:
        (4, n) uint64, words below 2^32.
    """
    even, odd = counters[0::2], counters[1::2]
    k0, k1 = key
    for _ in range(_ROUNDS):
        products = even * _MULTIPLIERS
        keys = np.array([[k0], [k1]], dtype=np.uint64)
        # high words change places, low words follow their lane: x0' = hi1 ^ x1 ^ k0, x2' = hi0 ^ x3 ^ k1
        even, odd = (products >> _32)[::-1] ^ odd ^ keys, (products & _LOW)[::-1]
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack((even[0], odd[0], even[1], odd[1]))


def uniforms(seed: int, decision_ids: Sequence[str]) -> list[float]:
    """Return one number in [0, 1), with 53 random bits, per decision id.

    Args:
        seed: of the policy, 0 <= seed < 2^64.
        decision_ids: 32 hex characters each.
    """
    if not decision_ids:
        return []
    words = np.frombuffer(bytes.fromhex("".join(decision_ids)), dtype=">u4").reshape(-1, 4).T.astype(np.uint64)
    x = philox4x32(words, (seed & 0xFFFFFFFF, seed >> 32))
    numbers = ((x[0] >> np.uint64(5)) * 2.0**26 + (x[1] >> np.uint64(6))) * 2.0**-53
    return numbers.tolist()  # type: ignore[no-any-return]  # numpy types tolist as Any


def cumulated(chances: Sequence[float]) -> tuple[float, ...]:
    """Return the running sums of `chances`; a number u in [0, 1) draws the first arm whose sum is above u.

    Whatever the rounding, that is an arm of positive probability: the last one of those ends at 1.

    Args:
        chances: of each arm, >= 0; their sum is 1 but for rounding.
    """
    if chances[-1] > 0.0:
        return (*accumulate(chances[:-1]), 1.0)
    last = max(arm for arm, chance in enumerate(chances) if chance > 0.0)
    return (*accumulate(chances[:last]), *[1.0] * (len(chances) - last))
