"""The bytes of a state: golden, read by the next version, refused when they are of a newer one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from contracts.catalogue import CatalogueItem
from contracts.errors import BadSettings, BrokenInvariant
from contracts.events import Click, Consent, Purchase, View
from contracts.semantics import Semantics
from features import state as states
from features.fold import fold, fold_consent
from features.state import SCHEMA, DrawRef, Offer, UserState, decode_state, encode_state
from features.tokens import tokens

SEMANTICS = Semantics(consent_default=True)
NOW = 1_572_566_400_000
ITEM = CatalogueItem(
    item="1004237", valid_from_ms=0, title="", category="phones", brand="acme", currency="USD", list_price=110_000
)


def lived_in() -> UserState:
    state = UserState()
    fields = {"user": "u", "item": "1004237", "price": 108_198, "currency": "USD"}
    fold_consent(state, Consent(user="u", granted=True, event_time_ms=NOW))
    fold(state, View(event_id="1", event_time_ms=NOW, query="phone", dwell_ms=900, **fields), ITEM, SEMANTICS)
    fold(state, Click(event_id="2", event_time_ms=NOW, action="add_to_cart", **fields), ITEM, SEMANTICS)
    fold(state, Purchase(event_id="3", event_time_ms=NOW + 7_200_000, quantity=2, **fields), None, SEMANTICS)
    state.offers["1004237"] = Offer(104_999, 110_000, 950, 0.25, "00" * 16, NOW, NOW + 1_800_000, False, 3, None)
    state.draws.append(DrawRef("1004237", NOW + 1_800_000, 7, 104_999, 16, b"8 bytes!"))
    return state


GOLDEN = Path(__file__).parents[1] / "golden" / f"user_state_schema_{SCHEMA}.hex"
GOLDEN_1, GOLDEN_2 = (GOLDEN.with_name(f"user_state_schema_{schema}.hex") for schema in (1, 2))


def test_the_bytes_of_a_state_are_those_of_its_schema() -> None:
    assert encode_state(lived_in()).hex() == GOLDEN.read_text().strip(), (
        "another layout needs another SCHEMA, and a reader for this one"
    )


def test_a_state_comes_back_as_it_was_stored() -> None:
    state = lived_in()
    assert decode_state(encode_state(state)) == state
    assert decode_state(bytes.fromhex(GOLDEN.read_text())) == state
    assert decode_state(None) == UserState()


def test_a_state_of_schema_1_counts_its_tokens_from_the_oldest_it_has_kept() -> None:
    old, today = decode_state(bytes.fromhex(GOLDEN_1.read_text())), lived_in()
    assert (old.tokens, old.history_events) == (3, 3)
    assert [token.kind for token in tokens(old.history)] == ["view", "click", "purchase"]
    assert [token.kind for token in tokens(today.history)] == ["view", "cart", "purchase"]
    old.history = today.history
    today.draws.clear()
    assert old == today
    assert encode_state(old)[0] == SCHEMA


def test_a_state_of_schema_2_has_no_pending_draws() -> None:
    old, today = decode_state(bytes.fromhex(GOLDEN_2.read_text())), lived_in()
    assert old.draws == []
    today.draws.clear()
    assert old == today
    assert encode_state(old)[0] == SCHEMA


def test_the_bytes_of_an_older_schema_are_read_by_its_reader_and_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldState(msgspec.Struct, array_like=True):
        """A schema in which times were seconds."""

        events: int
        last_s: int

    read_old: Callable[[memoryview], OldState] = msgspec.msgpack.Decoder(OldState).decode

    def upcast(body: memoryview) -> UserState:
        old = read_old(body)
        return UserState(sequence=old.events, last_ms=old.last_s * 1000)

    monkeypatch.setitem(states.READERS, 0, upcast)
    stored = bytes([0]) + msgspec.msgpack.encode(OldState(7, NOW // 1000))
    state = decode_state(stored)
    assert state == UserState(sequence=7, last_ms=NOW)
    assert encode_state(state)[0] == SCHEMA


def test_the_bytes_of_a_newer_schema_are_refused_with_what_to_do() -> None:
    with pytest.raises(
        BadSettings, match=r"schema 4, this release reads \[1, 2, 3\]: it was written by a newer pricetide; run"
    ):
        decode_state(bytes([SCHEMA + 1]) + encode_state(UserState())[1:])


@pytest.mark.parametrize(
    "value", [b"", bytes([SCHEMA]), encode_state(lived_in())[:-1], bytes([SCHEMA]) + b"\x93\x01\x02\xa1x"]
)
def test_damaged_bytes_are_refused_with_what_to_do(value: bytes) -> None:
    with pytest.raises(BrokenInvariant, match="wipe the data directory to restore from the changelog"):
        decode_state(value)
