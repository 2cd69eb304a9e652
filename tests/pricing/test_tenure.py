"""pricing.tenure: whether loyal customers pay more, by a test that is checked against a regression written out."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from contracts.decisions import Decision
from pricing import tenure
from pricing.tenure import TenureTest, TenureWatch, trend
from tests.pricing.shop import Shop

DAY = 86_400_000
TEST = TenureTest()


def a_draw() -> Decision:
    shop = Shop()
    return shop.one(shop.view())


DRAW = a_draw()


def draw(user: str, sequence: int, price: int, day: float = 0.5, **more) -> Decision:
    return replace(DRAW, user=user, sequence=sequence, price=price, event_time_ms=int(day * DAY), **more)


def verdicts(decisions, test=TEST):
    watch = TenureWatch(test)
    for one in decisions:
        watch.add(one)
    return list(watch.ended())


def crowd(seed: int, rise: int, users: int = 300) -> list[Decision]:
    """Shoppers of every tenure, at 9,000 give or take 700, and `rise` more per band."""
    dice = random.Random(seed)
    out = []
    for n in range(users):
        band = n % 4
        price = 9_000 + rise * band + dice.choice([-700, 0, 700])
        out.append(draw(f"user {n}", 10**band, price))
    return out


def test_loyal_customers_who_pay_more_ring_the_alarm():
    (verdict,) = verdicts(crowd(1, rise=400))
    assert verdict.alarm
    assert [band.first for band in verdict.bands] == [1, 10, 100, 1_000]
    assert [band.users for band in verdict.bands] == [75] * 4
    assert verdict.rise_permille == pytest.approx(120, abs=30)
    assert "price rises with tenure: +1" in verdict.sentence


@pytest.mark.parametrize("rise", [0, -250])
def test_prices_that_do_not_rise_with_tenure_ring_none(rise):
    (verdict,) = verdicts(crowd(2, rise))
    assert not verdict.alarm
    assert "does not rise beyond noise" in verdict.sentence


def test_false_alarms_are_about_as_rare_as_stated():
    test = replace(TEST, alpha=0.1, rise_min_permille=0.0)
    alarms = sum(verdicts(crowd(seed, rise=0, users=160), test)[0].alarm for seed in range(300))
    assert 12 <= alarms <= 50  # 30 expected, standard deviation 5.2


def test_a_sure_rise_that_is_too_small_to_matter_rings_none():
    (verdict,) = verdicts([draw(f"u{n}", 1 if n % 2 else 20, 9_000 if n % 2 else 9_010) for n in range(200)])
    assert verdict.rise_permille == pytest.approx(1.0)
    assert verdict.z == float("inf")
    assert not verdict.alarm


def test_a_sure_rise_of_just_what_matters_rings_the_alarm():
    (verdict,) = verdicts([draw(f"u{n}", 1 if n % 2 else 20, 9_000 if n % 2 else 9_050) for n in range(200)])
    assert verdict.rise_permille == TEST.rise_min_permille
    assert verdict.alarm


def test_users_beyond_the_bound_of_a_period_do_not_count(monkeypatch):
    monkeypatch.setattr(tenure, "USERS_MAX", 3)
    (verdict,) = verdicts([draw(f"u{n}", 1, 9_000) for n in range(5)])
    assert [band.users for band in verdict.bands] == [3]


def test_the_trend_is_that_of_least_squares_with_whites_errors():
    dice = np.random.default_rng(5)
    x = dice.integers(0, 4, 400)
    y = dice.integers(700_000, 1_000_000, 400) + 9_000 * x
    groups = [
        (band, int((x == band).sum()), int(y[x == band].sum()), int((y[x == band] ** 2).sum())) for band in range(4)
    ]
    design = np.column_stack([np.ones(400), x])
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    residual = y - design @ beta
    covariance = inverse @ (design.T * residual**2) @ design @ inverse
    rise, z = trend(groups)
    assert rise == pytest.approx(3 * beta[1], rel=1e-9)
    assert z == pytest.approx(beta[1] / np.sqrt(covariance[1, 1]), rel=1e-9)


def test_a_trend_without_any_spread_or_rise_is_no_trend():
    assert trend([(0, 5, 500, 50_000), (1, 5, 500, 50_000)]) == (0.0, 0.0)


def test_a_user_counts_once_a_period_and_what_nobody_chose_never():
    first, again = draw("ann", 5, 8_500), draw("ann", 50, 10_000)
    forced, out = draw("bob", 5, 10_000, forced=True), draw("cid", 5, 10_000, held_out=True)
    held, tomorrow = draw("dan", 5, 10_000, status="held"), draw("ann", 60, 9_000, day=1.5)
    today, next_day = verdicts([first, again, forced, out, held, tomorrow])
    assert [(band.first, band.users, band.mean_permille) for band in today.bands] == [(1, 1, 850.0)]
    assert [(band.first, band.users, band.mean_permille) for band in next_day.bands] == [(10, 1, 900.0)]
    assert (today.rise_permille, today.z, today.alarm) == (None, None, False)
    assert "too few users" in today.sentence


def test_a_period_is_judged_once_when_it_is_over_and_takes_nothing_afterwards():
    watch = TenureWatch(TEST)
    watch.add(draw("ann", 5, 8_500))
    assert list(watch.ended(DAY - 1)) == []
    assert len(list(watch.ended(DAY))) == 1
    watch.add(draw("bob", 5, 8_500))
    assert list(watch.ended()) == []


@pytest.mark.parametrize("bands", [[], [10, 10], [100, 10]])
def test_bands_ascend(bands):
    with pytest.raises(msgspec.ValidationError, match="bands must name at least one event count, ascending"):
        msgspec.convert({"bands": bands}, TenureTest)
