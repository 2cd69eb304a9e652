"""The counter-based generator: known answers, independence of batching, and the frequencies of what is drawn."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import CatalogueItem
from contracts.ids import DecisionIds
from contracts.policies import Policy, Rails, SessionIntent
from pricing.draws import cumulated, philox4x32, uniforms
from pricing.menus import MenuBook
from pricing.offers import Ask, respond

# Random123, tests/kat_vectors: philox4x32 10 rounds; counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, answer):
    lanes = np.array([words(counter)] * 3, dtype=np.uint64).T
    k0, k1 = words(key)
    for lane in philox4x32(lanes, (k0, k1)).T:
        assert lane.tolist() == words(answer)


def test_a_uniform_is_made_of_the_first_two_words_of_its_decision_id():
    seed = 0x299F31D0A4093822
    (u,) = uniforms(seed, ["243f6a8885a308d313198a2e03707344"])
    assert u == ((0xD16CFE09 >> 5) * 2**26 + (0x94FDCCEB >> 6)) / 2**53


ids = st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex), min_size=1, max_size=40)


@given(ids, st.integers(0, (1 << 53) - 1), st.data())
def test_a_decision_draws_the_same_number_in_any_batch(decision_ids, seed, data):
    cut = data.draw(st.integers(0, len(decision_ids)))
    whole = uniforms(seed, decision_ids)
    assert uniforms(seed, decision_ids[:cut]) + uniforms(seed, decision_ids[cut:]) == whole
    assert all(0.0 <= u < 1.0 for u in whole)


def test_another_seed_draws_other_numbers():
    decision_ids = [DecisionIds(0, "views", 0).of(offset, "a") for offset in range(100)]
    assert len(set(uniforms(1, decision_ids)) & set(uniforms(2, decision_ids))) == 0


def chi_square(observed: list[int], expected: list[float]) -> float:
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


def test_the_numbers_of_consecutive_decisions_are_uniform():
    of = DecisionIds(0, "views", 3).of
    numbers = uniforms(7, [of(offset, "a") for offset in range(200_000)])
    cells = Counter(int(u * 50) for u in numbers)
    # the 0.999 quantile of chi-square with 49 degrees of freedom is 85.4
    assert chi_square([cells[cell] for cell in range(50)], [4_000.0] * 50) < 85.4


shares = st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any)


@given(shares)
def test_no_number_draws_what_has_probability_zero(counts):
    chances = [count * (1.0 / sum(counts)) for count in counts]
    sums = cumulated(chances)
    assert len(sums) == len(chances)
    for u in (0.0, *sums, *np.nextafter(sums, 0.0), np.nextafter(1.0, 0.0)):
        if u < 1.0:
            assert chances[bisect_right(sums, u)] > 0.0


def test_the_highest_number_draws_the_last_price_that_can_be_drawn():
    tenth = 1.0 / 10.0  # ten of them sum to less than 1
    assert bisect_right(cumulated([*[tenth] * 10, 0.0, 0.0]), 1.0 - 2.0**-53) == 9
    assert cumulated([0.25, 0.75]) == (0.25, 1.0)
    assert cumulated([0.0, 1.0, 0.0]) == (0.0, 1.0, 1.0)


def test_each_price_is_drawn_as_often_as_its_propensity_says():
    item = CatalogueItem(item="a", valid_from_ms=0, title="", category="", brand="", currency="USD", list_price=12_999)
    rails = Rails(step_max_permille=400, band_low_permille=700)
    policy = Policy(name="wide", number=1, rule=SessionIntent(explore=0.3), rails=rails)
    priced = MenuBook(policy).priced(0, item, may_raise=False)
    of = DecisionIds(0, "views", 1).of
    decision_ids = [of(offset, "a") for offset in range(100_000)]
    drawn: Counter[int] = Counter()
    said: dict[int, float] = {}
    for decision_id, u in zip(decision_ids, uniforms(0, decision_ids), strict=True):
        verdict = respond({}, priced, Ask(0, None, decision_id, u, 0, 0), 24)
        drawn[verdict.price] += 1
        said[verdict.price] = verdict.propensity
    assert len(said) == 6
    assert sum(said.values()) == pytest.approx(1.0, abs=1e-12)
    expected = [100_000 * said[price] for price in sorted(said)]
    # the 0.999 quantile of chi-square with 5 degrees of freedom is 20.5
    assert chi_square([drawn[price] for price in sorted(said)], expected) < 20.5
