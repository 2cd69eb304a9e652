"""The profile in words: what it says, and that it is bounded, pure and never fails."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.catalogue import CatalogueItem
from contracts.events import Click, Purchase, View
from contracts.semantics import Semantics
from features.fold import fold
from features.profile import NOTHING, PROFILE_CHARS_MAX, profile_of
from features.state import UserState, decode_state, encode_state
from features.windows import DAY_MS, HOUR_MS

MIDNIGHT = 1_572_566_400_000
SEMANTICS = Semantics(consent_default=True)


def item(name, category="electronics.smartphone", brand="Xiaomi", price=49_000):
    return CatalogueItem(
        item=name, valid_from_ms=0, title=name, category=category, brand=brand, currency="USD", list_price=price
    )


@dataclass
class Shopper:
    catalogue: dict[str, CatalogueItem]
    state: UserState = field(default_factory=UserState)
    events: int = 0

    def does(self, kind, name, at_ms=MIDNIGHT, price=None, **more):
        self.events += 1
        known = self.catalogue.get(name)
        price = price or (known.list_price if known else 1_000)
        event = kind(
            event_id=str(self.events), user="u", item=name, event_time_ms=at_ms, price=price, currency="USD", **more
        )
        fold(self.state, event, known, SEMANTICS)
        return self

    def profile(self, at_ms=MIDNIGHT, currency="USD"):
        return profile_of(self.state, at_ms, lambda name, _: self.catalogue.get(name), currency)


def shop(*items):
    return Shopper({one.item: one for one in items})


def test_a_day_is_told_in_one_sentence() -> None:
    phones = [item(f"phone-{number}", price=48_500 + 100 * number) for number in range(14)]
    charger = item("charger", "electronics.charger", "Anker", 2_900)
    shopper = shop(*phones, charger)
    for phone in phones:
        shopper.does(View, phone.item)
    shopper.does(Click, "charger", action="add_to_cart").does(Purchase, "charger")
    assert shopper.profile().startswith(
        "In the last day viewed 14 smartphones, mostly Xiaomi around 490 USD; put one charger into the cart; "
        "bought one charger."
    )


def test_an_item_looked_at_five_times_is_one_item() -> None:
    shopper = shop(item("phone"))
    for _ in range(5):
        shopper.does(View, "phone")
    assert "viewed one smartphone of Xiaomi at 490 USD" in shopper.profile()


def test_no_brand_is_named_that_is_not_most_of_it() -> None:
    shopper = shop(item("a", brand="Alder"), item("b", brand="Birch")).does(View, "a").does(View, "b")
    assert "viewed 2 smartphones around 490 USD." in shopper.profile()


@pytest.mark.parametrize(
    ("category", "one", "three"),
    [
        ("electronics.smartphone", "one smartphone", "3 smartphones"),
        ("apparel.running_shoes", "one running shoe", "3 running shoes"),
        ("apparel.accessories", "one accessory", "3 accessories"),
        ("apparel.ties", "one tie", "3 ties"),
        ("apparel.hoodies", "one hoodie", "3 hoodies"),
        ("electronics.clocks.watches", "one watch", "3 watches"),
        ("apparel.dress", "one dress", "3 dresses"),
        ("apparel.dresses", "one dress", "3 dresses"),
        ("furniture.shelves", "one shelf", "3 shelves"),
        ("apparel.scarves", "one scarf", "3 scarves"),
        ("apparel.scarf", "one scarf", "3 scarves"),
        ("computers.peripherals.mouse", "one mouse", "3 mice"),
        ("electronics.camera.lens", "one lens", "3 lenses"),
        ("media.series", "one series", "3 series"),
        ("apparel.jeans", "one jeans", "3 jeans"),
        ("apparel.winter_underwear", "one winter underwear", "3 winter underwear"),
        ("sport.tennis", "one tennis", "3 tennis"),
        ("sport.table_tennis", "one table tennis", "3 table tennis"),
        ("auto.chassis", "one chassis", "3 chassis"),
        ("garden.cactus", "one cactus", "3 cactuses"),
        ("toys.toys", "one toy", "3 toys"),
        ("books.dictionary", "one dictionary", "3 dictionaries"),
        ("kitchen.gas", "one gas", "3 gases"),
    ],
)
def test_a_category_is_an_english_noun_in_singular_and_plural(category, one, three) -> None:
    shopper = shop(*(item(name, category, "") for name in "abc"))
    assert f"viewed {one} at" in shopper.does(View, "a").profile()
    assert f"viewed {three} around" in shopper.does(View, "b").does(View, "c").profile()


def test_few_kinds_of_items_are_named_and_the_rest_is_counted() -> None:
    kinds = ["chair", "desk", "lamp", "shelf", "sofa"]
    shopper = shop(*(item(kind, kind, price=1_000) for kind in kinds))
    for kind in kinds:
        shopper.does(View, kind)
    assert "one chair of Xiaomi at 10 USD, one desk" in shopper.profile()
    assert "and 2 others." in shopper.profile()


def test_what_was_before_the_last_day_is_not_in_it() -> None:
    shopper = shop(item("phone")).does(View, "phone")
    assert "In the last day" in shopper.profile(MIDNIGHT + DAY_MS - 1)
    assert "In the last day" not in shopper.profile(MIDNIGHT + DAY_MS)


def test_purchases_of_the_month_are_told_when_the_day_does_not_tell_them() -> None:
    shopper = shop(item("phone")).does(Purchase, "phone", quantity=2)
    assert "30 days" not in shopper.profile()
    assert "In the last 30 days bought once, for about 980 USD in all." in shopper.profile(MIDNIGHT + 3 * DAY_MS)


def test_likes_are_told_strongest_first_and_fade() -> None:
    shopper = shop(item("a", "toys.puzzles", "Fir"), item("b", "shoes", "Elm"))
    shopper.does(View, "a").does(View, "a").does(View, "b")
    assert shopper.profile().endswith("Likes puzzles and shoes by Fir and Elm.")
    assert shopper.profile(MIDNIGHT + 8 * DAY_MS) == "Likes puzzles by Fir."
    assert shopper.profile(MIDNIGHT + 60 * DAY_MS) == NOTHING


def test_a_day_longer_than_the_history_says_at_least() -> None:
    shopper = shop(*(item(f"phone-{number}") for number in range(200)))
    for number in range(200):
        shopper.does(View, f"phone-{number}", MIDNIGHT + number * 1000)
    assert f"viewed at least {SEMANTICS.history_events_max} smartphones" in shopper.profile(MIDNIGHT + HOUR_MS)


def test_an_item_outside_the_catalogue_is_an_item_and_a_numeric_category_no_word() -> None:
    shopper = shop(item("numbered", category="2053013555631882655", brand="", price=1_000))
    shopper.does(View, "unknown", price=1_000).does(View, "numbered")
    assert shopper.profile() == "In the last day viewed 2 items around 10 USD."


def test_amounts_follow_the_minor_unit_of_the_currency() -> None:
    shopper = shop(item("phone", price=52_345)).does(View, "phone")
    assert "at 52,000 JPY" in shopper.profile(currency="JPY")


def test_a_user_nothing_is_known_of() -> None:
    assert profile_of(UserState(), MIDNIGHT, lambda name, at_ms: None, "USD") == NOTHING


labels = st.text(max_size=256)
catalogues = st.dictionaries(
    st.text(min_size=1, max_size=128), st.tuples(labels, labels, st.integers(1, 10**10)), min_size=1, max_size=8
)
steps = st.lists(
    st.tuples(st.sampled_from([View, Click, Purchase]), st.integers(0, 9), st.integers(0, 40 * DAY_MS)), max_size=40
)


@given(catalogues, steps, st.integers(0, 60 * DAY_MS))
def test_any_state_has_a_profile_of_one_short_line_that_depends_on_nothing_else(known, done, later_ms) -> None:
    names = list(known)
    shopper = Shopper({name: item(name, *labelled) for name, labelled in known.items()})
    for kind, place, after_ms in done:
        name = names[place] if place < len(names) else "not in the catalogue"
        shopper.does(kind, name, MIDNIGHT + after_ms)
    before = encode_state(shopper.state)
    told = shopper.profile(MIDNIGHT + later_ms)
    assert 0 < len(told) <= PROFILE_CHARS_MAX
    assert len(told.splitlines()) == 1
    assert encode_state(shopper.state) == before
    shopper.state = decode_state(before)
    assert shopper.profile(MIDNIGHT + later_ms) == told
