"""What the graph reads of a token: against the formulas, written out again with NumPy, and its edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.inputs import FEATURE_NAMES, last_token, read_inputs, suffix, token_features
from features.tokens import KINDS, tokens

T = 1_572_566_400_000
ROWS = {"known": 7, "other": 9}


def token(kind: int, item: str, price: int, list_price: int, time_ms: int) -> bytes:
    name = item.encode()
    return (len(name) << 112 | time_ms << 70 | price << 36 | list_price << 2 | kind).to_bytes(16, "big") + name


Tokens = st.lists(
    st.builds(
        token,
        st.integers(0, 3),
        st.sampled_from(["known", "other", "новый", "x" * 128]),
        st.integers(0, 10_000_000_000),
        st.just(0) | st.integers(1, 10_000_000_000),
        st.integers(T, T + 40 * 86_400_000),
    ),
    min_size=1,
    max_size=12,
)


@given(
    st.integers(0, 10_000_000_000),
    st.just(0) | st.integers(1, 10_000_000_000),
    st.integers(T, T + 10**10),
    st.none() | st.integers(T, T + 10**10),
)
def test_features_follow_their_formulas_and_stay_small(price, list_price, time_ms, before_ms):
    found = token_features(price, list_price, time_ms, before_ms)
    ratio = np.clip(np.log(price + 1) - np.log(list_price + 1), -2, 2) if list_price else 0.0
    gap = 0 if before_ms is None else np.log1p(max(time_ms - before_ms, 0) / 1000) / 10
    assert found == pytest.approx(
        [np.log(price + 1) / 10, ratio, float(list_price > 0), gap, float(before_ms is None)], abs=1e-9
    )
    assert len(found) == len(FEATURE_NAMES)
    assert all(-2 <= number <= 3 for number in found)


@pytest.mark.parametrize(
    ("price", "list_price", "ratio"), [(500, 500, 0.0), (500, 0, 0.0), (10**9, 1, 2.0), (1, 10**9, -2.0)]
)
def test_the_price_against_the_list_is_clipped_and_exactly_zero_at_list(price, list_price, ratio):
    assert token_features(price, list_price, T, None)[1] == ratio


def test_a_late_token_has_no_gap_and_only_the_first_one_is_marked_as_first():
    assert token_features(1, 1, T, T + 5_000)[3:] == (0.0, 0.0)
    assert token_features(1, 1, T, None)[3:] == (0.0, 1.0)


@given(Tokens)
def test_a_token_is_read_alike_alone_and_among_others(made):
    together = read_inputs(b"".join(made), {0: None}, ROWS)
    before = None
    for number, one in enumerate(made):
        alone = read_inputs(one, {0: before}, ROWS)
        assert alone.rows[0] == together.rows[number]
        assert alone.kinds[0] == together.kinds[number]
        assert alone.features[0].tobytes() == together.features[number].tobytes()
        before = alone.times[0]


@given(Tokens)
def test_many_tokens_have_the_bits_of_each(made):
    read = read_inputs(b"".join(made), {0: None}, ROWS)
    before = None
    for number, one in enumerate(tokens(b"".join(made))):
        alone = token_features(one.price, one.list_price, one.event_time_ms, before)
        assert read.features[number].tobytes() == np.float32(alone).tobytes()
        assert (KINDS[read.kinds[number]], read.times[number]) == (one.kind, one.event_time_ms)
        before = one.event_time_ms


def test_items_have_their_row_and_unknown_ones_row_zero():
    read = read_inputs(
        token(0, "other", 5, 5, T) + token(3, "new", 5, 5, T + 1) + token(2, "known", 5, 5, T + 2), {0: None}, ROWS
    )
    assert read.rows.tolist() == [9, 0, 7]
    assert read.kinds.tolist() == [0, 3, 2]


def test_the_first_token_of_each_user_counts_its_gap_from_the_time_it_is_given():
    made = [token(0, "known", 5, 5, T + at) for at in (0, 10_000, 20_000)]
    read = read_inputs(b"".join(made), {0: None, 1: T, 2: T + 19_000}, ROWS)
    gaps = read.features[:, FEATURE_NAMES.index("log_gap")]
    assert gaps == pytest.approx([0, np.log(11) / 10, np.log(2) / 10])


@given(Tokens, st.data())
def test_a_suffix_of_a_whole_history_is_its_last_tokens_and_the_time_before_them(made, data):
    count = data.draw(st.integers(0, len(made)))
    times = [one.event_time_ms for one in tokens(b"".join(made))]
    found = suffix(b"".join(made), len(made), count)
    assert found.history == b"".join(made[len(made) - count :])
    assert found.before_ms == (None if count == len(made) else times[len(made) - count - 1])


def test_blank_tokens_stand_for_those_that_a_state_no_longer_keeps():
    made = token(0, "known", 5, 5, T)
    found = suffix(made, position=10, count=4)
    assert [(one.item, one.price, one.event_time_ms) for one in tokens(found.history)] == [("", 0, 0)] * 3 + [
        ("known", 5, T)
    ]
    assert found.before_ms == 0
    assert read_inputs(found.history, {0: found.before_ms}, ROWS).rows.tolist() == [0, 0, 0, 7]


@given(Tokens)
def test_the_last_token_is_cut_off_whole(made):
    assert last_token(b"".join(made)) == (b"".join(made[:-1]), made[-1])
