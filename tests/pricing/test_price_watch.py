"""pricing.price_watch: windows of published prices, what is beyond the limits, and that no batch or interleaving matters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.decisions import Decision
from contracts.policies import Policy, Rails, SessionIntent
from pricing.price_watch import TILES, Limits, PriceWatch, breaches
from tests.pricing.shop import START_MS, Shop

MINUTE = 60_000
LIMITS = Limits(window_ms=10 * MINUTE, draws_min=3)
POLICY = Policy(name="steady", number=1, rule=SessionIntent(explore=0.0), rails=Rails(charm_endings=()))


def a_draw() -> Decision:
    return Shop().one(Shop().view())


DRAW = a_draw()  # 8,500 of 10,000, the lowest of four feasible prices
START = START_MS - START_MS % MINUTE


def draw(minute: float, price: int = 8_500, user: str = "ann", **more) -> Decision:
    at = START + int(minute * MINUTE)
    return replace(DRAW, price=price, user=user, event_time_ms=at, valid_from_ms=at, **more)


def windows(*decisions: Decision, limits: Limits = LIMITS):
    watch = PriceWatch(limits)
    for one in decisions:
        watch.add(one, POLICY)
    return list(watch.ended(final=True))


def test_a_window_has_the_mean_and_the_share_at_the_lowest_price_of_its_draws():
    (window,) = windows(draw(0, 8_500, "a"), draw(0.1, 9_000, "b"), draw(0.2, 10_000, "c"), draw(0.3, 8_500, "d"))
    assert window.end_ms == START + MINUTE
    assert (window.draws, window.mean_permille, window.lowest_share) == (4, 900.0, 0.5)


def test_only_draws_have_a_mean_and_only_real_choices_a_lowest_price():
    held = draw(0.1, user="a", status="held", draw_id="x")
    forced, held_out = draw(0.2, 10_000, "b", forced=True), draw(0.3, 10_000, "c", held_out=True)
    (window,) = windows(draw(0, 8_500, "a"), held, forced, held_out)
    assert (window.draws, window.lowest_share) == (3, 1.0)
    assert window.mean_permille == pytest.approx((850 + 1000 + 1000) / 3)


def test_a_decision_counts_in_the_windows_of_ten_tiles_and_in_no_other():
    ticks = [draw(minute, 10_000, f"tick {minute}") for minute in range(1, 14)]
    found = windows(draw(0, 8_500, "deep"), *ticks)
    assert [window.end_ms for window in found] == [START + (minute + 1) * MINUTE for minute in range(14)]
    assert [window.mean_permille < 1000 for window in found] == [True] * TILES + [False] * 4


def test_changes_are_counted_per_shopper_and_item_and_returns_to_list_are_none():
    bought = draw(3, 10_000, status="list", draw_id=None)
    (*_, last) = windows(
        draw(0, 8_500), draw(1, 8_500, status="held"), draw(2, 9_000), bought, draw(4, 8_500), draw(4.1, 9_000, "bob")
    )
    assert (last.again, last.changed_share) == (2, 0.5)


@pytest.mark.parametrize(
    ("prices", "limits", "what", "words"),
    [
        ([5_000, 5_000, 5_000], {}, "mean_min_permille", "mean multiplier of 500 permille, below 800 (3 draws)"),
        ([12_000] * 3, {}, "mean_max_permille", "mean multiplier of 1200 permille, above 1020 (3 draws)"),
        ([8_500] * 3, {"lowest_share_max": 0.9}, "lowest_share_max", "100.0% of draws at the lowest feasible price, more than"),
    ],
)  # fmt: skip
def test_a_window_beyond_a_limit_says_which_and_by_how_much(prices, limits, what, words):
    limits = replace(LIMITS, **limits)
    (window,) = windows(*[draw(0, price, f"u{n}") for n, price in enumerate(prices)], limits=limits)
    (breach,) = breaches(window, limits)
    assert breach.what == what
    assert breach.sentence.startswith(words)


def test_prices_that_flap_are_a_breach():
    decisions = [draw(n / 60, 8_500 if n % 2 else 9_500) for n in range(20)]
    (window,) = windows(*decisions)
    assert [breach.what for breach in breaches(window, LIMITS)] == ["changed_share_max"]
    assert "100.0% of repeated decisions changed the shopper's price" in breaches(window, LIMITS)[0].sentence


def test_a_few_repeated_decisions_say_nothing_of_prices_that_flap_however_many_draws_there_are():
    once = [draw(n / 60, 9_000, f"u{n}") for n in range(5)]
    (window,) = windows(*once, draw(0.5, 8_500, "u0"), draw(0.6, 8_500, "u1"))
    assert (window.again, window.changed_share) == (2, 1.0)
    assert breaches(window, LIMITS) == []


def test_prices_within_the_limits_and_too_few_draws_are_no_breach():
    (fine,) = windows(*[draw(0, 9_000, f"u{n}") for n in range(5)])
    assert breaches(fine, LIMITS) == []
    (few,) = windows(draw(0, 100, "a"), draw(0, 100, "b"))
    assert breaches(few, LIMITS) == []


def test_a_window_is_given_once_when_its_last_tile_is_over():
    watch = PriceWatch(LIMITS)
    watch.add(draw(0), POLICY)
    watch.add(draw(0.99, user="b"), POLICY)
    assert list(watch.ended()) == []
    watch.add(draw(5, user="c"), POLICY)
    (window,) = watch.ended()
    assert window.draws == 2
    assert list(watch.ended()) == []
    watch.add(draw(2, user="late, but of windows to come"), POLICY)
    watch.add(draw(7, user="d"), POLICY)
    assert [window.draws for window in watch.ended()] == [4]
    assert watch.late == 0


def test_what_comes_after_all_its_windows_is_late_and_counts_in_the_one_that_ends_next():
    watch = PriceWatch(LIMITS)
    watch.add(draw(20), POLICY)
    watch.add(draw(21, user="b"), POLICY)
    list(watch.ended())
    watch.add(draw(12, user="of a window to come"), POLICY)
    assert watch.late == 0
    watch.add(draw(11, 100, user="of none"), POLICY)
    assert watch.late == 1
    watch.add(draw(22, user="c"), POLICY)
    (window,) = watch.ended()
    assert (window.end_ms, window.draws) == (START + 22 * MINUTE, 4)
    assert window.mean_permille == (3 * 850 + 10) / 4


def test_a_partition_that_lags_is_judged_by_itself_in_its_own_time():
    """The trap: one clock for all partitions, and thousands of prices at 1 % of list from one that lags are never looked at."""
    watch, found = PriceWatch(LIMITS), []
    for minute in range(30, 60):
        for number in range(20):
            watch.add(draw(minute, 9_500, f"ahead {minute} {number}"), POLICY, 0)
        watch.add(draw(minute - 30, 100, f"behind {minute}"), POLICY, 1)
        found += watch.ended()
    behind = [window for window in found if window.partition == 1]
    assert [window.end_ms for window in behind] == [START + (minute + 1) * MINUTE for minute in range(29)]
    assert [window.draws for window in behind[-3:]] == [10, 10, 10]
    assert {window.mean_permille for window in behind} == {10.0}
    rung = [breach for window in found for breach in breaches(window, LIMITS)]
    assert {breach.window.partition for breach in rung} == {1}, "the others' windows are full of good prices"
    assert rung[0].sentence == "mean multiplier of 10 permille, below 800 (3 draws of partition 1)"
    everything = sum(window.draws for window in found if window.partition is None)
    assert watch.late > 0 and everything > sum(window.draws for window in found if window.partition == 0)


def test_partitions_with_few_draws_each_are_judged_together():
    watch = PriceWatch(LIMITS)
    for partition in range(6):
        watch.add(draw(0.1 * partition, 100, f"u{partition}"), POLICY, partition)
    found = list(watch.ended(final=True))
    assert [window.draws for window in found] == [6, 1, 1, 1, 1, 1, 1]
    assert [breach.window.partition for window in found for breach in breaches(window, LIMITS)] == [None]


def test_what_is_remembered_of_a_partition_is_bounded_however_it_lags():
    watch = PriceWatch(LIMITS)
    for minute in range(200):
        watch.add(draw(minute + 100, user="a"), POLICY, 0)
        watch.add(draw(minute, user="b"), POLICY, 1)
        list(watch.ended())
    assert all(len(of.tiles) <= TILES for of in watch._tiles.values())


def test_after_a_change_of_what_prices_only_workers_that_have_seen_it_count():
    watch = PriceWatch(LIMITS)
    watch.add(draw(0, 100, "a", policies_seen=2), POLICY)
    watch.begin_anew(5)
    watch.add(draw(0.1, 100, "b", policies_seen=4), POLICY)
    watch.add(draw(0.2, 9_000, "c", policies_seen=5), POLICY)
    (window,) = watch.ended(final=True)
    assert (window.draws, window.mean_permille) == (1, 900.0)


def test_the_first_price_after_a_change_of_what_prices_is_no_change_of_a_shoppers_price():
    watch = PriceWatch(LIMITS)
    watch.add(draw(0, 8_500, "a", policies_seen=2), POLICY)
    watch.begin_anew(5)
    watch.add(draw(0.1, 10_000, "a", policies_seen=5), POLICY)
    (window,) = watch.ended(final=True)
    assert (window.again, window.changed_share) == (0, 0.0)


def test_the_lowest_price_of_an_older_record_is_not_known_without_the_policy_where_endings_bind():
    shop = Shop(policy=Policy(name="charming", number=1, rule=SessionIntent(explore=0.0)))
    decision = replace(shop.one(shop.view()), feasible=None)
    assert "charm" in {step.rail for step in decision.trail}
    for policy, share in ((None, 0.0), (shop.policies.current, 1.0)):
        watch = PriceWatch(LIMITS)
        watch.add(decision, policy)
        (window,) = watch.ended(final=True)
        assert (window.draws, window.lowest_share) == (1, share)


@given(st.integers(0, 1 << 30), st.lists(st.integers(0, 60), max_size=4))
def test_windows_depend_neither_on_batches_nor_on_how_partitions_interleave(seed, cuts):
    dice, minutes = random.Random(seed), range(0, 30, 2)
    partitions = [
        [draw(minute + dice.random(), dice.choice([8_500, 9_000, 10_000]), f"{p}-{dice.randrange(3)}") for minute in minutes]
        for p in range(4)
    ]  # fmt: skip
    whole = PriceWatch(LIMITS)
    for number, decisions in enumerate(partitions):
        for one in decisions:
            whole.add(one, POLICY, number)
    mixed = [(one, number) for number, decisions in enumerate(partitions) for one in decisions]
    watch, found = PriceWatch(LIMITS), []
    for n, (one, number) in enumerate(sorted(mixed, key=lambda pair: pair[0].event_time_ms)):
        watch.add(one, POLICY, number)
        if n in cuts:
            found += watch.ended()
    found += watch.ended(final=True)
    of = [[window for window in found if window.partition == partition] for partition in (None, 0, 1, 2, 3)]
    assert [window for windows_ in of for window in windows_] == list(whole.ended(final=True))


@given(st.integers(0, 1 << 30), st.integers(0, 120))
def test_a_partitions_own_windows_are_the_same_however_far_it_lags(seed, lag):
    dice = random.Random(seed)
    mine = [draw(minute + dice.random(), dice.choice([8_500, 9_000]), f"u{minute}") for minute in range(30)]
    ahead = [draw(minute + lag, user=f"ahead {minute}") for minute in range(30)]
    alone, watch, found = PriceWatch(LIMITS), PriceWatch(LIMITS), []
    for one, other in zip(mine, ahead, strict=True):
        alone.add(one, POLICY, 1)
        watch.add(other, POLICY, 0)
        watch.add(one, POLICY, 1)
        found += watch.ended()
    found += watch.ended(final=True)
    expected = [replace(window, partition=1) for window in alone.ended(final=True)]  # a partition alone is all there is
    assert [window for window in found if window.partition == 1] == expected
