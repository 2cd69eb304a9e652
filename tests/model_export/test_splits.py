"""What is tested is never learned from: the splits by hand, and training data that the test's events have no say in."""

from __future__ import annotations

import shutil
from dataclasses import fields
from hashlib import blake2b
from operator import attrgetter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import BadInput
from contracts.log import open_log
from model_export.applied import catalogue_of
from model_export.dataset import read_dataset
from model_export.next_item import interactions_of
from model_export.observed import observe
from model_export.splits import fold_of, folds_in_time, folds_of_users

FOLDS = 3
NAME = attrgetter("name")
events = st.lists(
    st.tuples(st.sampled_from([f"u{n}" for n in range(12)]), st.sampled_from("abc"), st.integers(0, 10_000)),
    min_size=12,
    max_size=60,
    unique_by=lambda event: event[2],
)


@given(events)
def test_folds_in_time_follow_one_another_and_learn_from_all_that_lies_before(log) -> None:
    found, _ = interactions_of(log)
    splits = folds_in_time(found, FOLDS)
    times = sorted(at for _, _, at in log)
    tested = np.sum([split.tested for split in splits], axis=0)
    sizes = [int(split.tested.sum()) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(np.sort(found.time_ms[tested == 1]), times[len(log) - sum(sizes) :])
    assert tested.max() == 1
    for split, after in zip(splits, [*splits[1:], None], strict=True):
        assert found.time_ms[split.learned].max() < split.learned_until_ms <= found.time_ms[split.tested].min()
        assert np.array_equal(split.learned, found.time_ms < split.tested_from_ms)
        assert times[0] <= split.validation_ms < split.learned_until_ms
        assert after is None or split.tested_until_ms == after.tested_from_ms


@given(events)
def test_folds_of_users_test_every_user_once_and_learn_from_all_others(log) -> None:
    found, order = interactions_of(log)
    names = np.array([log[place][0] for place in order])
    home = {user: int.from_bytes(blake2b(user.encode(), digest_size=16).digest(), "big") % 2 for user in names}
    if len(set(home.values())) < 2:
        with pytest.raises(BadInput, match="none of them falls into fold"):
            folds_of_users(found, 2, 0.2)
        return
    for one, split in enumerate(folds_of_users(found, 2, 0.2)):
        assert split.tested.tolist() == [home[user] == one for user in names]
        assert np.array_equal(split.learned, ~split.tested)
        assert found.time_ms[split.learned].max() == split.learned_until_ms - 1
        assert found.time_ms[split.learned].min() <= split.validation_ms < split.learned_until_ms


@pytest.mark.parametrize(
    ("make", "folds", "sentence"),
    [
        (folds_in_time, 1, "--folds 1: a mean with a spread needs at least 2"),
        (lambda log, folds: folds_of_users(log, folds, 0.1), 0, "--folds 0: a mean with a spread needs at least 2"),
        (folds_in_time, 4, "4 folds in time need 5 parts of the log.*4 events, at 4 different times.*fewer --folds"),
        (
            lambda log, folds: folds_of_users(log, folds, 0.1),
            5,
            "The log has 3 users, and none of them falls into fold",
        ),
    ],
)
def test_folds_that_a_log_cannot_give_are_refused_with_a_sentence(make, folds, sentence) -> None:
    log, _ = interactions_of([("u", "a", 1), ("v", "b", 2), ("w", "c", 3), ("u", "b", 4)])
    with pytest.raises(BadInput, match=sentence):
        make(log, folds)


def test_as_many_folds_as_times_allow_are_given() -> None:
    log, _ = interactions_of([("u", "a", 1), ("v", "b", 2), ("w", "c", 3), ("u", "b", 4)])
    assert [int(split.tested.sum()) for split in folds_in_time(log, 3)] == [1, 1, 1]


def without(log, directory, is_tested):
    """Return a copy of `log` without the events that are tested."""
    shutil.copytree(log, directory)
    table = directory / "events.jsonl"
    lines = table.read_bytes().splitlines()
    rows = [line for line, row in zip(lines, map(msgspec.json.decode, lines), strict=True) if not is_tested(row)]
    assert 0 < len(rows) < len(lines)
    table.write_bytes(b"\n".join(rows) + b"\n")
    return open_log(directory, verify=False)


def renamed(codes):
    """Return codes by first sight: what code a user or an item has says nothing, which tokens share one does."""
    seen = {}
    return [seen.setdefault(code, len(seen)) for code in codes.tolist()]


def same(one, other):
    columns = [(name, getattr(one.tokens, name), getattr(other.tokens, name)) for name in map(NAME, fields(one.tokens))]
    arrays = [(renamed(a), renamed(b)) if name in ("user", "item") else (a, b) for name, a, b in columns]
    arrays += [(one.known_ms, other.known_ms), (one.items.categories, other.items.categories)]
    told = [(data.items.ids, data.items.titles, data.validation_ms, data.until_ms) for data in (one, other)]
    return told[0] == told[1] and all(np.array_equal(*pair) for pair in arrays)


def test_without_the_users_of_a_fold_its_training_data_are_the_same_bytes_and_a_planted_leak_shows(shop_log, tmp_path):
    log = open_log(shop_log)
    alone = without(shop_log, tmp_path / "log", lambda row: "user" in row and fold_of(row["user"], FOLDS) == 1)
    trained = read_dataset(log, None, 0.2, learns_from=lambda user: fold_of(user, FOLDS) != 1)
    assert same(trained, read_dataset(alone, None, 0.2))
    tested = next(user for user in map("shopper-{:05d}".format, range(60)) if fold_of(user, FOLDS) == 1)
    leaking = read_dataset(log, None, 0.2, learns_from=lambda user: fold_of(user, FOLDS) != 1 or user == tested)
    assert not same(leaking, trained)


def test_without_what_comes_later_a_folds_training_data_are_the_same_bytes_and_a_planted_leak_shows(shop_log, tmp_path):
    log = open_log(shop_log)
    split = folds_in_time(observe(log, catalogue_of(log)).interactions, FOLDS)[0]
    begin_ms = split.tested_from_ms  # its event stays, so that the log reaches up to where learning ends
    alone = without(shop_log, tmp_path / "log", lambda row: row.get("event_time_ms", 0) > begin_ms)
    trained = read_dataset(log, split.learned_until_ms, 0.2)
    assert len(trained.tokens) == split.learned.sum()
    assert same(trained, read_dataset(alone, split.learned_until_ms, 0.2))
    assert not same(read_dataset(log, split.learned_until_ms + 1, 0.2), trained)
