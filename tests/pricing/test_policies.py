"""Policies: probabilities that sum to one, and intent that only this session can change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.policies import ListPrice, SessionIntent, UniformRandom
from features.state import SessionItem, UserState
from pricing.policies import INTENT_MAX, intent_level, nearest_at_or_below, probabilities, target_price

prices = st.sets(st.integers(1, 100_000), min_size=1, max_size=60).map(sorted)
levels = st.integers(0, INTENT_MAX + 3)
rules = st.builds(SessionIntent, explore=st.floats(0, 1)) | st.just(ListPrice())
counts = st.integers(0, 5)
sessions = st.builds(SessionItem, counts, counts, counts, st.integers(0, 120_000))


@given(rules, prices, levels, st.integers(1, 100_000))
def test_probabilities_are_one_per_price_and_sum_to_one(rule, feasible, intent, list_price):
    chances = probabilities(rule, feasible, list_price, intent)
    assert len(chances) == len(feasible)
    assert min(chances) >= 0.0
    assert sum(chances) == pytest.approx(1.0, abs=1e-12)


@given(prices, levels)
def test_with_exploration_every_feasible_price_has_a_chance(feasible, intent):
    assert min(probabilities(SessionIntent(explore=0.1), feasible, 10_000, intent)) >= 0.1 / len(feasible)


@given(prices, levels, st.integers(1, 100_000))
def test_the_rest_goes_to_the_price_nearest_at_or_below_the_target(feasible, intent, list_price):
    rule = SessionIntent(explore=0.2)
    chances = probabilities(rule, feasible, list_price, intent)
    below = [price for price in feasible if price <= target_price(rule, list_price, intent)]
    assert feasible[chances.index(max(chances))] == (below[-1] if below else feasible[0])


@given(sessions, sessions, counts, counts, st.integers(1, 100_000))
def test_stronger_intent_never_gets_a_larger_discount(a, b, searches_a, searches_b, list_price):
    weak, strong = UserState(session_searches=searches_a), UserState(session_searches=searches_a + searches_b)
    weak.session_items["lamp"] = a
    strong.session_items["lamp"] = SessionItem(
        a.views + b.views, a.clicks + b.clicks, a.carts + b.carts, a.dwell_ms + b.dwell_ms
    )
    low, high = intent_level(weak, "lamp"), intent_level(strong, "lamp")
    assert 0 <= low <= high <= INTENT_MAX
    assert target_price(SessionIntent(), list_price, low) <= target_price(SessionIntent(), list_price, high)


@given(
    st.integers(0, 10**6),
    st.binary(max_size=80),
    st.integers(0, 2**40),
    st.dictionaries(st.text(max_size=3), st.floats(0, 9)),
)
def test_tenure_frequency_and_spend_change_nothing(sequence, days, last_ms, affinities):
    session = {"lamp": SessionItem(views=2)}
    stranger = UserState(session_items=session)
    regular = UserState(
        sequence=sequence, days=days, hours=days, last_ms=last_ms, categories=affinities, brands=affinities,
        history=days, session_items=session,
    )  # fmt: skip
    assert intent_level(stranger, "lamp") == intent_level(regular, "lamp")


def test_interest_in_one_item_is_not_interest_in_another():
    state = UserState(session_items={"rug": SessionItem(9, 9, 9, 999_999)})
    assert intent_level(state, "lamp") == 0


def test_beyond_the_last_level_the_last_discount_holds():
    rule = SessionIntent(discounts_permille=(300, 100))
    assert [target_price(rule, 1_000, level) for level in range(4)] == [700, 900, 900, 900]


def test_a_discount_of_everything_aims_at_the_lowest_price():
    rule = SessionIntent(discounts_permille=(5_000,), explore=0.0)
    assert probabilities(rule, [500, 1_000], 1_000, 0) == [1.0, 0.0]


def test_uniform_aims_at_no_price_and_gives_each_the_same_chance():
    assert target_price(UniformRandom(), 1_000, 0) is None
    assert probabilities(UniformRandom(), [500, 600, 800, 1_000], 1_000, 0) == [0.25] * 4


def test_if_all_prices_lie_above_the_target_the_lowest_is_nearest():
    assert nearest_at_or_below([5, 6], 4) == 0
