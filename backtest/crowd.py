"""Simulated shoppers in front of a shop that shows prices: from looks at items to the events that the shop sends.

A *look* is somebody who opens the page of an item, with a chance of buying that is known at any price. Which looks there
are does not depend on prices, so every policy meets the same people with the same luck. What follows one does:

    open    a view, at list price: the page asks for the personal one
    see     a click `seen` with the decision that the page rendered, unless the shopper has left; now the mind is made up
    cart    a click `add_to_cart`, by whoever will buy and by some who will not
    buy     a purchase, at the price that was seen

A mind is made up once per draw, so that the chance of a purchase in its window is the look's at its price; a later look while
the offer stands changes nothing. Time is that of the events: the same code serves a simulated engine (backtest.shop_run) and a
real Kafka (`pricetide shoppers`). Not here: who looks, and what they would pay (backtest.passers_by, backtest.street).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from contracts.log_rows import EventRow
from contracts.prices import PriceUpdate

Floats = NDArray[np.float64]

REACT_MS = 2_500
"""Nobody reacts to a price sooner: what happens within so long of each other may be priced in one batch."""
DECIDED_MS = 1_800_000
"""How long a mind stays made up about an item at list price; at a personal one, as long as the offer stands."""
RUSH_MS = 900_000
"""A purchase comes within so long of the look, or not at all."""
MARKET = "us"
_MINDS_MAX = 50_000


class Look(Struct, kw_only=True):
    """Somebody opens the page of an item. Money in minor units."""

    at_ms: int
    user: str
    item: str
    list_price: int
    cost: int
    session: str
    demand: Callable[[Floats], Floats]
    """Chance of buying at each of (k,) multipliers of list price, by whoever sees it."""
    luck: float
    """Buys where this is below the chance."""
    query: str | None = None
    leaves: bool = False
    """Before the price is seen."""
    tempted: bool = False
    """Puts it into the cart without buying."""
    pauses_ms: tuple[int, int, int] = (8_000, 40_000, 120_000)
    """After opening: sees, puts into the cart, buys; each at least REACT_MS after the one before, the last within RUSH_MS."""
    says: bool | None = None
    """Consent, given or withdrawn right before the look."""


class Made(Struct):
    """A draw, and the look that it was made for."""

    look: Look
    seen: bool = False


class _Visit(Struct):
    look: Look
    number: int
    update: PriceUpdate | None = None


class _Mind(Struct):
    draw_id: str | None
    until_ms: int


class Crowd:
    """The shoppers of a sequence of looks."""

    def __init__(self, looks: Iterable[Look], currency: str = "USD") -> None:
        """Take `looks`, which must ascend by time."""
        self._looks: Iterator[Look] = iter(looks)
        self._currency = currency
        self._next: Look | None = next(self._looks, None)
        self._due: list[tuple[int, int, Literal["see", "cart", "buy"], _Visit]] = []
        self._order = count()
        self._asking: dict[tuple[str, str], _Visit] = {}
        self._minds: dict[tuple[str, str], _Mind] = {}
        self.draws: dict[str, Made] = {}
        """Of every draw told, until somebody takes it."""
        self.opened = 0
        """Looks so far."""
        self._events = 0

    def next_ms(self) -> int | None:
        """Return when somebody does something next; None when all have gone."""
        times = [] if self._next is None else [self._next.at_ms]
        if self._due:
            times.append(self._due[0][0])
        return min(times, default=None)

    def until(self, ms: int) -> list[EventRow]:
        """Return what happens before `ms`, by time. Prices of earlier events must have been told.

        Args:
            ms: at most `next_ms() + REACT_MS`.
        """
        rows: list[EventRow] = []
        while (now := self.next_ms()) is not None and now < ms:
            if self._next is not None and self._next.at_ms == now:
                rows += self._open(self._next)
                self._next = next(self._looks, None)
            else:
                at_ms, _, act, visit = heappop(self._due)
                row = self._acts(act, visit, at_ms)
                if row is not None:
                    rows.append(row)
        return rows

    def told(self, update: PriceUpdate) -> None:
        """Take the price that the shop has been told for a user and an item."""
        visit = self._asking.get((update.user, update.item))
        if visit is None or (visit.update is not None and visit.update.version >= update.version):
            return
        visit.update = update
        if update.status == "drawn" and update.draw_id is not None:
            self.draws[update.draw_id] = Made(visit.look)

    def _open(self, look: Look) -> Iterator[EventRow]:
        self.opened += 1
        if look.says is not None:
            yield EventRow(
                "consent", user=look.user, granted=look.says, event_time_ms=look.at_ms, arrival_ms=look.at_ms
            )
        visit = _Visit(look, self.opened)
        self._asking[look.user, look.item] = visit
        self._later("see", visit, look.pauses_ms[0])
        yield self._event("view", visit, look.at_ms, look.list_price, None)

    def _later(self, act: Literal["see", "cart", "buy"], visit: _Visit, pause_ms: int) -> None:
        heappush(self._due, (visit.look.at_ms + pause_ms, next(self._order), act, visit))

    def _acts(self, act: str, visit: _Visit, now_ms: int) -> EventRow | None:
        price, decision_id = _shown(visit)
        if act == "see":
            return self._sees(visit, now_ms)
        if act == "cart":
            return self._event("click", visit, now_ms, price, decision_id, action="add_to_cart")
        self._forget(visit)
        return self._event("purchase", visit, now_ms, price, decision_id, quantity=1)

    def _sees(self, visit: _Visit, now_ms: int) -> EventRow | None:
        """Let the shopper see the price, or be gone; decide, once per draw."""
        look, (price, decision_id) = visit.look, _shown(visit)
        draw_id = None if visit.update is None else visit.update.draw_id
        mind = self._minds.get((look.user, look.item))
        decided = mind is not None and (mind.draw_id == draw_id if draw_id is not None else now_ms < mind.until_ms)
        if not decided:
            self._minds[look.user, look.item] = _Mind(draw_id, now_ms + DECIDED_MS)
            self._tidy(now_ms)
        if look.leaves or decided:
            self._forget(visit)
            return None
        if draw_id in self.draws:
            self.draws[draw_id].seen = True
        buys = look.luck < float(look.demand(np.array([price / look.list_price]))[0])
        if buys or look.tempted:
            self._later("cart", visit, look.pauses_ms[1])
        if buys:
            self._later("buy", visit, look.pauses_ms[2])
        else:
            self._forget(visit)
        return self._event("click", visit, now_ms, price, decision_id, action="seen")

    def _forget(self, visit: _Visit) -> None:
        place = (visit.look.user, visit.look.item)
        if self._asking.get(place) is visit:
            del self._asking[place]

    def _tidy(self, now_ms: int) -> None:
        if len(self._minds) > _MINDS_MAX:
            self._minds = {place: mind for place, mind in self._minds.items() if mind.until_ms > now_ms}

    def _event(
        self,
        kind: str,
        visit: _Visit,
        now_ms: int,
        price: int,
        decision_id: str | None,
        action: str | None = None,
        quantity: int | None = None,
    ) -> EventRow:
        look = visit.look
        self._events += 1
        return EventRow(
            kind, event_id=f"s{self._events:09d}", user=look.user, item=look.item, event_time_ms=now_ms, price=price,
            currency=self._currency, market=MARKET, session=look.session, decision_id=decision_id, action=action,
            quantity=quantity, arrival_ms=now_ms, query=look.query if kind == "view" else None,
        )  # fmt: skip


def _shown(visit: _Visit) -> tuple[int, str | None]:
    """Return (price, decision) that the page shows; list price where the shop was told none."""
    update = visit.update
    return (visit.look.list_price, None) if update is None else (update.price, update.decision_id)
