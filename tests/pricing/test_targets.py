"""pricing.targets: what a policy would have drawn from at somebody else's draw. Over a log: tests/backtest/test_logged_draws.py."""

from __future__ import annotations

import pytest

from contracts.policies import Policy, Rails, UniformRandom
from pricing.targets import Targets, Wish
from tests.pricing.shop import POLICY, Shop, item


def wish_of(**rails) -> Wish:
    """Return what a policy that tries every price alike would have done at a draw between 8,500 and list price."""
    shop = Shop(item(cost=6_000), policy=POLICY)
    target = Policy(name="other", number=1, rule=UniformRandom(), rails=Rails(**{"charm_endings": ()} | rails))
    shop.feed(shop.view(), targets=Targets([target]))
    (draw,) = shop.last.targets
    assert draw.prices == (8_500, 9_000, 9_500, 10_000)
    return draw.wishes[0]


def test_a_target_with_the_same_rails_wishes_nothing_else():
    assert wish_of() == Wish((0.25,) * 4, 0.0)


def test_what_a_target_gives_to_prices_that_were_not_feasible_is_kept_apart():
    wish = wish_of(step_max_permille=200)  # 8,000, too
    assert wish.probabilities == pytest.approx((0.2,) * 4)
    assert wish.outside == pytest.approx(0.2)


def test_a_target_that_would_refuse_the_item_gives_nothing_to_any_of_its_prices():
    assert wish_of(margin_min_permille=900) == Wish((0.0,) * 4, 1.0)
