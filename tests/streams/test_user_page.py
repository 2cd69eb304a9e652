"""`pricetide users show`: what the page of a user says, without Kafka."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.events import Click, Purchase, View
from contracts.semantics import Semantics
from features.fold import fold
from features.state import Offer, UserState
from streams.settings import load_settings
from streams.user_commands import Vector, page

NOW_MS = 1_762_160_400_000
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


def said(state: UserState, vector: Vector | None = None) -> str:
    catalogue = Catalogue()
    catalogue.add(0, KETTLE)
    settings = load_settings(**{"semantics.consent_default": True})
    console = Console(width=140, file=StringIO())
    console.print(page("u", 3, state, catalogue, vector, settings))
    return console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above


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
    text = said(a_state(), vector)
    assert "abc123" in text
    assert "2 s old" in text
    assert "2.250" in text
    assert "(not in the catalogue)" in text


def test_a_user_of_whom_only_a_consent_is_known_has_a_page():
    state = UserState(sequence=1, last_ms=NOW_MS, consent=False, consent_ms=NOW_MS)
    assert "denied" in said(state)
