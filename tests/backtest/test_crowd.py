"""Simulated shoppers: what follows a look, in which order, at which price; and that a mind is made up once per draw."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.crowd import DECIDED_MS, REACT_MS, Crowd, Look
from contracts.prices import PriceUpdate

START = 1_700_000_000_000


def look(minute=0.0, luck=0.3, **more):
    given = {
        "user": "ann", "item": "lamp", "list_price": 1_000, "cost": 600, "session": "s", "luck": luck,
        "demand": lambda m: np.clip(1.2 - m, 0.0, 1.0), "at_ms": START + int(minute * 60_000),
    }  # fmt: skip
    return Look(**{**given, **more})


def told(at_ms, price=900, version=1, draw="d1", status="drawn"):
    return PriceUpdate(
        decision_id=f"id-{version}", user="ann", item="lamp", market="us", currency="USD", price=price, list_price=1_000,
        valid_from_ms=at_ms, valid_until_ms=None, version=version, reasons=(), status=status, draw_id=draw,
    )  # fmt: skip


def act_out(*looks, answers=(900,), draws=("d1",)):
    """Let everybody act; every view is answered with the next price and draw. Return the rows."""
    crowd, rows, views = Crowd(looks), [], 0
    while (now := crowd.next_ms()) is not None:
        for row in crowd.until(now + REACT_MS):
            rows.append(row)
            if row.type == "view":
                place = min(views, len(answers) - 1)
                status = "list" if draws[place] is None else "drawn"
                crowd.told(told(row.event_time_ms, answers[place], views + 1, draws[place], status))
                views += 1
    return crowd, rows


def acts(rows):
    return [row.action or row.type for row in rows]


def test_a_look_at_a_price_worth_it_ends_in_a_purchase_at_that_price_with_its_decision():
    crowd, rows = act_out(look(luck=0.29))  # the chance at 900 is 0.3
    assert acts(rows) == ["view", "seen", "add_to_cart", "purchase"]
    assert [row.price for row in rows] == [1_000, 900, 900, 900]
    assert [row.decision_id for row in rows] == [None, "id-1", "id-1", "id-1"]
    assert rows[-1].quantity == 1
    assert [row.event_time_ms - START for row in rows] == [0, 8_000, 40_000, 120_000]
    assert crowd.draws["d1"].seen


@pytest.mark.parametrize(
    ("luck", "more", "expected"),
    [
        (0.31, {}, ["view", "seen"]),
        (0.31, {"tempted": True}, ["view", "seen", "add_to_cart"]),
        (0.0, {"leaves": True}, ["view"]),
        (0.31, {"says": True}, ["consent", "view", "seen"]),
    ],
)
def test_what_follows_depends_on_luck_and_on_the_look(luck, more, expected):
    crowd, rows = act_out(look(luck=luck, **more))
    assert acts(rows) == expected
    assert crowd.draws["d1"].seen == ("seen" in expected)


def test_a_cheaper_price_is_never_bought_less():
    bought = [acts(act_out(look(luck=0.25), answers=(price,))[1])[-1] == "purchase" for price in range(1_200, 700, -25)]
    assert bought == sorted(bought)
    assert {True, False} == set(bought)


def test_a_mind_is_made_up_once_per_draw_and_anew_for_the_next_one():
    looks = [look(0, luck=0.5), look(10, luck=0.0), look(40, luck=0.0)]
    _, rows = act_out(*looks, answers=(900, 900, 900), draws=("d1", "d1", "d2"))
    assert acts(rows) == ["view", "seen", "view", "view", "seen", "add_to_cart", "purchase"]


def test_at_list_price_a_mind_stays_made_up_for_its_time():
    later = DECIDED_MS / 60_000 + 1
    _, rows = act_out(look(0, luck=0.5), look(5, luck=0.0), look(later, luck=0.0), answers=(1_000,), draws=(None,))
    assert acts(rows).count("view") == 3
    assert acts(rows).count("purchase") == 1
    assert rows[-1].event_time_ms > START + DECIDED_MS


def test_where_the_shop_was_told_no_price_it_shows_list_price_and_names_no_decision():
    crowd = Crowd([look(luck=0.1)])
    rows = []
    while (now := crowd.next_ms()) is not None:
        rows += crowd.until(now + REACT_MS)
    assert {row.price for row in rows} == {1_000}
    assert {row.decision_id for row in rows} == {None}
    assert crowd.draws == {}


def test_an_older_price_never_replaces_a_newer_one():
    crowd = Crowd([look(luck=0.0)])
    crowd.until(START + 1)
    crowd.told(told(START, 900, version=5))
    crowd.told(told(START, 700, version=4, draw="d0"))
    assert crowd.until(START + 8_001)[0].price == 900
    assert list(crowd.draws) == ["d1"]
