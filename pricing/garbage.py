"""Garbage collection in a process that applies batches: what is there stays, and is not walked again for every batch.

Batches leave hardly any cycles, and catalogue, model and code live as long as the process: with Python's own thresholds the
collector walks a million objects to find none, a fifth of a worker's CPU and a twentieth of a backtest's. What makes cycles
(exceptions, web requests) is still collected, seldom. So what comes and goes with the load must not be in one: items that a
shelf forgets are not (pricing.menus), and sessions are collected when they are given up (streams.shell). No byte depends on it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (500_000, 50, 1_000)
"""The youngest generation holds the batches in flight of some partitions whole: at a tenth, every batch was walked at its
fullest, 60 ms each and 7 % of a worker's CPU, to find a few objects."""


def collect_seldom() -> None:
    """From now on collect seldom, and never what is there already. For a process that has read what it will keep."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Collect seldom for the length of a block; afterwards as before. What somebody had frozen stays so."""
    before, ours = gc.get_threshold(), not gc.get_freeze_count()
    if ours:
        collect_seldom()
    else:
        gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        if ours:
            gc.freeze()  # what the block leaves goes to the oldest generation with the rest, unwalked
            gc.unfreeze()
        gc.set_threshold(*before)
