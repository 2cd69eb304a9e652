"""The full lattice: points and their nominal multipliers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.lattice import charm_drops, full_lattice, scaled


@pytest.mark.parametrize(("permille", "price"), [(1000, 3), (500, 2), (499, 1), (166, 0), (167, 1), (1500, 5)])
def test_a_share_of_the_list_price_is_rounded_half_up(permille, price):
    assert scaled(3, permille) == price


def test_each_multiplier_gives_its_price_and_the_charm_price_just_below():
    points = full_lattice(10_000, (850, 1000, 1100), charm_drops((99, 49)))
    assert dict(sorted(points.items())) == {
        8_499: 850,
        8_500: 850,
        9_999: 1000,
        10_000: 1000,
        10_999: 1100,
        11_000: 1100,
    }


def test_a_price_that_ends_well_is_its_own_charm_price():
    assert full_lattice(10_000, (1000,), charm_drops((0,))) == {10_000: 1000}


def test_without_endings_there_are_no_charm_points():
    assert full_lattice(10_000, (900, 1000), charm_drops(())) == {10_000: 1000, 9_000: 900}


def test_there_is_no_free_price():
    assert full_lattice(1, (0, 400, 1000), charm_drops((99,))) == {1: 1000}


def test_a_point_reached_twice_has_the_smallest_multiplier_and_list_price_has_1000():
    assert full_lattice(3, (800, 900, 1000, 1100, 1200), charm_drops(())) == {3: 1000, 2: 800, 4: 1200}


@given(st.integers(1, 10**10), st.sets(st.integers(0, 10_000), max_size=20), st.sets(st.integers(0, 99), max_size=5))
def test_every_point_is_a_positive_integer_with_a_reason(list_price, shares, endings):
    shares |= {1000}
    points = full_lattice(list_price, sorted(shares), charm_drops(tuple(sorted(endings))))
    assert points[list_price] == 1000
    for price, permille in points.items():
        raw = scaled(list_price, permille)
        assert type(price) is int
        assert price > 0
        assert price in {raw, list_price} or (raw - 100 < price < raw and price % 100 in endings)
