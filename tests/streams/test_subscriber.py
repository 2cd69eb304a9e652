"""What a downstream service sees: the newest price, until it expires, unless the kill switch is on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.policies import KillSwitch, encode_policy, policy_key
from contracts.prices import PriceUpdate, encode_price, price_key
from streams.subscriber import PriceBook, Removal


def update(version: int = 1, price: int = 900, **fields) -> PriceUpdate:
    filled = {
        "decision_id": f"d{version}", "user": "u", "item": "i", "market": None, "currency": "USD", "price": price,
        "list_price": 1_000, "valid_from_ms": 1_000, "valid_until_ms": 2_000, "version": version,
        "reasons": ("session_intent",), "status": "drawn", "draw_id": f"d{version}",
    }  # fmt: skip
    return PriceUpdate(**filled | fields)


def put(book: PriceBook, *updates: PriceUpdate) -> list:
    return [book.apply(price_key(one.user, one.item), encode_price(one)) for one in updates]


def throw(book: PriceBook, offset: int, on: bool) -> None:
    book.apply_policy(offset, policy_key(KillSwitch(on=on)), encode_policy(KillSwitch(on=on)))


def test_a_newer_version_replaces_an_older_one():
    book = PriceBook()
    put(book, update(1, 900), update(2, 800))
    assert book.price("u", "i", now_ms=1_500).price == 800


@pytest.mark.parametrize("late", [1, 2])
def test_an_older_or_equal_version_changes_nothing(late):
    book = PriceBook()
    assert put(book, update(2, 800), update(late, 700)) == [update(2, 800), None]
    assert book.price("u", "i", now_ms=1_500).price == 800


def test_prices_of_other_users_and_items_are_their_own():
    book = PriceBook()
    put(book, update(1, 900), update(2, 800, user="v"), update(3, 700, item="j"))
    assert [book.price(*place, now_ms=1_500).price for place in (("u", "i"), ("v", "i"), ("u", "j"))] == [900, 800, 700]


def test_an_unknown_price_is_none():
    assert PriceBook().price("u", "i") is None


def test_a_price_holds_until_but_not_at_its_end():
    book = PriceBook()
    put(book, update())
    assert book.price("u", "i", now_ms=1_999) is not None
    assert book.price("u", "i", now_ms=2_000) is None


def test_an_expired_price_gives_way_to_a_deployment_that_counts_its_versions_anew():
    """Topics, changelog and group begun anew, subscribers not: the price that has expired must not hold off its successors."""
    book = PriceBook()
    put(book, update(1_000))
    assert put(book, update(1, price=800, valid_from_ms=1_999)) == [None]
    assert book.price("u", "i", now_ms=1_999).price == 900
    put(book, update(2, price=700, valid_from_ms=2_000, valid_until_ms=3_000))
    assert book.price("u", "i", now_ms=2_000).price == 700


def test_a_price_without_an_end_stays():
    book = PriceBook()
    put(book, update(valid_until_ms=None, status="list", draw_id=None))
    assert book.price("u", "i", now_ms=4_000_000_000_000) is not None


def test_by_the_wall_clock_a_price_of_long_ago_is_gone():
    book = PriceBook("wall")
    put(book, update())
    assert book.price("u", "i") is None


def test_by_stream_time_a_price_expires_when_a_later_update_was_seen():
    book = PriceBook("stream")
    put(book, update())
    assert book.price("u", "i").price == 900
    put(book, update(2, user="v", valid_from_ms=2_000, valid_until_ms=3_000))
    assert book.price("u", "i") is None
    assert book.price("v", "i") is not None


def test_stream_time_never_runs_back():
    book = PriceBook("stream")
    put(book, update(1, valid_from_ms=5_000), update(2, user="v", valid_from_ms=3_000))
    assert book.now_ms() == 5_000


def test_a_tombstone_removes_a_price():
    book = PriceBook()
    put(book, update())
    assert book.apply(price_key("u", "i"), None) == Removal("u", "i")
    assert book.price("u", "i", now_ms=1_500) is None
    assert book.apply(price_key("u", "i"), None) is None


def test_under_the_kill_switch_every_price_is_the_list_price_and_afterwards_the_offer_again():
    book = PriceBook()
    put(book, update())
    throw(book, 0, on=True)
    killed = book.price("u", "i", now_ms=1_500)
    assert (killed.price, killed.reasons, killed.status, killed.draw_id) == (1_000, ("kill_switch",), "list", None)
    throw(book, 1, on=False)
    assert book.price("u", "i", now_ms=1_500) == update()


def test_the_kill_switch_brings_no_expired_price_back():
    book = PriceBook()
    put(book, update())
    throw(book, 0, on=True)
    assert book.price("u", "i", now_ms=2_000) is None


@pytest.mark.parametrize("value", [b"", b"\xff", b"{}", b'{"on": true}', b'{"more": ' + b"[" * 10_000])
def test_a_foreign_record_is_passed_over_and_counted(value):
    book = PriceBook()
    assert book.apply(b"k", value) is None
    book.apply_policy(0, b"k", value)
    assert (book.unreadable, len(book), book.kill_switch) == (2, 0, False)


@pytest.mark.parametrize("key", [None, b"", b"u", b'["u"]'])
def test_a_tombstone_without_a_proper_key_is_passed_over(key):
    book = PriceBook()
    put(book, update())
    assert book.apply(key, None) is None
    assert len(book) == 1


def test_memory_is_bounded_and_the_price_updated_longest_ago_goes_first():
    book = PriceBook(prices_max=2)
    put(book, update(1, item="a"), update(2, item="b"), update(3, item="a"), update(4, item="c"))
    assert len(book) == 2
    assert book.price("u", "b", now_ms=1_500) is None
    assert book.price("u", "a", now_ms=1_500).version == 3


def test_a_sweep_forgets_what_has_expired_and_nothing_else():
    book = PriceBook("stream")
    put(book, update(1), update(2, item="j", valid_until_ms=None), update(3, item="k", valid_from_ms=2_500))
    put(book, update(4, item="l", valid_from_ms=2_500, valid_until_ms=9_000))
    assert book.sweep() == 2
    assert sorted(item for item in "ijkl" if book.price("u", item) is not None) == ["j", "l"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 20), st.integers(1, 1_000)), max_size=40))
def test_the_book_equals_the_highest_version_of_each_item(steps):
    book, naive = PriceBook(), {}
    for item, version, price in steps:
        one = update(version, price, item=item)
        put(book, one)
        if item not in naive or version > naive[item].version:
            naive[item] = one
    assert {item: book.price("u", item, now_ms=1_500) for item in naive} == naive
