"""The encoder, from token bytes to vectors, against torch in float64 over the whole history of each user.

What the graph reads of a token is written out again here with NumPy. The graph alone, with bursts as chunks, is held to
the same in test_encoder_torch_parity.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from features.encoder import Encoder, UserHistory
from tests.features.models import DEFAULT, ITEMS, START_MS, Shopper, artifact, model, signals, token

TOLERANCE = 1e-5
HISTORY_MAX = 128
USERS = 12
LENGTHS = [1, 2, 63, 64, 65, 126, 127, 128, 129, 200, 293, 293]
"""Ragged: rings that never fill, that fill exactly, that wrap, histories that are cut."""
FAR = 1_000_003


@cache
def journeys() -> list[list[tuple[int, int, int, int, int]]]:
    """Return per user what their tokens say: kind, place in ITEMS (40: unknown), price, list price (0: unknown), time."""
    random = np.random.default_rng(11)
    out = []
    for length in LENGTHS:
        gaps = random.integers(-3_600_000, 86_400_000, length)  # some come late
        times = START_MS + np.cumsum(gaps)
        prices = random.integers(0, 300_000, length)
        lists = np.where(random.random(length) < 0.2, 0, random.choice([prices, random.integers(1, 300_000, length)]))
        out.append(
            list(
                zip(
                    random.integers(0, 4, length).tolist(),
                    random.integers(0, 41, length).tolist(),
                    prices.tolist(),
                    lists.tolist(),
                    times.tolist(),
                    strict=True,
                )
            )
        )
    return out


def recomputed(user: int, position: int = 0, tokens: slice = slice(None)):
    """Return vectors and logits of every token of `user`, each over all that came before it, in float64."""
    from model_export.export import recompute

    kinds, items, prices, lists, times = np.array(journeys()[user]).T
    gap = np.concatenate(([0], np.diff(times)))
    first = np.arange(len(times)) == 0
    with np.errstate(divide="ignore"):
        ratio = np.where(lists > 0, np.clip(np.log((prices + 1) / (lists + 1)), -2, 2), 0)
    features = np.stack(
        (np.log(prices + 1) / 10, ratio, lists > 0, np.log1p(np.maximum(gap, 0) / 1000) / 10, first), 1
    ).astype(np.float32)
    rows = np.where(items < len(ITEMS), items + 1, 0)
    made = model(DEFAULT)
    told = np.array([signals(f"user-{user}".encode(), position + at) for at in range(len(times))], np.float32)
    vectors, logits = recompute(
        made.network,
        made.item_rows,
        rows[None, tokens],
        kinds[None, tokens],
        features[None, tokens],
        told[None, tokens],
        position,
    )
    return vectors[0], logits[0]


def shopper(user: int, position: int = 0) -> tuple[Shopper, list]:
    """Return the user after all their tokens, and what was asked about each."""
    made = Shopper(f"user-{user}".encode(), HISTORY_MAX, position=position)
    names = [*ITEMS, "an item of tomorrow"]
    asks = [
        made.ask(token(kind, names[item], price, listed, time)) for kind, item, price, listed, time in journeys()[user]
    ]
    return made, asks


def worst(encoded: list, wanted: list) -> float:
    return max(
        float(max(np.abs(vectors - exact[0]).max(), np.abs(logits - exact[1]).max()))
        for (vectors, logits), exact in zip(encoded, wanted, strict=True)
    )


def stepped(encoder: Encoder, asks_of: list[list], bursts: bool) -> list:
    """Encode the tokens of all users side by side, one of each per batch, or bursts of one to eight."""
    random = np.random.default_rng(4)
    at, found = [0] * len(asks_of), [[] for _ in asks_of]
    while any(place < len(asks) for place, asks in zip(at, asks_of, strict=True)):
        batch, of = [], []
        for user, asks in enumerate(asks_of):
            count = int(random.integers(1, 9)) if bursts else 1
            batch += asks[at[user] : at[user] + count]
            of += [user] * len(asks[at[user] : at[user] + count])
            at[user] += count
        encoded = encoder.encode("p", batch)
        for user, vector, logit in zip(of, encoded.vectors, encoded.logits, strict=True):
            found[user].append((vector, logit))
    return [(np.stack([v for v, _ in one]), np.stack([w for _, w in one])) for one in found]


@cache
def exact() -> list:
    return [recomputed(user) for user in range(USERS)]


@pytest.mark.parametrize("bursts", [False, True], ids=["steps", "bursts of one to eight"])
def test_ragged_users_equal_the_recompute_of_their_whole_history(bursts):
    encoder = Encoder(artifact(DEFAULT), USERS)
    found = stepped(encoder, [shopper(user)[1] for user in range(USERS)], bursts)
    assert worst(found, exact()) <= TOLERANCE
    assert encoder.rebuilt == 0


def test_users_who_lose_their_ring_again_and_again_equal_the_recompute():
    users = [5, 8, 11]
    encoder = Encoder(artifact(DEFAULT), 2)
    found = stepped(encoder, [shopper(user)[1] for user in users], bursts=True)
    assert encoder.evicted > 50
    assert worst(found, [exact()[user] for user in users]) <= TOLERANCE


def test_users_after_a_restart_equal_the_recompute():
    asks = [shopper(user)[1][-1] for user in range(USERS)]
    encoded = Encoder(artifact(DEFAULT), USERS).encode("p", asks)
    last = [(vectors[-1:], logits[-1:]) for vectors, logits in exact()]
    assert worst([(encoded.vectors[n : n + 1], encoded.logits[n : n + 1]) for n in range(USERS)], last) <= TOLERANCE


def test_positions_beyond_a_million_equal_the_recompute():
    asks = shopper(11, FAR)[1]
    known = HISTORY_MAX  # what was before the first token here, nobody has
    encoded = Encoder(artifact(DEFAULT), 1).encode("p", asks[known:])
    vectors, logits = recomputed(11, FAR)
    assert worst([(encoded.vectors, encoded.logits)], [(vectors[known:], logits[known:])]) <= TOLERANCE


def test_wide_chunks_equal_the_recompute():
    made = [shopper(user)[0] for user in range(USERS)]
    encoded = Encoder(artifact(DEFAULT), 1).re_embed(
        [UserHistory(one.position, one.history, signals(one.name, one.position - 1)) for one in made]
    )
    last = [(vectors[-1:], logits[-1:]) for vectors, logits in exact()]
    assert worst([(encoded.vectors[n : n + 1], encoded.logits[n : n + 1]) for n in range(USERS)], last) <= TOLERANCE


def test_encoding_the_last_window_again_is_another_function():
    whole = exact()[11][0][-1]
    window = recomputed(11, 0, slice(-DEFAULT.window, None))[0][-1]
    reach = recomputed(11, 0, slice(-DEFAULT.reach - 1, None))[0][-1]
    assert np.abs(window - whole).max() > 1e-2
    assert np.abs(reach - whole).max() <= 1e-9
