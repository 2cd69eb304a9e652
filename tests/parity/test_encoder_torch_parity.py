"""A step equals the recompute over the whole history: the ONNX graph against torch in float64, however the tokens come.

The network is random, with weights large enough that old tokens matter; a negative control shows that they do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export: pip install 'pricetide[model-export]'")
torch.set_num_threads(1)

from features.graph import open_session  # noqa: E402 - torch first, or there is nothing to test
from features.inputs import FEATURE_NAMES  # noqa: E402
from features.signals import SIGNAL_NAMES  # noqa: E402
from features.tokens import KINDS  # noqa: E402
from model_export.export import random_model, recompute  # noqa: E402
from model_export.network import DEFAULT  # noqa: E402
from tests.features.models import graph, model  # noqa: E402

TOLERANCE = 1e-5
USERS, TOKENS = 6, 3 * DEFAULT.layers * DEFAULT.window
FAR = 1_000_003


class Histories:
    """Random histories of a random model, what the recompute makes of them, and the exported graph to run them through."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        items = random_model([f"item-{number}" for number in range(400)], seed=7)
        self.model = replace(items, network=model(DEFAULT).network)
        self.session = open_session(graph(DEFAULT))
        self.rows = random.integers(0, 401, (USERS, TOKENS))
        self.kinds = random.integers(0, len(KINDS), (USERS, TOKENS))
        self.features = random.standard_normal((USERS, TOKENS, len(FEATURE_NAMES))).astype(np.float32)
        self.signals = random.standard_normal((USERS, TOKENS, len(SIGNAL_NAMES))).astype(np.float32)
        self.vectors, self.logits = self.recomputed(slice(None))

    def recomputed(self, tokens, position=0):
        return recompute(
            self.model.network,
            self.model.item_rows,
            self.rows[:, tokens],
            self.kinds[:, tokens],
            self.features[:, tokens],
            self.signals[:, tokens],
            position,
        )

    def empty(self):
        return DEFAULT.sizes.empty(USERS + 2)

    def run(self, slabs, slots, at, count, position=None):
        """Run `count[i]` tokens of user i from `at[i]` on, padded to the longest; return vectors, logits and the slabs."""
        users = np.arange(USERS)[:, None]
        columns = np.minimum(at[:, None] + np.arange(count.max()), TOKENS - 1)
        feed = {
            "rows": self.rows[users, columns],
            "kinds": self.kinds[users, columns],
            "features": self.features[users, columns],
            "signals": self.signals[users, columns],
            "position": at if position is None else position,
            "count": count,
            "slots": slots,
            "items": self.model.item_rows,
            **slabs,
        }
        vectors, logits, *written = self.session.run(["vectors", "logits", *(f"{name}_out" for name in slabs)], feed)
        return vectors, logits, dict(zip(slabs, written, strict=True))

    def stepped(self, tokens, start, first=0):
        """Step `tokens` tokens from column `first`, the first at position `start`, from empty rings."""
        slabs, slots, one = self.empty(), np.arange(USERS), np.ones(USERS, np.int64)
        out = []
        for step in range(tokens):
            at = np.full(USERS, first + step)
            vectors, logits, slabs = self.run(slabs, slots, at, one, at - first + start)
            out.append((vectors[:, 0], logits[:, 0]))
        return np.stack([vector for vector, _ in out], 1), np.stack([logit for _, logit in out], 1)

    def off(self, vectors, logits, at=slice(None)):
        return max(np.abs(vectors - self.vectors[:, at]).max(), np.abs(logits - self.logits[:, at]).max())


@pytest.fixture(scope="module")
def histories():
    return Histories()


def test_steps_of_one_equal_the_recompute_while_rings_fill_and_wrap(histories):
    assert histories.off(*histories.stepped(TOKENS, start=0)) <= TOLERANCE


def test_errors_do_not_grow_with_the_length_of_the_history(histories):
    vectors, _ = histories.stepped(TOKENS, start=0)
    error = np.abs(vectors - histories.vectors).max((0, 2))
    assert error[-64:].max() <= 3 * error[:64].max()


def test_positions_beyond_a_million_change_nothing(histories):
    vectors, logits = histories.stepped(TOKENS, start=FAR)
    known = slice(DEFAULT.reach, None)  # at such a position an empty ring stands for tokens that nobody has
    assert histories.off(vectors[:, known], logits[:, known], known) <= TOLERANCE


def test_the_reference_itself_is_the_same_at_any_position(histories):
    far, _ = histories.recomputed(slice(None), FAR)
    assert np.abs(far - histories.vectors).max() <= 1e-6  # transformers' norms round to float32 on their way


def test_ragged_bursts_of_one_to_eight_equal_the_recompute(histories):
    random = np.random.default_rng(3)
    slots = random.permutation(USERS + 2)[:USERS]
    slabs, at = histories.empty(), np.zeros(USERS, np.int64)
    seen = np.zeros((USERS, TOKENS), bool)
    worst = 0.0
    while (at < TOKENS).all():
        count = np.minimum(random.integers(1, 9, USERS), TOKENS - at)
        vectors, logits, slabs = histories.run(slabs, slots, at, count)
        for user, (start, length) in enumerate(zip(at, count, strict=True)):
            tokens = slice(start, start + length)
            seen[user, tokens] = True
            worst = max(worst, np.abs(vectors[user, :length] - histories.vectors[user, tokens]).max())
            worst = max(worst, np.abs(logits[user, :length] - histories.logits[user, tokens]).max())
        at = at + count
    assert seen.mean() > 0.8
    assert worst <= TOLERANCE


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 200])
def test_a_prefill_of_any_length_and_the_steps_after_it_equal_the_recompute(histories, tokens):
    slots, length = np.arange(USERS), np.full(USERS, tokens)
    vectors, logits, slabs = histories.run(histories.empty(), slots, np.zeros(USERS, np.int64), length)
    assert histories.off(vectors, logits, slice(tokens)) <= TOLERANCE
    for at in range(tokens, tokens + 70):
        one = np.ones(USERS, np.int64)
        vectors, logits, slabs = histories.run(slabs, slots, np.full(USERS, at), one)
        assert histories.off(vectors, logits, slice(at, at + 1)) <= TOLERANCE


def test_a_rebuild_from_the_last_127_tokens_at_their_true_positions_equals_the_recompute(histories):
    needed = DEFAULT.reach + 1
    assert needed == 127
    first = TOKENS - needed
    vectors, logits = histories.stepped(needed, start=first, first=first)
    assert histories.off(vectors[:, -1:], logits[:, -1:], slice(TOKENS - 1, TOKENS)) <= TOLERANCE


def test_encoding_only_the_last_window_again_is_another_function(histories):
    vectors, _ = histories.recomputed(slice(TOKENS - DEFAULT.window, None))
    assert np.abs(vectors[:, -1] - histories.vectors[:, -1]).max() > 1e-2


def test_a_ring_of_others_and_what_lies_in_masked_slots_have_no_weight_at_all(histories):
    slots, one, at = np.arange(USERS), np.ones(USERS, np.int64), np.zeros(USERS, np.int64)
    clean = histories.run(histories.empty(), slots, at, one)
    dirty = histories.empty()
    for slab in dirty.values():
        slab[:] = np.random.default_rng(1).standard_normal(slab.shape) * 100
    stained = histories.run(dirty, slots, at, one)
    assert np.array_equal(clean[0], stained[0])
    assert np.array_equal(clean[1], stained[1])


@pytest.mark.parametrize("count", [[1, 2, 1, 3, 1, 1], [1, 1, 1, 1, 1, 1]], ids=["bursts", "steps"])
def test_a_run_changes_the_slots_of_its_tokens_and_the_scratch_row_alone(histories, count):
    slots = np.array([4, 2, 0, 5, 1, 7])
    before = histories.empty()
    after = histories.run(before, slots, np.full(USERS, 70), np.array(count))[2]
    for name, slab in after.items():
        places = slab.shape[1]
        expected = {(slot, (70 + k) % places) for slot, length in zip(slots, count, strict=True) for k in range(length)}
        changed = (slab != before[name]).reshape(len(slab), places, -1).any(-1)
        assert {(row, slot) for row, slot in np.argwhere(changed).tolist() if row != len(slab) - 1} == expected


def test_a_step_alone_equals_a_step_in_company(histories):
    slots, one = np.arange(USERS), np.ones(USERS, np.int64)
    slabs = histories.run(histories.empty(), slots, np.zeros(USERS, np.int64), np.full(USERS, 100))[2]
    together = histories.run(slabs, slots, np.full(USERS, 100), one)[0]
    for user in range(USERS):
        feed = {
            "rows": histories.rows[user : user + 1, 100:101],
            "kinds": histories.kinds[user : user + 1, 100:101],
            "features": histories.features[user : user + 1, 100:101],
            "signals": histories.signals[user : user + 1, 100:101],
            "position": np.array([100]),
            "count": np.array([1]),
            "slots": np.array([user]),
            "items": histories.model.item_rows,
            **slabs,
        }
        alone = histories.session.run(["vectors"], feed)[0]
        assert np.abs(alone[0] - together[user]).max() <= 1e-6
