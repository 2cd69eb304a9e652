"""The encoder: when a ring is used, when a user is rebuilt, what is forgotten, what is bounded."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.errors import BadSettings
from features import encoder as module
from features.encoder import Encoder, UserHistory
from features.inputs import last_token
from features.tokens import tokens
from features.vectors import TokenEncoder
from tests.features.models import ITEMS, SMALL, START_MS, Shopper, artifact, token

HISTORY_MAX = SMALL.reach + 2


def looks(count: int, seed: int = 0) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [
        token(
            int(random.integers(0, 4)),
            ITEMS[random.integers(0, 40)],
            int(random.integers(1, 9_999)),
            5_000,
            START_MS + 60_000 * at,
        )
        for at in range(count)
    ]


def vectors(encoder, asks, owner="p0"):
    return encoder.encode(owner, asks).vectors


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(artifact(), 8)


def test_it_is_what_the_engine_asks_for(encoder):
    asks: TokenEncoder = encoder
    assert asks.digest == artifact().digest
    assert encoder.history_needed == SMALL.reach + 1


def test_a_batch_without_tokens_has_no_vectors(encoder):
    encoded = encoder.encode("p0", [])
    assert (encoded.vectors.shape, encoded.logits.shape) == ((0, SMALL.floats), (0,))


def test_answers_are_copies_that_later_batches_leave_alone(encoder):
    shopper = Shopper(b"u", HISTORY_MAX)
    made = looks(2)
    first = vectors(encoder, [shopper.ask(made[0])])
    before = first.copy()
    vectors(encoder, [shopper.ask(made[1])])
    assert np.array_equal(first, before)


def test_a_resident_user_costs_one_step_and_a_lost_one_the_reach_of_the_model(encoder):
    shopper = Shopper(b"u", HISTORY_MAX)
    for made in looks(30):
        vectors(encoder, [shopper.ask(made)])
    assert (encoder.asked, encoder.hits, encoder.rebuilt) == (30, 29, 0)
    encoder.release("p0")
    assert encoder.residents == 0
    vectors(encoder, [shopper.ask(looks(1)[0])])
    assert (encoder.hits, encoder.rebuilt, encoder.residents) == (29, SMALL.reach, 1)


def test_all_of_the_history_matters_as_far_as_the_model_reaches_and_nothing_before():
    made = looks(40)
    shopper = Shopper(b"u", 1_000)
    *_, last = [shopper.ask(one) for one in made]
    whole = vectors(Encoder(artifact(), 1), [last])[0]

    def differs_with_another_token(back: int) -> bool:
        changed = [*made]
        changed[-1 - back] = token(1, "item-39", 7, 5_000, START_MS + 60_000 * (39 - back))
        other = Shopper(b"u", 1_000)
        *_, ask = [other.ask(one) for one in changed]
        return not np.array_equal(vectors(Encoder(artifact(), 1), [ask])[0], whole)

    assert [differs_with_another_token(back) for back in (1, 7, 8, SMALL.reach)] == [True] * 4
    assert not differs_with_another_token(SMALL.reach + 1)


def test_a_user_who_expired_and_starts_again_is_a_new_user(encoder):
    old, new = Shopper(b"u", HISTORY_MAX), Shopper(b"u", HISTORY_MAX)
    made = looks(12)
    asks = [old.ask(one) for one in made[:6]] + [new.ask(one) for one in made[6:]]
    fresh = Shopper(b"u", HISTORY_MAX)
    wanted = vectors(Encoder(artifact(), 8), [fresh.ask(one) for one in made[6:]])
    assert np.array_equal(vectors(encoder, asks)[6:], wanted)


def test_two_owners_with_a_user_of_the_same_name_do_not_meet(encoder):
    ours, theirs = Shopper(b"u", HISTORY_MAX), Shopper(b"u", HISTORY_MAX)
    for one, other in zip(looks(9, 1), looks(9, 2), strict=True):
        left, right = vectors(encoder, [ours.ask(one)], "p0"), vectors(encoder, [theirs.ask(other)], "p1")
    assert not np.array_equal(left, right)
    assert (encoder.rebuilt, encoder.hits, encoder.residents) == (0, 16, 2)
    encoder.release("p0")
    vectors(encoder, [theirs.ask(looks(1)[0])], "p1")
    assert (encoder.rebuilt, encoder.hits, encoder.residents) == (0, 17, 1)


def test_a_new_model_answers_as_if_it_had_always_been_there():
    shopper, made = Shopper(b"u", HISTORY_MAX), looks(30)
    old, new = Encoder(artifact(), 8), Encoder(artifact(items_seed=9), 8)
    always = Encoder(artifact(items_seed=9), 8)
    asks = [shopper.ask(one) for one in made]
    vectors(old, asks[:20])
    assert np.array_equal(vectors(new, asks[20:]), vectors(always, asks)[20:])
    assert old.digest != new.digest
    assert not np.array_equal(vectors(old, asks[20:]), vectors(always, asks[20:]))


def test_a_run_that_fails_leaves_no_ring_that_could_be_trusted(encoder, monkeypatch):
    shopper, made = Shopper(b"u", HISTORY_MAX), looks(30)
    vectors(encoder, [shopper.ask(one) for one in made[:20]])
    asks = [shopper.ask(one) for one in made[20:]]
    step, runs = encoder._runs.step, []

    def breaks_in_the_third(*arguments):
        runs.append(1)
        if len(runs) == 3:
            raise MemoryError
        return step(*arguments)

    monkeypatch.setattr(encoder._runs, "step", breaks_in_the_third)
    with pytest.raises(MemoryError):
        vectors(encoder, asks)
    monkeypatch.undo()
    assert np.array_equal(vectors(encoder, asks), vectors(Encoder(artifact(), 8), asks))


def test_a_batch_larger_than_the_bound_is_worked_off_in_parts_with_the_same_bits(encoder, monkeypatch):
    shoppers = [Shopper(bytes([number]), HISTORY_MAX) for number in range(8)]
    asks = [shopper.ask(one) for number, shopper in enumerate(shoppers) for one in looks(20, number)]
    wanted = vectors(Encoder(artifact(), 8), asks)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 30)
    assert np.array_equal(vectors(encoder, asks), wanted)


def test_items_that_the_model_has_not_seen_read_as_one(encoder):
    def ask(item: str):
        return Shopper(item.encode(), HISTORY_MAX).ask(token(0, item, 100, 100, START_MS))

    one, other, known = vectors(encoder, [ask("never-seen"), ask("nor-this"), ask("item-3")])
    assert np.array_equal(one, other)
    assert not np.array_equal(one, known)


def test_the_vector_of_a_stored_history_is_the_one_that_stood_behind_the_price(encoder):
    shopper = Shopper(b"u", HISTORY_MAX)
    for made in looks(50):
        priced = vectors(encoder, [shopper.ask(made)])[0]
    resident = encoder.residents
    assert np.array_equal(encoder.of_history(b"u", shopper.position, shopper.history), priced)
    assert encoder.residents == resident
    assert encoder.of_history(b"u", 0, b"") is None
    last = [artifact().rows.get(each.item, 0) for each in tokens(shopper.history)][: -1 - SMALL.recent : -1]
    assert len(set(last)) > 1
    assert encoder.nearest(priced, shopper.history, 3) == artifact().nearest(priced, last, 3)


def test_users_re_embedded_in_wide_chunks_are_equal_within_the_tolerance(encoder):
    shoppers = [Shopper(bytes([number]), HISTORY_MAX) for number in range(150)]
    asks = [shopper.ask(one) for number, shopper in enumerate(shoppers) for one in looks(1 + number % 40, number)]
    stepped = vectors(encoder, asks)
    last = {ask.user: number for number, ask in enumerate(asks)}
    resident, rebuilt = encoder.residents, encoder.rebuilt
    again = encoder.re_embed([UserHistory(shopper.position, shopper.history) for shopper in shoppers])
    assert np.abs(again.vectors - stepped[[last[shopper.name] for shopper in shoppers]]).max() <= 1e-5
    assert (encoder.residents, encoder.rebuilt) == (resident, rebuilt)
    assert last_token(shoppers[0].history)[0] == b""


def test_nobody_to_re_embed_is_no_error(encoder):
    assert encoder.re_embed([]).vectors.shape == (0, SMALL.floats)


def test_an_encoder_without_room_for_a_user_is_refused():
    with pytest.raises(BadSettings, match="resident users to 1 or more"):
        Encoder(artifact(), 0)


def test_more_users_than_there_is_memory_for_are_refused_with_a_sentence():
    with pytest.raises(BadSettings, match=r"no memory for .* set encoder.users_max lower"):
        Encoder(artifact(), 10**14)


def test_a_provider_that_is_not_there_is_refused_with_a_sentence():
    import onnxruntime

    if "CUDAExecutionProvider" in Encoder(artifact(), 1)._runs._session.get_providers():
        pytest.skip("this machine has CUDA")
    assert onnxruntime.get_available_providers()
    with pytest.raises(BadSettings, match="provider cuda is not available"):
        Encoder(artifact(), 1, "cuda")
