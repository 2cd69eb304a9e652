"""Prices in words."""

from __future__ import annotations

import pytest

from pricing import offers, reasons
from pricing.reasons import explain, money
from tests.pricing.shop import Shop, item


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(12_999, "USD", "129.99 USD"), (5, "EUR", "0.05 EUR"), (980, "JPY", "980 JPY"), (1_005, "KWD", "1.005 KWD")],
)
def test_money_is_written_with_the_decimals_of_its_currency(minor, currency, text):
    assert money(minor, currency) == text


def test_a_draw_is_explained_by_the_session_and_the_rail():
    shop = Shop()
    sentence = (
        "85.00 USD, 15.0 % below the list price of 100.00 USD: this session's interest in the item calls for it, "
        "as far as the limit on a change from the last price allows."
    )
    assert explain(shop.one(shop.view())) == sentence
    assert explain(shop.prices()[0]) == sentence


def test_a_list_price_is_explained_by_what_prescribes_it():
    shop = Shop(consent_default=False)
    assert explain(shop.one(shop.view())) == (
        "100.00 USD, the list price: the shopper has not agreed to personal prices."
    )


def test_two_causes_are_joined():
    shop = Shop()
    shop.one(shop.view())
    shop.stock(item(floor=10_000, valid_from_ms=1))
    assert explain(shop.one(shop.view(1))) == (
        "100.00 USD, the list price: the earlier offer is no longer allowed, and the rails leave no other price."
    )


def test_every_reason_that_can_be_given_has_words():
    given = {code for codes in offers.PRESCRIBED.values() for code in codes}
    given |= {
        *reasons.HELD,
        *reasons.HELD_OUT,
        reasons.OFFER_ENDED,
        reasons.MODEL_MISMATCH,
        "list_price_policy",
        "session_intent",
        "fixed_price",
        "uniform",
        "demand",
        "value",
        "explored",
        "only_list_feasible",
    }
    assert given == set(reasons.WORDS)
