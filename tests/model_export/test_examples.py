"""What is learned from tokens: targets and labels as of a time, in batches that lose nobody."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export")
torch.set_num_threads(1)

from contracts.log import open_log  # noqa: E402 - torch first, or there is nothing to test
from model_export.dataset import read_dataset  # noqa: E402
from model_export.examples import batches, examples_of  # noqa: E402


@pytest.fixture(scope="module")
def dataset(shop_log):
    return read_dataset(open_log(shop_log), validation=0.3)


@pytest.fixture(scope="module")
def examples(dataset):
    return examples_of(dataset, dataset.validation_ms)


def test_a_target_is_the_item_of_the_users_next_event(dataset, examples):
    read = dataset.tokens
    for place in range(len(read) - 1):
        continues = read.user[place] == read.user[place + 1]
        assert examples.target[place] == (read.row[place + 1] if continues else 0)
        if continues:
            assert examples.repeated[place] == (read.row[place] == read.row[place + 1])


def test_learning_ends_where_validation_begins(dataset, examples):
    times = dataset.tokens.time_ms
    following = np.append(times[1:], 0)
    assert examples.follows.any()
    assert (following[examples.follows] < dataset.validation_ms).all()
    assert (following[examples.later] >= dataset.validation_ms).all()
    assert not (examples.follows & examples.later).any()
    assert not (examples.judged & examples.judged_later).any()


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_hold_every_wanted_token_once_from_the_users_first_on(examples, seed):
    random = np.random.default_rng(seed) if seed else None
    seen = np.zeros(len(examples.row), int)
    for batch in batches(examples, examples.follows, 64, random):
        token, valid = batch.token.numpy(), batch.valid.numpy()
        assert np.isin(token[:, 0], examples.first[:-1]).all()
        assert (np.diff(token, axis=1)[valid[:, 1:]] == 1).all()
        assert valid.size <= 64 or len(valid) == 1
        np.add.at(seen, token[valid], 1)
    assert (seen[examples.follows] == 1).all()
    assert seen.max() == 1


def test_batches_of_one_seed_are_the_same_and_of_another_are_not(examples):
    def drawn(seed):
        return [batch.token.tolist() for batch in batches(examples, examples.follows, 64, np.random.default_rng(seed))]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_nothing_wanted_gives_no_batch(examples):
    assert not list(batches(examples, np.zeros(len(examples.row), bool), 64, None))
