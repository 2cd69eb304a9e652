"""pricing.review: recorded decisions against the limits of the guard, all at once."""

from __future__ import annotations

from msgspec.structs import replace

from contracts.decisions import Applied
from pricing.price_watch import Limits
from pricing.review import Guarded, review
from pricing.tenure import TenureTest
from tests.pricing.shop import Shop
from tests.pricing.test_tenure import crowd

GUARDED = Guarded(prices=Limits(draws_min=50))


def test_prices_that_rise_with_tenure_are_an_alarm_though_every_window_keeps_to_its_limits():
    found = review(crowd(1, rise=400), GUARDED)
    assert found.alarm and found.breaches == ()
    assert [verdict.alarm for verdict in found.tenure] == [True]
    assert [window.draws for window in found.windows] == [300]


def test_low_prices_are_an_alarm_though_tenure_changes_nothing():
    cheap = [replace(one, price=7_000) for one in crowd(2, rise=0)]
    found = review(cheap, GUARDED)
    assert found.alarm and not any(verdict.alarm for verdict in found.tenure)
    assert {breach.what for breach in found.breaches} == {"mean_min_permille"}


def test_few_draws_and_records_without_a_price_are_no_alarm():
    shop = Shop()
    applied = shop.feed(shop.consent(True))
    assert isinstance(applied[0], Applied)
    few = [replace(one, price=7_000) for one in crowd(2, rise=0, users=40)]
    found = review([*applied, *few], replace(GUARDED, tenure=TenureTest(users_min=30)))
    assert not found.alarm and found.windows == ()
