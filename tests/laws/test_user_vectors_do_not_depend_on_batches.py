"""Vectors and logits of the priced path, bit for bit: the same however tokens are batched, whoever shares the memory.

The measure of all is a user who was never touched: alone in an encoder of their own, one token at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoder import Encoder
from features.vectors import TokenAsk
from tests.features.models import SMALL, START_MS, Shopper, artifact, token

HISTORY_MAX = SMALL.reach + 2
FAR = 1_000_003

Made = st.tuples(
    st.integers(0, 6),
    st.builds(
        token,
        st.integers(0, 3),
        st.sampled_from([f"item-{number}" for number in range(44)]),
        st.integers(1, 5_000_000),
        st.sampled_from([0, 40_000]),
        st.integers(START_MS, START_MS + 86_400_000),
    ),
)
"""A user and a token; in any order of time, for late ones come."""
Stream = st.lists(Made, min_size=1, max_size=120)
Cuts = st.lists(st.integers(1, 30), min_size=1, max_size=8)


def asked(stream: Sequence[tuple[int, bytes]], history_max: int = HISTORY_MAX) -> list[TokenAsk]:
    shoppers = [Shopper(bytes([user]), history_max) for user in range(7)]
    return [shoppers[user].ask(made) for user, made in stream]


@cache
def lonely(user: bytes) -> Encoder:
    """Return the encoder that keeps nobody but `user`."""
    return Encoder(artifact(), 1)


def untouched(asks: Sequence[TokenAsk]) -> list[bytes]:
    """Return the bits of each ask where every user has an encoder of their own, and every token comes alone."""
    since = object()  # an owner nobody has seen: all rings are new
    return [one for ask in asks for one in bits(lonely(ask.user), [ask], since)]


def bits(encoder: Encoder, asks: Sequence[TokenAsk], owner: Hashable = None) -> list[bytes]:
    encoded = encoder.encode(owner, asks)
    assert np.isfinite(encoded.vectors).all()
    return [vector.tobytes() + logit.tobytes() for vector, logit in zip(encoded.vectors, encoded.logits, strict=True)]


def batches(asks: Sequence[TokenAsk], cuts: Sequence[int]) -> list[Sequence[TokenAsk]]:
    """Cut `asks` into batches of the sizes in `cuts`, over and over."""
    out, start, turn = [], 0, 0
    while start < len(asks):
        out.append(asks[start : start + cuts[turn % len(cuts)]])
        start, turn = start + len(out[-1]), turn + 1
    return out


@settings(max_examples=40)
@given(Stream, Cuts, st.integers(1, 8))
def test_any_split_into_batches_and_any_size_of_the_memory_give_the_same_bits(stream, cuts, users_max):
    asks = asked(stream)
    encoder = Encoder(artifact(), users_max)
    found = [one for batch in batches(asks, cuts) for one in bits(encoder, batch)]
    assert found == untouched(asks)
    assert encoder.residents <= users_max


@settings(max_examples=30)
@given(Stream, Cuts, st.data())
def test_restarts_releases_and_rings_of_other_owners_change_no_bit(stream, cuts, data):
    asks = asked(stream)
    encoder, found = Encoder(artifact(), 5), []
    for batch in batches(asks, cuts):
        event = data.draw(st.sampled_from(["nothing", "restart", "release", "others"]))
        if event == "restart":
            encoder = Encoder(artifact(), 5)
        elif event == "release":
            encoder.release("ours")
        elif event == "others":
            bits(encoder, asked(stream[:9]), owner="theirs")
        found += bits(encoder, batch, owner="ours")
    assert found == untouched(asks)


@settings(max_examples=25)
@given(Stream, Cuts, st.integers(1, 7))
def test_positions_beyond_a_million_are_as_exact(stream, cuts, users_max):
    asks = [ask._replace(position=ask.position + FAR) for ask in asked(stream)]
    encoder = Encoder(artifact(), users_max)
    assert [one for batch in batches(asks, cuts) for one in bits(encoder, batch)] == untouched(asks)


@settings(max_examples=25)
@given(Stream, Cuts, st.integers(1, 3), st.integers(1, 40))
def test_a_history_whose_start_a_state_never_kept_is_read_alike_ever_after(stream, cuts, users_max, lost):
    shoppers = [Shopper(bytes([user]), HISTORY_MAX, position=lost) for user in range(2)]
    asks = [shoppers[user % 2].ask(made) for user, made in stream]
    encoder = Encoder(artifact(), users_max)
    found = [one for batch in batches(asks, cuts) for one in bits(encoder, batch)]
    rebuilt_each_time = [one for ask in asks for one in untouched([ask])]
    assert found == untouched(asks) == rebuilt_each_time


@settings(max_examples=25)
@given(Stream, Stream, st.integers(1, 20))
def test_a_batch_that_was_not_committed_leaves_nothing_behind(stream, other, upto):
    first, second = asked(stream), asked(stream[:upto] + other)
    encoder = Encoder(artifact(), 4)
    bits(encoder, first[:upto])
    bits(encoder, first[upto:])  # its transaction failed: the states are those after `upto` again
    assert bits(encoder, second[upto:]) == untouched(second)[upto:]


def test_a_user_among_a_thousand_has_the_bits_of_a_user_alone():
    random = np.random.default_rng(2)
    made = [
        token(int(kind), f"item-{kind * 7}", 500 + at, 900, START_MS + at)
        for at, kind in enumerate(random.integers(0, 4, 40))
    ]
    shopper = Shopper(b"alone", HISTORY_MAX)
    asks = [shopper.ask(one) for one in made]
    crowd = [Shopper(f"user-{number}".encode(), HISTORY_MAX) for number in range(1_000)]
    encoder, found = Encoder(artifact(), 300), []
    for at, ask in enumerate(asks):
        others = [crowd[one].ask(made[(at + one) % 40]) for one in random.integers(0, 1_000, 150)]
        place = int(random.integers(0, 151))
        found.append(bits(encoder, [*others[:place], ask, *others[place:]])[place])
    assert encoder.evicted > 0
    assert found == untouched(asks)
