"""Design laws 1 and 2 with a model in the path: however it is batched, the questions to it, and so the bytes, are the same.

The fake model's answers hang on user, position, history and token. The twin takes one record at a time and works the
questions out from the states that it stored.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.policies import ListPrice, Policy
from features.signals import signals_of
from features.state import decode_state
from features.tokens import tokens
from features.vectors import TokenAsk
from tests.laws.test_prices_do_not_depend_on_batches import Left, a_shop, inbounds, records, run
from tests.pricing.fake_encoder import FakeEncoder
from tests.pricing.shop import Shop

MADE = Policy(name="made", number=1, rule=ListPrice(), model="other", fallback="builtin@1")


def a_modelled_shop(fallback: bool = False) -> Shop:
    shop = a_shop()
    shop.encoder = FakeEncoder()
    if fallback:
        shop.adopt(MADE)
    return shop


def twin(shop: Shop, batch: list) -> list[TokenAsk]:
    """Apply one record at a time; return the questions that what changed in its user's stored state calls for."""
    asks = []
    for inbound in batch:
        before = decode_state(shop.states.get(inbound.key))
        (record, *_) = shop.feed(inbound)
        if inbound.event is None or not hasattr(inbound.event, "item") or getattr(record, "outcome", "") == "repeated":
            continue
        after = decode_state(shop.states[inbound.key])
        position, history = (before.tokens, before.history) if after.tokens == before.tokens + 1 else (0, b"")
        assert after.tokens == position + 1, "one token per event, from 0 after the state's time to live"
        kept = list(tokens(after.history))
        assert kept == [*tokens(history), kept[-1]][-shop.semantics.history_events_max :]
        token = after.history[-16 - len(inbound.event.item.encode()) :]
        found = shop.catalogue.at(inbound.event.item, inbound.event.event_time_ms)
        signals = signals_of(after, inbound.event.item, None if found is None else found[1])
        asks.append(TokenAsk(inbound.key, position, history, token, signals))
    return asks


@settings(max_examples=150)
@given(records, st.booleans(), st.data())
def test_any_split_into_batches_gives_the_same_bytes_and_asks_the_same(drawn, fallback, data):
    whole, split = a_modelled_shop(fallback), a_modelled_shop(fallback)
    batch = inbounds(whole, drawn)
    cuts = data.draw(st.lists(st.integers(0, len(batch)), max_size=8))
    left: Left = run(split, batch, cuts)
    assert left == run(whole, batch, [])
    assert split.encoder.asks == whole.encoder.asks


@settings(max_examples=150)
@given(records)
def test_every_question_is_the_one_that_the_stored_states_call_for(drawn):
    whole, single = a_modelled_shop(), a_modelled_shop()
    batch = inbounds(whole, drawn)
    run(whole, batch, [])
    assert whole.encoder.asks == twin(single, batch)


@settings(max_examples=50)
@given(records)
def test_a_model_changes_no_price_of_a_policy_that_does_not_look_at_it(drawn):
    plain, modelled = a_shop(), a_modelled_shop()
    batch = inbounds(plain, drawn)
    assert run(plain, batch, []).prices == run(modelled, batch, []).prices
