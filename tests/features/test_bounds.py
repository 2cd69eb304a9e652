"""No state exceeds the stated bound, and the worst shopper comes close to it."""

from __future__ import annotations

import pytest

from contracts.catalogue import CatalogueItem
from contracts.events import Purchase
from contracts.semantics import Semantics
from features.bounds import state_bytes_max
from features.fold import fold
from features.state import EXPOSURE_IDS_MAX, DrawRef, Offer, UserState, encode_state
from features.windows import DAY_MS, HOUR_MS, MINUTE_MS

LATEST = 4_102_444_800_000
WIDE = "\U0001f6d2"
"""Four bytes of UTF-8."""
MONEY = 10_000_000_000


def worst_times(events: int) -> list[int]:
    """Every tile of every window, and then the last minute again and again."""
    times = [LATEST - day * DAY_MS for day in range(29, 0, -1)]
    times += [LATEST - hour * HOUR_MS for hour in range(23, 0, -1)]
    times += [LATEST - minute * MINUTE_MS for minute in range(59, -1, -1)]
    return times + [LATEST] * events


def worst_state(semantics: Semantics) -> UserState:
    state = UserState()
    for number, at_ms in enumerate(worst_times(semantics.history_events_max + semantics.recent_ids_max)):
        event = Purchase(
            event_id=str(number),
            user="u",
            item=WIDE * 120 + f"{number:08}",
            event_time_ms=at_ms,
            price=MONEY,
            currency="USD",
            quantity=10_000,
            query=WIDE * 512,
            dwell_ms=86_400_000,
        )
        item = CatalogueItem(
            item=event.item,
            valid_from_ms=0,
            title="",
            category=WIDE * 248 + f"{number:08}",
            brand=WIDE * 248 + f"{number:08}",
            currency="USD",
            list_price=1,
        )
        fold(state, event, item, semantics)
    for number in range(semantics.offers_max):
        offer = Offer(MONEY, MONEY, 10_000, 0.3, "f" * 32, LATEST, LATEST, True, 1 << 62, WIDE * 16)
        state.draws.append(
            DrawRef(WIDE * 120 + f"{number:08}", LATEST, 1 << 62, MONEY, 1 << 62, b"d" * 8 * EXPOSURE_IDS_MAX)
        )
        state.offers[WIDE * 120 + f"{number:08}"] = offer
    return state


@pytest.mark.parametrize(
    "semantics",
    [
        Semantics(consent_default=True),
        Semantics(consent_default=True, history_events_max=1, recent_ids_max=1, offers_max=1),
        Semantics(consent_default=True, history_events_max=1024, recent_ids_max=1024, offers_max=256),
    ],
    ids=["defaults", "least", "most"],
)
def test_the_worst_shopper_comes_close_to_the_stated_bound_and_not_beyond(semantics: Semantics) -> None:
    bound = state_bytes_max(semantics)
    assert 0.9 * bound < len(encode_state(worst_state(semantics))) <= bound


def test_the_bound_fits_into_a_kafka_message_of_default_size_even_at_the_greatest_settings() -> None:
    greatest = Semantics(consent_default=True, history_events_max=1024, recent_ids_max=1024, offers_max=256)
    assert state_bytes_max(greatest) < 1_000_000
