"""Items under a policy: which prices stay, which rails bind, and what the caches may not change."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import CatalogueItem
from contracts.decisions import TrailStep
from contracts.policies import BUILTIN, Policy, Rails, SessionIntent, UniformRandom
from pricing import menus
from pricing.menus import Basis, Menu, MenuBook, PricedItem
from pricing.rails import nearest_rail
from tests.pricing.shop import item

WIDE = {"band_low_permille": 1, "band_high_permille": 10_000, "step_max_permille": 10_000, "charm_endings": ()}
SHARES = (500, 600, 700, 800, 900, 1000, 1100, 1200)


def priced(one: CatalogueItem, may_raise: bool = True, **rails: object) -> PricedItem:
    policy = Policy(name="p", number=1, rule=SessionIntent(), rails=Rails(**{**WIDE, "multipliers": SHARES, **rails}))
    return MenuBook(policy).priced(1, one, may_raise)


BOUNDS = [
    ({"floor": 700}, {}, TrailStep("floor", 700, None, 2)),
    ({"cost": 555}, {"margin_min_permille": 80}, TrailStep("margin", 600, None, 1)),  # 599.4, rounded up
    ({"map_price": 801}, {}, TrailStep("map", 801, None, 4)),
    ({"ceiling": 1_100}, {}, TrailStep("ceiling", None, 1_100, 1)),
    ({}, {"band_low_permille": 700, "band_high_permille": 1_100}, TrailStep("band", 700, 1_100, 3)),
    ({}, {"step_max_permille": 200}, TrailStep("step", 800, 1_200, 3)),
]


@pytest.mark.parametrize(("bounds", "rails", "step"), BOUNDS)
def test_each_rail_removes_what_lies_outside_it_and_says_so(bounds, rails, step):
    menu = priced(item(list_price=1_000, **bounds), **rails).menu(1_000)
    assert menu.trail.steps == (step,)
    assert all((step.low or 0) <= price <= (step.high or 9_999) for price in menu.prices)
    assert len(menu.prices) == len(SHARES) - step.removed


def test_every_number_below_one_falls_on_a_price_whatever_the_probabilities_sum_to():
    """The trap: ten times a tenth is less than one, and a number between the two would fall on no price."""
    tenths = tuple(range(100, 1_100, 100))
    policy = Policy(name="p", number=1, rule=UniformRandom(), rails=Rails(**{**WIDE, "multipliers": tenths}))
    chances = MenuBook(policy).priced(1, item(list_price=1_000), may_raise=True).menu(1_000).chances(0)
    total = 0.0
    for probability in chances.probabilities:
        total += probability
    assert total < 1.0
    assert chances.cumulative[-1] == 1.0


def test_discount_only_removes_what_lies_above_list():
    menu = priced(item(list_price=1_000), may_raise=False).menu(1_000)
    assert menu.trail.steps == (TrailStep("discount_only", None, 1_000, 2),)


def test_charm_endings_leave_the_list_price_and_the_prices_that_end_so():
    menu = priced(item(list_price=1_000), charm_endings=(99,), multipliers=(900, 1000)).menu(1_000)
    assert menu.prices == (899, 999, 1_000)
    assert menu.trail.steps == (TrailStep("charm", None, None, 1),)


def test_a_rail_that_removes_nothing_is_not_in_the_trail():
    assert priced(item(list_price=1_000, floor=500, ceiling=1_200, map_price=1)).menu(1_000).trail.steps == ()


def test_two_rails_count_the_points_that_both_remove():
    steps = priced(item(list_price=1_000, floor=700, map_price=701)).menu(1_000).trail.steps
    assert [(step.rail, step.removed) for step in steps] == [("floor", 2), ("map", 3)]


def test_the_step_limit_is_around_the_last_price_and_never_excludes_the_list_price():
    menu = priced(item(list_price=1_000), step_max_permille=100).menu(600)
    assert menu.prices == (500, 600, 700, 1_000)
    assert menu.trail.steps == (TrailStep("step", 500, 700, 4),)


def test_a_last_price_of_other_times_leaves_at_least_the_list_price():
    assert priced(item(list_price=1_000), step_max_permille=100).menu(99_999).prices == (1_000,)


@given(
    st.integers(1, 100_000),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.integers(0, 200_000),
    st.sampled_from([(), (99,), (99, 95, 49)]),
)
def test_the_list_price_is_always_feasible(list_price, floor, step, last, endings):
    one = item(list_price=list_price, floor=max(1, list_price * floor // 1000))
    rails = {"step_max_permille": step, "band_low_permille": 900, "band_high_permille": 1000, "charm_endings": endings}
    assert list_price in priced(one, **rails).menu(last).prices


@pytest.mark.parametrize(
    ("chosen", "rail"), [(850, None), (950, "step"), (920, "step"), (800, "ceiling"), (849, "ceiling")]
)
def test_the_binding_rule_is_the_tightest_bound_between_target_and_choice(chosen, rail):
    trail = (
        TrailStep("floor", 900, None, 1),
        TrailStep("ceiling", None, 849, 1),
        TrailStep("charm", None, None, 1),
        TrailStep("step", 920, 1_000, 1),
    )
    assert nearest_rail(trail, 850, chosen) == rail


def test_where_no_bound_lies_between_the_endings_did_it():
    assert nearest_rail((TrailStep("charm", None, None, 9), TrailStep("floor", 100, None, 1)), 850, 849) == "charm"


def test_an_item_is_judged_once_per_version_and_kind_of_market():
    book = MenuBook(Policy(name="p", number=1, rule=SessionIntent(), rails=Rails(raise_markets=("BR",))))
    one = item()
    assert book.of(5, one, None) is book.of(5, one, "US")
    assert book.of(5, one, None) is not book.of(5, one, "BR")
    assert book.of(6, one, None) is not book.of(5, one, None)


def test_the_same_version_of_another_catalogue_is_judged_anew():
    book = MenuBook(BUILTIN)
    book.of(5, item(), None)
    assert book.of(5, item("rug", 500), None).list_price == 500


def test_items_of_one_list_price_share_its_lattice_and_keep_their_own_bounds():
    book = MenuBook(BUILTIN)
    bare, bounded = book.of(1, item("rug"), None), book.of(2, item("mat", floor=9_000), None)
    assert bare.list_price == bounded.list_price
    assert bare.lattice is bounded.lattice
    assert min(bounded.menu(10_000).prices) >= 9_000 > min(bare.menu(10_000).prices)


def test_caches_have_a_bound(monkeypatch):
    monkeypatch.setattr(menus, "ITEMS_MAX", 3)
    monkeypatch.setattr(menus, "LISTED_MAX", 3)
    monkeypatch.setattr(menus, "MENUS_MAX", 3)
    book = MenuBook(BUILTIN)
    first = book.of(0, item(), None)
    for version in range(1, 10):
        book.of(version, item(), None)
    assert len(book._items[False]) == 3
    for list_price in range(100, 110):
        book.priced(0, item(list_price=list_price), may_raise=False)
    assert len(book._listed) <= 3
    known = first.menu(1)
    for last in range(2, 10):
        first.menu(last)
    assert len(first._menus) <= 3
    assert first.menu(1).prices == known.prices


def test_an_item_that_is_forgotten_goes_at_once_with_its_menus(monkeypatch):
    """A worker keeps the garbage collector at rest (pricing.garbage): in a circle, forgotten items would fill its memory."""
    monkeypatch.setattr(menus, "ITEMS_MAX", 2)
    kinds = (PricedItem, Basis, Menu)
    gc.collect()
    gc.disable()
    try:
        before = sum(type(one) in kinds for one in gc.get_objects())
        book = MenuBook(BUILTIN)
        for version in range(100):
            menu = book.of(version, item(), None).menu(900)
            menu.chances(1)
            menu.pinned("purchase", 1_000)
        del menu
        assert 0 < sum(type(one) in kinds for one in gc.get_objects()) - before <= 2 * len(kinds)
    finally:
        gc.enable()
