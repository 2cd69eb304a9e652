"""pricing.garbage: what a block changes of the collector ends with it, what others froze stays frozen, and neither the block nor
its end walks what the block leaves.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from pricing.garbage import collected_seldom


@pytest.fixture
def thawed() -> Iterator[None]:
    """The collector as in a process that nobody has touched; afterwards as the run of the tests has it."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    gc.unfreeze()
    if frozen:
        gc.freeze()


def test_a_block_freezes_what_there_is_and_thaws_it(thawed: None) -> None:
    before = gc.get_threshold()
    with collected_seldom():
        assert gc.get_threshold() > before
        assert gc.get_freeze_count() > 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_what_somebody_else_has_frozen_stays_so(thawed: None) -> None:
    gc.freeze()
    before = gc.get_threshold()
    with collected_seldom():
        assert gc.get_threshold() > before
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() > 0


def test_what_a_block_leaves_is_not_walked_again(thawed: None) -> None:
    left, walks = [], []
    with collected_seldom():
        left += [[number] for number in range(100_000)]
        gc.callbacks.append(lambda phase, about: walks.append((phase, about)))
    try:
        assert gc.get_count()[0] < 1_000  # else the next collection would be at once, of everything that is left
        assert not walks
    finally:
        gc.callbacks.pop()
    assert len(left) == 100_000
