"""Training reads tokens as a worker makes them, and nothing from after the end it was given."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from backtest.perturb import Perturbation, perturb_log
from contracts.errors import BadInput
from contracts.log import open_log
from features.inputs import UNKNOWN_ITEM, token_features
from features.tokens import KINDS, tokens
from model_export.applied import applied_events, catalogue_of
from model_export.dataset import FALLBACK_TEXT, labelled, log_digest, read_dataset, text_vectors
from model_export.propensity import PURCHASE_WITHIN_MS


@pytest.fixture(scope="module")
def perturbed(shop_log, tmp_path_factory):
    """The log with late and repeated events."""
    directory = tmp_path_factory.mktemp("perturbed") / "log"
    perturb_log(shop_log, directory, 3, Perturbation(late=0.1, duplicates=0.1, consents=0.02, catalogue=0.3), "jsonl")
    return open_log(directory)


def of_users(dataset):
    out = defaultdict(list)
    read = dataset.tokens
    for user, row, kind, features in zip(read.user, read.row, read.kind, read.features, strict=True):
        out[int(user)].append((dataset.items.ids[row - 1], int(kind), features.tolist()))
    return sorted(out.values(), key=repr)


def histories(log):
    """Return per user what the stored token histories of the fold say, tokens long forgotten left out."""
    last = {}
    for applied in applied_events(log, catalogue_of(log)):
        last[applied.event.user] = (applied.state.history, applied.position)
    out = []
    for history, position in last.values():
        assert position < 128, "the test's users must not forget"
        before, read = None, []
        for token in tokens(history):
            features = token_features(token.price, token.list_price, token.event_time_ms, before)
            read.append((token.item, KINDS.index(token.kind), np.float32(features).tolist()))
            before = token.event_time_ms
        out.append(read)
    return sorted(out, key=repr)


def test_tokens_are_those_of_the_histories_that_serving_stores_late_and_repeated_events_included(perturbed):
    assert of_users(read_dataset(perturbed)) == histories(perturbed)


def test_nothing_from_after_the_end_is_read(perturbed):
    whole = read_dataset(perturbed)
    until = int(np.median(whole.tokens.time_ms))
    part = read_dataset(perturbed, until)
    assert part.tokens.time_ms.max() < until
    assert len(part.tokens) == (whole.tokens.time_ms < until).sum()
    assert not part.tokens.bought[part.tokens.time_ms + 1 >= until].any()
    assert set(part.items.ids) <= set(whole.items.ids)


def test_an_item_first_met_in_the_validation_slice_is_not_known_before_it(shop_log, tmp_path):
    dataset = read_dataset(open_log(shop_log), validation=0.2)
    assert dataset.known_ms[UNKNOWN_ITEM] > dataset.until_ms
    assert (dataset.known_ms[1:] == 0).all()  # the shop's whole catalogue is in force from the start


def test_purchases_are_no_examples_and_windows_that_are_not_over_are_none_either(shop_log):
    dataset = read_dataset(open_log(shop_log))
    read = dataset.tokens
    judged = labelled(read, 0, dataset.until_ms)
    assert not judged[read.kind == KINDS.index("purchase")].any()
    assert read.time_ms[judged].max() + PURCHASE_WITHIN_MS <= dataset.until_ms
    assert 0 < read.bought[judged].mean() < 0.5


def test_a_log_without_a_validation_slice_is_refused_with_what_to_do(shop_log):
    log = open_log(shop_log)
    with pytest.raises(BadInput, match="use a longer log, a later --until"):
        read_dataset(log, log.manifest.first_ms + 1)


def test_hashed_titles_are_unit_vectors_and_alike_where_titles_are(shop_log):
    items = read_dataset(open_log(shop_log)).items
    vectors, name = text_vectors(items, None)
    assert name == FALLBACK_TEXT
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    same = [place for place, title in enumerate(items.titles) if title == items.titles[0]]
    other = next(place for place, title in enumerate(items.titles) if title.split()[1:] != items.titles[0].split()[1:])
    assert np.allclose(vectors[same] @ vectors[0], 1, atol=1e-5)
    assert vectors[other] @ vectors[0] < 0.9


def test_the_digest_of_a_log_names_its_content(shop_log, perturbed):
    assert log_digest(open_log(shop_log)) == log_digest(open_log(shop_log))
    assert log_digest(open_log(shop_log)) != log_digest(perturbed)
