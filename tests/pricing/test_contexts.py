"""Features as numbers: their order and scales, a projection that never changes, bounds, and no company's influence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.rules import Features
from pricing.contexts import COMPONENT_MAX, Seen, names_of, projection, scene_of
from pricing.normals import normals


def test_features_stand_in_the_order_of_their_names():
    features = Features(names=("price", "vector", "intent", "preference"), dims=2)
    vector = np.array([3.0, 0.0, 0.0, 4.0], dtype=np.float32)
    scene = scene_of(features, [Seen(10_000, 4, 0.5, vector), Seen(20_000, 0)])
    assert names_of(features) == ("base", "price", "vector_0", "vector_1", "intent", "preference")
    directions = projection(0, 4, 2)
    assert scene.x[0].tolist() == pytest.approx([1.0, 0.0, *(directions @ vector), 1.0, 1.5])
    assert scene.x[1].tolist() == pytest.approx([1.0, np.log(2.0) / 1.5, 0.0, 0.0, -1.0, 0.0])
    assert scene.intents.tolist() == [4, 0]


@pytest.mark.parametrize(("preference", "logit"), [(0.0, -9.2102), (1e-9, -9.2102), (1e-3, -6.9068), (1.0, 9.2102)])
def test_a_propensity_is_a_logit_of_no_less_than_one_in_ten_thousand(preference, logit):
    x = scene_of(Features(names=("preference",)), [Seen(10_000, 2, preference)]).x[0]
    assert x[1] == pytest.approx(min((logit + 3.0) / 2.0, COMPONENT_MAX), abs=1e-4)


def test_a_rule_without_features_sees_the_intent_alone():
    scene = scene_of(None, [Seen(10_000, 3)])
    assert scene.x.shape == (1, 0)
    assert scene.intents.tolist() == [3]


def test_no_number_is_large():
    loud = Seen(10**12, 7, 1.0 - 1e-12, np.full(8, 1e6, dtype=np.float32))
    assert np.abs(scene_of(Features(), [loud]).x).max() == COMPONENT_MAX


@pytest.mark.parametrize(("width", "dims"), [(64, 16), (16, 16), (8, 16), (5, 1)])
def test_the_projection_is_orthonormal(width, dims):
    rows = projection(3, width, dims)
    assert rows.shape == (min(dims, width), width)
    assert rows @ rows.T == pytest.approx(np.eye(len(rows)), abs=1e-14)


def test_the_projection_is_the_same_for_ever():
    # of seed 0; a change would give every stored posterior another meaning
    assert [value.hex() for value in projection(0, 4, 1)[0].tolist()] == PROJECTION_OF_SEED_0


def test_normals_are_normal_and_a_longer_table_begins_alike():
    numbers = normals(11, 1, 500, 200)
    assert (normals(11, 1, 20, 200) == numbers[:20]).all()
    assert abs(numbers.mean()) < 4.0 / np.sqrt(100_000)
    assert abs(numbers.var() - 1.0) < 4.0 * np.sqrt(2.0 / 100_000)
    assert abs((np.abs(numbers) < 1.0).mean() - 0.6827) < 0.006
    assert (normals(11, 2, 20, 200) != numbers[:20]).all()


@given(st.integers(1, 300), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_equal_draws_have_equal_bits_in_any_company(count, seed):
    random = np.random.default_rng(seed)
    seen = [
        Seen(int(p), int(i), float(r), v)
        for p, i, r, v in zip(
            random.integers(1, 10**6, count), random.integers(0, 8, count), random.random(count),
            random.normal(0, 1, (count, 33)).astype(np.float32), strict=True,
        )
    ]  # fmt: skip
    together = scene_of(Features(), seen).x
    assert all((scene_of(Features(), [each]).x[0] == row).all() for each, row in zip(seen, together, strict=True))


PROJECTION_OF_SEED_0 = [
    "0x1.1b4763be9b4c2p-3",
    "0x1.6229756712ad5p-2",
    "-0x1.1b5a4d259c289p-2",
    "-0x1.c58a49cd48ce5p-1",
]
