"""`pricetide users show`: what the page of a user says, without Kafka."""

from __future__ import annotations

from contextlib import nullcontext
from io import StringIO
from types import SimpleNamespace

import pytest
from msgspec import structs
from rich.console import Console

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.events import Click, Purchase, View
from contracts.semantics import Semantics
from features.artifact import artifact_digest
from features.fold import fold
from features.profile import looking_up, profile_of
from features.state import Offer, UserState
from features.text_cache import TextCache
from features.text_search import TextSearch
from features.texts import item_text
from streams.demo import MODEL
from streams.ledger import LEDGER_KEY, Ledger, encode_ledger
from streams.settings import load_settings
from streams.user_commands import InWords, Vector, encoder_of_one, nearest_in_words, page, stored_state, vector_of
from tests.features.letters import Letters

NOW_MS = 1_762_160_400_000
WATERMARK_MS = NOW_MS + 90_061_500
"""Other users' events have come since."""
SEMANTICS = Semantics(consent_default=True)
KETTLE = CatalogueItem(
    item="kettle-1", valid_from_ms=0, title="Alder kettle", category="kitchen", brand="Alder", currency="USD",
    list_price=3_999,
)  # fmt: skip


def a_state() -> UserState:
    state = UserState()
    events = (
        View(event_id="1", user="u", item="kettle-1", event_time_ms=NOW_MS, price=3_999, currency="USD"),
        Click(event_id="2", user="u", item="kettle-1", event_time_ms=NOW_MS + 1_000, price=3_999, currency="USD",
              action="add_to_cart"),
        Purchase(event_id="3", user="u", item="kettle-1", event_time_ms=NOW_MS + 2_000, price=3_999, currency="USD",
                 quantity=2),
    )  # fmt: skip
    for event in events:
        fold(state, event, KETTLE, SEMANTICS)
    return state


def said(state: UserState, vector: Vector | None = None, in_words: InWords | None = None) -> str:
    catalogue = Catalogue()
    catalogue.add(0, KETTLE)
    settings = load_settings(**{"semantics.consent_default": True})
    console = Console(width=140, file=StringIO())
    profile = profile_of(state, state.last_ms, looking_up(catalogue), "USD")
    console.print(page("u", 3, WATERMARK_MS, state, catalogue, profile, vector, in_words, settings))
    return console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above


def test_the_vector_of_one_user_takes_neither_the_memory_nor_the_device_of_a_worker():
    pytest.importorskip("onnxruntime", reason="needs the extra encoder")
    worker = {"encoder.model": str(MODEL), "encoder.users_max": 10**14, "encoder.provider": "cuda"}
    encoder = encoder_of_one(load_settings(**{"semantics.consent_default": True, **worker}))
    assert encoder is not None
    vector = vector_of("u", a_state(), encoder)
    assert vector is not None
    assert (vector.digest, vector.as_of_ms, len(vector.nearest)) == (artifact_digest(MODEL), NOW_MS + 2_000, 8)
    assert encoder_of_one(load_settings(**{"semantics.consent_default": True})) is None


def test_windows_events_and_profile_are_shown_with_titles_and_money():
    text = said(a_state())
    assert "79.98 USD" in text  # two kettles
    assert "Alder kettle" in text
    recent = text.partition("newest first")[2]
    assert recent.index(" purchase ") < recent.index(" cart ") < recent.index(" view ")
    assert "granted by default" in text
    assert "2025-11-03 09:00:02 UTC" in text


def test_an_offer_is_open_until_its_end_in_event_time():
    state = a_state()
    for item, until_ms in (("kettle-1", NOW_MS + 2_001), ("kettle-2", NOW_MS + 2_000)):
        state.offers[item] = Offer(3_599, 3_999, 900, 0.5, "d", NOW_MS, until_ms, True, 2, None)
    offers = said(state).partition("offers, newest last")[2]
    assert [line.split()[-2].strip("│") for line in offers.splitlines() if "kettle-" in line] == ["open", "ended"]


def test_the_nearest_items_come_with_the_digest_and_the_age_of_the_vector():
    vector = Vector(digest="abc123", as_of_ms=NOW_MS, norm=1.5, nearest=[("kettle-1", 2.25), ("gone", 1.0)])
    text = " ".join(said(a_state(), vector).split())  # a title is as wide as its table
    assert "abc123" in text
    assert "as of the event at 2025-11-03 09:00:00 UTC, 1 day, 1:01:01 before the partition's newest" in text
    assert "2.250" in text
    assert "(not in the catalogue)" in text


def test_state_and_watermark_come_from_the_users_partition_of_the_changelog(monkeypatch):
    """The last record of a key counts, and the partition's own record tells how far it has come."""
    ledger = Ledger(epoch=0, partitions=4, sources=(), positions=(), applied=1, watermark_ms=WATERMARK_MS)
    written = [
        (LEDGER_KEY, encode_ledger(structs.replace(ledger, watermark_ms=NOW_MS))), (b"u", b"first"), (b"v", b"another's"),
        (b"u", b"last"), (LEDGER_KEY, encode_ledger(ledger)),
    ]  # fmt: skip
    records = [SimpleNamespace(key=key, value=value) for key, value in written]
    consumer = SimpleNamespace(
        assign=lambda places: None, seek_to_beginning=lambda place: None, position=lambda place: 0,
        end_offsets=lambda places: dict.fromkeys(places, len(records)),
    )  # fmt: skip
    monkeypatch.setattr("streams.user_commands.require_topics", lambda settings, topics: None)
    monkeypatch.setattr("streams.user_commands.reading", lambda settings: nullcontext(consumer))
    monkeypatch.setattr("streams.user_commands.chunks_until", lambda consumer, ends: [dict.fromkeys(ends, records)])
    settings = load_settings(**{"semantics.consent_default": True})
    console = Console(file=StringIO())
    assert stored_state(settings, "u", console) == (b"last", WATERMARK_MS)
    assert stored_state(settings, "nobody", console) == (None, WATERMARK_MS)
    records.clear()
    assert stored_state(settings, "u", console) == (None, 0)


def test_the_items_nearest_in_words_come_with_their_encoder_and_those_without_a_vector_are_counted():
    text = said(a_state(), in_words=InWords(digest="def456", nearest=[("kettle-1", 0.75)], unknown=1_200))
    words = " ".join(text.partition("in words")[2].split())  # a title is as wide as its table
    assert "def456" in words
    assert "1,200 new items have no vector yet" in words
    assert "Alder kettle" in words
    assert "0.750" in words
    assert "in words" not in said(a_state())


def test_items_nearest_in_words_are_those_that_were_embedded_before(monkeypatch, tmp_path):
    with TextCache(tmp_path / "texts.sqlite") as cache:
        TextSearch(Letters(), "def456", cache).embed({"any": item_text(KETTLE)})
        encoder, catalogue = Letters(), Catalogue()
        for offset, one in enumerate((KETTLE, structs.replace(KETTLE, item="phone-1", title="a phone"))):
            catalogue.add(offset, one)
        monkeypatch.setattr(
            "streams.user_commands.open_text_search", lambda directory: TextSearch(encoder, "def456", cache)
        )
        found = nearest_in_words("bought one kettle", catalogue, tmp_path)
    assert [item for item, _ in found.nearest] == ["kettle-1"]
    assert found.unknown == 1
    assert encoder.asked == ["bought one kettle"]


def test_what_producers_wrote_moves_no_cursor():
    """A cell that rich prints keeps an escape, and a title may hold one."""
    catalogue, state = Catalogue(), a_state()
    catalogue.add(0, structs.replace(KETTLE, title="Red\x1b[31m", category="a\x1b[2Jb"))
    state.offers["x\x1b[H"] = Offer(3_599, 3_999, 900, 0.5, "d", NOW_MS, NOW_MS, True, 2, None)
    settings = load_settings(**{"semantics.consent_default": True})
    profile = profile_of(state, state.last_ms, looking_up(catalogue), "USD")
    vector = Vector(digest="d", as_of_ms=NOW_MS, norm=1.5, nearest=[("kettle-1", 1.0), ("y\x1b[H", 1.0)])
    console = Console(width=140, file=StringIO())
    console.print(page("u\x1b[H", 3, WATERMARK_MS, state, catalogue, profile, vector, None, settings))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" in profile
    assert "\x1b" not in text
    for written in (r"u\x1b[H", r"x\x1b[H", r"y\x1b[H", r"Red\x1b[31m"):
        assert written in text


def test_a_user_of_whom_only_a_consent_is_known_has_a_page():
    state = UserState(sequence=1, last_ms=NOW_MS, consent=False, consent_ms=NOW_MS)
    assert "denied" in said(state)
