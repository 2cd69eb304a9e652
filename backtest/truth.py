"""What a simulated shop knows and no real one does: the chance of a purchase at every price that a draw could have charged.

One row per draw and feasible price, beside the log; and the account: what was earned on average at the prices charged, against
the list price, the best price of each draw (the oracle), and the one multiplier that was best for all in hindsight, which asks
the feasible price at or below that share of list, as a policy of a fixed price does. Only draws that were seen count, and only
such as have resolved. Not here: shoppers (backtest.crowd), estimates from a log without truth.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from backtest.crowd import Made
from contracts.outcomes import Outcome
from pricing.lattice import scaled
from pricing.policies import nearest_at_or_below

Floats = NDArray[np.float64]

MULTIPLIERS = tuple(range(600, 1301, 25))
"""Permille of list price that are tried as the best fixed price."""
LIFT_MIN = 0.5
"""Percent that the oracle must gain on list price for a share of that gain to say anything."""
PERIODS = 12
"""Of equal length, for value over time."""


class TruthRow(Struct, gc=False):
    """One feasible price of one draw. Money in minor units."""

    draw_id: str
    user: str
    item: str
    drawn_ms: int
    list_price: int
    cost: int
    price: int
    chance: float
    """Of a purchase at `price` in the draw's window, by whoever sees it."""
    probability: float
    """That the policy drew `price`."""
    charged: bool
    seen: bool


class Period(Struct, frozen=True, kw_only=True):
    """A stretch of event time; values are expected margin of all its draws that were seen, in minor units."""

    from_ms: int
    until_ms: int
    draws: int
    policy: float
    list_price: float
    oracle: float
    best_fixed: float
    """At the multiplier that was best over all periods."""

    def lift(self, value: float) -> float:
        """Return by how much a value is above the list price's, in percent."""
        return 100.0 * (value / self.list_price - 1.0) if self.list_price > 0.0 else 0.0

    def share(self, value: float) -> float | None:
        """Return (value - list) / (oracle - list), in percent; None where list price is all but the best."""
        most = self.lift(self.oracle)
        return 100.0 * self.lift(value) / most if most >= LIFT_MIN else None


class Account(Struct, frozen=True, kw_only=True):
    """What a run earned, and could have earned; values as in Period."""

    draws: int
    unseen: int
    bought: int
    whole: Period
    best_fixed_permille: int
    periods: tuple[Period, ...]


class Truth:
    """Keeps the account of a run, draw by draw as outcomes come."""

    def __init__(self) -> None:
        self._times: list[int] = []
        self._values: list[tuple[float, float, float]] = []
        """Of each draw seen: at the price charged, at list, at best."""
        self._fixed: list[list[float]] = []
        self._unseen = self._bought = 0

    def add(self, outcome: Outcome, made: Made) -> list[TruthRow]:
        """Enter a draw that has resolved; return its rows."""
        look, prices = made.look, outcome.prices
        chances = look.demand(np.array(prices) / look.list_price).tolist()
        rows = [
            TruthRow(
                outcome.draw_id, outcome.user, outcome.item, outcome.drawn_ms, look.list_price, look.cost, price, chance,
                probability, price == outcome.price, made.seen,
            )
            for price, chance, probability in zip(prices, chances, outcome.probabilities, strict=True)
        ]  # fmt: skip
        if not made.seen:
            self._unseen += 1
            return rows
        self._bought += outcome.bought is not None
        worth = [chance * (price - look.cost) for price, chance in zip(prices, chances, strict=True)]
        self._times.append(outcome.drawn_ms)
        self._values.append((worth[prices.index(outcome.price)], worth[prices.index(look.list_price)], max(worth)))
        targets = [scaled(look.list_price, each) for each in MULTIPLIERS]
        self._fixed.append([worth[nearest_at_or_below(prices, target)] for target in targets])
        return rows

    def account(self) -> Account:
        """Return the account so far."""
        times, values = np.array(self._times, dtype=np.int64), np.array(self._values).reshape(-1, 3)
        fixed = np.array(self._fixed).reshape(-1, len(MULTIPLIERS))
        best = best_of(fixed.sum(0))
        table = np.column_stack((values, fixed[:, best]))
        first, last = (int(times.min()), int(times.max()) + 1) if len(times) else (0, 1)
        ends = np.linspace(first, last, PERIODS + 1).astype(np.int64).tolist()
        return Account(
            draws=len(times),
            unseen=self._unseen,
            bought=self._bought,
            whole=_period(times, table, first, last),
            best_fixed_permille=MULTIPLIERS[best],
            periods=tuple([_period(times, table, begin, end) for begin, end in pairwise(ends)]),
        )


def best_of(sums: Floats) -> int:
    """Return the place in MULTIPLIERS of the highest of what each share earned, (len(MULTIPLIERS),).

    What lies beyond every feasible price charges the lowest or the highest: of equal ones the one nearest list says what is
    charged.
    """
    return min(np.flatnonzero(sums == sums.max()).tolist(), key=lambda each: abs(MULTIPLIERS[each] - 1000))


def _period(times: NDArray[np.int64], table: Floats, begin: int, end: int) -> Period:
    inside = (times >= begin) & (times < end)
    policy, listed, oracle, fixed = table[inside].sum(0).tolist()
    return Period(
        from_ms=begin,
        until_ms=end,
        draws=int(inside.sum()),
        policy=policy,
        list_price=listed,
        oracle=oracle,
        best_fixed=fixed,
    )
