"""The checker of the laws finds what it is there to find: each lie about a true decision is caught."""

from __future__ import annotations

import json

import pytest

from tests.pricing.independent_checker import NotExplained, Terms, check
from tests.pricing.shop import Shop, item

TERMS = Terms(
    list_price=10_000,
    multipliers=(650, 700, 750, 800, 850, 900, 950, 1000, 1050, 1100, 1150, 1200),
    endings=(),
    band=(750, 1100),
    margin=80,
    step=150,
    may_raise=False,
    floor=7_200,
)
LIES = [
    {"price": 7_000},
    {"price": 8_000},
    {"price": 10_500},
    {"price": 8_499},
    {"price": 8_500.0},
    {"lattice": [8_500, 10_000]},
    {"lattice": [6_500.0, 7_000, 7_500, 8_000, 8_500, 9_000, 9_500, 10_000, 10_500, 11_000, 11_500, 12_000]},
    {"forced": True},
    {"propensity": 0.0},
    {"list_price": 9_999},
    {"trail": []},
]


def decision() -> dict:
    shop = Shop(item(floor=7_200))
    shop.one(shop.view())
    return json.loads(shop.last.decisions[0][1])


def test_the_truth_passes():
    assert check(json.dumps(decision()).encode(), TERMS, 10_000)["price"] == 8_500


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_caught(lie):
    with pytest.raises(NotExplained):
        check(json.dumps({**decision(), **lie}).encode(), TERMS, 10_000)


@pytest.mark.parametrize("place", range(4))
def test_a_step_left_out_of_the_trail_or_miscounted_is_caught(place):
    true = decision()
    assert len(true["trail"]) == 4
    for trail in (true["trail"][:place] + true["trail"][place + 1 :], [list(step) for step in true["trail"]]):
        if len(trail) == 4:
            trail[place][3] += 1
        with pytest.raises(NotExplained):
            check(json.dumps({**true, "trail": trail}).encode(), TERMS, 10_000)


def test_another_last_price_is_noticed():
    with pytest.raises(NotExplained):
        check(json.dumps(decision()).encode(), TERMS, 9_000)
