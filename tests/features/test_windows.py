"""The rolling windows by plain examples; tests/laws holds them against a recompute."""

from __future__ import annotations

from contracts.events import Click, Purchase, View
from features.state import UserState
from features.windows import (
    DAY_MS,
    DAYS,
    HOUR_MS,
    HOURS,
    MINUTE_MS,
    MINUTES,
    TILE_BYTES,
    Totals,
    count,
    events_in,
    totals,
)

MIDNIGHT = 1_572_566_400_000
NONE = Totals(0, 0, 0, 0, 0)


def counted(*events: View | Click | Purchase) -> UserState:
    state = UserState()
    for event in events:
        state.last_ms = max(state.last_ms, event.event_time_ms)
        count(state, event)
    return state


def view(at_ms: int, dwell_ms: int | None = None) -> View:
    return View(event_id="e", user="u", item="i", event_time_ms=at_ms, price=1, currency="USD", dwell_ms=dwell_ms)


def purchase(at_ms: int, price: int, quantity: int) -> Purchase:
    return Purchase(
        event_id="e", user="u", item="i", event_time_ms=at_ms, price=price, currency="USD", quantity=quantity
    )


def test_an_event_counts_in_all_three_windows_and_money_is_price_times_quantity() -> None:
    state = counted(view(MIDNIGHT, dwell_ms=700), purchase(MIDNIGHT + 5, price=1999, quantity=3))
    assert totals(state, MIDNIGHT + 5) == (Totals(1, 0, 1, 5997, 700),) * 3


def test_windows_forget_tile_by_tile_and_the_longer_ones_remember() -> None:
    state = counted(view(MIDNIGHT))
    one = Totals(1, 0, 0, 0, 0)
    assert totals(state, MIDNIGHT + MINUTES * MINUTE_MS - 1) == (one, one, one)
    assert totals(state, MIDNIGHT + MINUTES * MINUTE_MS) == (NONE, one, one)
    assert totals(state, MIDNIGHT + HOURS * HOUR_MS - 1) == (NONE, one, one)
    assert totals(state, MIDNIGHT + HOURS * HOUR_MS) == (NONE, NONE, one)
    assert totals(state, MIDNIGHT + DAYS * DAY_MS - 1) == (NONE, NONE, one)
    assert totals(state, MIDNIGHT + DAYS * DAY_MS) == (NONE, NONE, NONE)


def test_a_finer_tile_at_the_edge_of_a_coarser_one_goes_with_it() -> None:
    last_minute = counted(view(MIDNIGHT + 59 * MINUTE_MS))
    assert [total.views for total in totals(last_minute, MIDNIGHT + HOURS * HOUR_MS)] == [0, 0, 1]
    assert [total.views for total in totals(last_minute, MIDNIGHT + DAYS * DAY_MS)] == [0, 0, 0]
    hours_of_a_day = counted(view(MIDNIGHT), view(MIDNIGHT + 22 * HOUR_MS), view(MIDNIGHT + 24 * HOUR_MS - 1))
    assert [total.views for total in totals(hours_of_a_day, MIDNIGHT + DAYS * DAY_MS - 1)] == [0, 0, 3]
    assert [total.views for total in totals(hours_of_a_day, MIDNIGHT + DAYS * DAY_MS)] == [0, 0, 0]
    last_hour = counted(view(MIDNIGHT + 23 * HOUR_MS), view(MIDNIGHT + 25 * HOUR_MS))
    assert [total.views for total in totals(last_hour, MIDNIGHT + DAYS * DAY_MS)] == [0, 0, 1]


def test_a_late_event_counts_in_the_windows_it_still_falls_into_and_no_other() -> None:
    now = MIDNIGHT + 5 * DAY_MS
    state = counted(view(now), view(now - 2 * HOUR_MS), view(now - 3 * DAY_MS), view(now - 40 * DAY_MS))
    assert [total.views for total in totals(state, now)] == [1, 2, 3]


def test_the_tiles_of_a_window_never_exceed_their_number() -> None:
    state = counted(*(view(MIDNIGHT + step * MINUTE_MS) for step in range(32 * 24 * 60)))
    assert len(state.minutes) == MINUTES * TILE_BYTES
    assert len(state.hours) <= HOURS * TILE_BYTES
    assert len(state.days) <= DAYS * TILE_BYTES
    late = counted(*(view(MIDNIGHT + 50 * DAY_MS - step * 7 * MINUTE_MS) for step in range(12_000)))
    # What the minutes hold is not in the hours, and what the hours hold not in the days.
    assert [len(tiles) // TILE_BYTES for tiles in (late.minutes, late.hours, late.days)] == [9, 22, 29]


def test_the_greatest_spend_and_dwell_do_not_run_into_the_neighbouring_fields() -> None:
    greatest = Purchase(
        event_id="e",
        user="u",
        item="i",
        event_time_ms=4_102_444_800_000,
        price=10_000_000_000,
        currency="USD",
        quantity=10_000,
        dwell_ms=86_400_000,
    )
    state = counted(*[greatest] * 1000)
    assert totals(state, state.last_ms)[2] == Totals(0, 0, 1000, 1000 * 10**14, 1000 * 86_400_000)


def test_a_minute_tells_how_many_events_it_holds() -> None:
    state = counted(view(MIDNIGHT), view(MIDNIGHT + 1), purchase(MIDNIGHT + 2, 1, 1), view(MIDNIGHT + 2 * MINUTE_MS))
    first = MIDNIGHT // MINUTE_MS
    assert [events_in(state, minute) for minute in range(first - 1, first + 4)] == [0, 3, 0, 1, 0]
    assert events_in(UserState(), first) == 0
