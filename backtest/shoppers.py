"""Generated shoppers: a plausible log of a shop that does not exist, for the demo and for tests. Deterministic by seed.

Shoppers come, look for something in one category, come back to what they liked, put it into the cart, sometimes buy. Most
grant consent, some deny, some never say anything, some withdraw. Now and then a producer sends rubbish. Nobody reacts to
prices here: offers are not shown. Not a simulator for policies, and no source of findings about people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate, islice
from pathlib import Path
from random import Random

from msgspec.structs import replace

from backtest import synthetic
from backtest.rees46 import session_intent_policy
from contracts.errors import BadInput
from contracts.log import Manifest
from contracts.log_files import Format
from contracts.log_rows import CatalogueRow, EventRow
from contracts.log_writer import LogWriter
from contracts.semantics import Semantics, Topology

START_MS = 1_762_160_400_000
"""2025-11-03 09:00 UTC."""
_ROWS_AT_A_TIME = 4_096
_SESSION_BREAK_MS = 2_700_000
_ARRIVE_WITHIN_MS = 3_600_000
_GROUPS = {
    "phones": (("phone case", 1_900), ("smartphone", 52_900), ("charger", 2_900)),
    "audio": (("headphones", 8_900), ("speaker", 12_900), ("turntable", 24_900)),
    "kitchen": (("kettle", 3_900), ("espresso machine", 34_900), ("knife", 5_900)),
    "garden": (("lawn mower", 28_900), ("watering can", 1_500), ("grill", 18_900)),
    "toys": (("building blocks", 4_900), ("puzzle", 1_700), ("train set", 9_900)),
    "shoes": (("running shoes", 11_900), ("sandals", 4_500), ("boots", 13_900)),
}
_BRANDS = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Ginkgo", "Hazel")
_RULES = (
    "Everything: shoppers, items, prices and events are generated from a seed; no shop and no person is behind them.",
    "One record in 250 is bad on purpose: broken JSON, a price of zero, another currency, or a time in the future.",
)


@dataclass(slots=True)
class _Shopper:
    name: str
    consents: bool | None
    withdraws_after: int | None
    events: int = 0
    sessions: int = 0
    events_left: int = 0
    category: str = ""
    liked: list[int] = field(default_factory=list)
    """Items looked at in this session, as places in the shop's list."""
    cart: list[int] = field(default_factory=list)


class _Shop:
    """The items, and which of them people look at."""

    def __init__(self, random: Random, currency: str, items: int) -> None:
        self.items: list[CatalogueRow] = []
        self.by_category: dict[str, list[int]] = {name: [] for name in _GROUPS}
        self.popularity: dict[str, list[float]] = {}
        names = list(_GROUPS)
        for number in range(items):
            category = names[number % len(names)]
            noun, typical = random.choice(_GROUPS[category])
            brand = random.choice(_BRANDS)
            dollars = max(1, round(typical * random.lognormvariate(0.0, 0.35) / 100))
            row = CatalogueRow(
                item=f"item-{number:04d}", valid_from_ms=0, title=f"{brand} {noun}", category=category, brand=brand,
                currency=currency, list_price=dollars * 100 - random.choice((1, 5, 51)),
            )  # fmt: skip
            self.by_category[category].append(number)
            self.items.append(synthetic.with_bounds(row))
        for category, members in self.by_category.items():
            self.popularity[category] = list(accumulate(1.0 / (rank + 1) for rank in range(len(members))))

    def browse(self, random: Random, category: str) -> int:
        """Return an item of the category, popular ones more often (Zipf)."""
        return random.choices(self.by_category[category], cum_weights=self.popularity[category])[0]

    def repriced(self, random: Random, at_ms: int) -> Iterator[CatalogueRow]:
        """Give a fifth of the items a new list price from `at_ms` on, and return those versions."""
        for place in sorted(random.sample(range(len(self.items)), len(self.items) // 5)):
            old = self.items[place]
            assert old.list_price is not None
            dollars = max(1, round(old.list_price * random.choice((0.9, 0.95, 1.05, 1.1)) / 100))
            new = synthetic.with_bounds(replace(old, valid_from_ms=at_ms, list_price=dollars * 100 - 1))
            self.items[place] = new
            yield new


class _Traffic:
    """The stream of events, by time."""

    def __init__(self, random: Random, shop: _Shop, users: int, currency: str) -> None:
        self.now_ms = START_MS
        self._random = random
        self._shop = shop
        self._currency = currency
        self._coming: list[tuple[int, int]] = []
        self._shoppers: list[_Shopper] = []
        self._emitted = 0
        for number in range(users):
            says = random.choices((True, False, None), weights=(75, 10, 15))[0]
            withdraws = random.randint(1, 8) if says and random.random() < 0.08 else None
            self._shoppers.append(_Shopper(f"shopper-{number:05d}", says, withdraws))
            heappush(self._coming, (START_MS + random.randrange(_ARRIVE_WITHIN_MS), number))

    def rows(self, events: int) -> Iterator[EventRow]:
        """Yield `events` events by arrival, and the consents that come between them."""
        for number in range(self._emitted, self._emitted + events):
            now_ms, place = heappop(self._coming)
            self.now_ms, self._emitted = now_ms, number + 1
            shopper = self._shoppers[place]
            yield from self._consents(shopper, now_ms)
            if shopper.events_left == 0:
                self._begin(shopper)
            row = self._event(shopper, f"e{number:08d}", now_ms)
            yield self._spoil(row) if self._random.random() < 0.004 else row
            shopper.events += 1
            shopper.events_left -= 1
            pause_ms = int(self._random.lognormvariate(9.9, 0.8))
            if shopper.events_left == 0:
                pause_ms += _SESSION_BREAK_MS + int(self._random.expovariate(1 / 10_800_000))
            heappush(self._coming, (now_ms + pause_ms, place))

    def _consents(self, shopper: _Shopper, now_ms: int) -> Iterator[EventRow]:
        says = None
        if shopper.events == 0:
            says = shopper.consents
        elif shopper.events == shopper.withdraws_after:
            says = False
        if says is not None:
            yield EventRow("consent", user=shopper.name, granted=says, event_time_ms=now_ms, arrival_ms=now_ms)

    def _begin(self, shopper: _Shopper) -> None:
        shopper.sessions += 1
        shopper.events_left = 1 + min(int(self._random.expovariate(1 / 6)), 40)
        shopper.category = self._random.choice(list(_GROUPS))
        shopper.liked.clear()
        shopper.cart.clear()

    def _event(self, shopper: _Shopper, event_id: str, now_ms: int) -> EventRow:
        """Return what the shopper does next: buy from the cart, act on something liked, or look around."""
        random = self._random
        if shopper.cart and random.random() < 0.35:
            quantity = random.choices((1, 2, 3), weights=(90, 8, 2))[0]
            return self._row("purchase", shopper, event_id, now_ms, shopper.cart.pop(), quantity=quantity)
        if shopper.liked and random.random() < 0.3:
            place = random.choice(shopper.liked)
            action = random.choices(("add_to_cart", "click", "wishlist"), weights=(45, 45, 10))[0]
            if action == "add_to_cart":
                shopper.cart.append(place)
            elif place in shopper.cart and random.random() < 0.3:
                shopper.cart.remove(place)
                action = "remove_from_cart"
            return self._row("click", shopper, event_id, now_ms, place, action=action)
        again = shopper.liked and random.random() < 0.4
        place = random.choice(shopper.liked) if again else self._shop.browse(random, shopper.category)
        query = None
        if not shopper.liked and random.random() < 0.4:
            query = (self._shop.items[place].title or "").lower()
        if place not in shopper.liked:
            shopper.liked.append(place)
        dwell_ms = min(int(random.lognormvariate(9.6, 1.0)), 1_800_000)
        return self._row("view", shopper, event_id, now_ms, place, query=query, dwell_ms=dwell_ms)

    def _row(
        self,
        kind: str,
        shopper: _Shopper,
        event_id: str,
        now_ms: int,
        place: int,
        *,
        action: str | None = None,
        quantity: int | None = None,
        query: str | None = None,
        dwell_ms: int | None = None,
    ) -> EventRow:
        item = self._shop.items[place]
        return EventRow(
            kind, event_id=event_id, user=shopper.name, item=item.item, event_time_ms=now_ms, price=item.list_price,
            currency=self._currency, market="us", session=f"{shopper.name}-{shopper.sessions}", dwell_ms=dwell_ms,
            query=query, action=action, quantity=quantity, arrival_ms=now_ms,
        )  # fmt: skip

    def _spoil(self, row: EventRow) -> EventRow:
        """Return the record that a broken producer sends in place of `row`."""
        fault = self._random.randrange(4)
        if fault == 0:
            assert row.user is not None
            return EventRow(
                row.type, arrival_ms=row.arrival_ms, key=row.user.encode(), raw=b'{"type": "view", "user": '
            )
        if fault == 1:
            return replace(row, price=0)
        if fault == 2:
            return replace(row, currency="EUR")
        return replace(row, event_time_ms=row.arrival_ms + 86_400_000)


def generate_log(
    directory: Path, users: int, events: int, seed: int, topology: Topology, file_format: Format = "parquet"
) -> Manifest:
    """Write a generated log and return its manifest; equal arguments give equal files.

    Args:
        directory: must not hold a log.
        users: shoppers, at least 1.
        events: views, clicks, purchases and bad records together; consents come on top.
        seed: of everything.
        topology: partitions and topic names of the log.
        file_format: of its tables.

    Raises:
        BadInput: a number is too small, or `directory` holds a log already.
    """
    if users < 1 or events < 1:
        raise BadInput(f"{users} users and {events} events: use at least one of each")
    random = Random(seed)
    manifest = Manifest(
        semantics=Semantics(consent_default=False),
        topology=topology,
        source=f"Generated: pricetide generate --users {users} --events {events} --seed {seed}",
        offers="not_shown",
        synthetic=_RULES + synthetic.RULES_BOUNDS,
    )
    currency = manifest.semantics.currency
    shop = _Shop(random, currency, items=max(60, min(users // 2, 2_000)))
    traffic = _Traffic(random, shop, users, currency)
    with LogWriter(directory, manifest, file_format) as writer:
        writer.policies(session_intent_policy())
        writer.catalogue(shop.items)
        _write(writer, traffic.rows(events // 2))
        writer.catalogue(list(shop.repriced(random, traffic.now_ms)))
        _write(writer, traffic.rows(events - events // 2))
    return writer.manifest


def _write(writer: LogWriter, rows: Iterator[EventRow]) -> None:
    while some := list(islice(rows, _ROWS_AT_A_TIME)):
        writer.rows(some)
