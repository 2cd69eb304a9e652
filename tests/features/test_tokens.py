"""The token history: what goes in comes out, and only the last of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.events import Click, Purchase, View
from features.tokens import KINDS, Token, append_token, newest, token_of, tokens

TokenFields = st.builds(
    Token,
    kind=st.sampled_from(KINDS),
    item=st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=128),
    price=st.integers(1, 10_000_000_000),
    list_price=st.integers(0, 10_000_000_000),
    event_time_ms=st.integers(946_684_800_000, 4_102_444_800_000),
)


def encoded(token: Token) -> bytes:
    kind = {"view": View, "click": Click, "cart": Click, "purchase": Purchase}[token.kind]
    more = {"action": "add_to_cart"} if token.kind == "cart" else {}
    event = kind(
        event_id="e",
        user="u",
        item=token.item,
        event_time_ms=token.event_time_ms,
        price=token.price,
        currency="USD",
        **more,
    )
    return token_of(event, token.list_price)


@given(st.lists(TokenFields, max_size=20), st.integers(1, 8))
def test_the_history_holds_the_last_tokens_as_they_came(made: list[Token], most: int) -> None:
    history, count = b"", 0
    for token in made:
        history, count = append_token(history, count, encoded(token), most)
    assert list(tokens(history)) == made[-most:]
    assert count == min(len(made), most)


@given(st.lists(TokenFields, min_size=1, max_size=5))
def test_the_newest_token_is_found_by_its_item(made: list[Token]) -> None:
    assert newest(b"".join(map(encoded, made)), made[-1].item) == encoded(made[-1])


def test_a_smaller_setting_drops_all_that_is_too_much_at_once() -> None:
    made = [Token("view", f"i{n}", 5, 0, 1_572_566_400_000) for n in range(6)]
    history, count = b"".join(map(encoded, made[:5])), 5
    history, count = append_token(history, count, encoded(made[5]), 2)
    assert (list(tokens(history)), count) == (made[-2:], 2)


def test_a_click_that_takes_something_out_of_the_cart_is_a_click_like_any_other() -> None:
    fields = {"event_id": "e", "user": "u", "item": "i", "event_time_ms": 1_572_566_400_000, "price": 5}
    made = [Click(**fields, currency="USD", action=action) for action in ("add_to_cart", "remove_from_cart", "wish")]
    kinds = [token.kind for event in made for token in tokens(token_of(event, 0))]
    assert kinds == ["cart", "click", "click"]


def test_the_bytes_of_a_token_are_the_documented_ones() -> None:
    token = encoded(Token("purchase", "1004237", 108_198, 110_000, 1_572_566_400_000))
    header = int.from_bytes(token[:16], "big")
    assert (
        token
        == ((7 << 112) | (1_572_566_400_000 << 70) | (108_198 << 36) | (110_000 << 2) | 2).to_bytes(16, "big")
        + b"1004237"
    )
    assert header.bit_length() <= 128
