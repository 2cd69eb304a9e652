"""A watch on published prices, of all users at once: windows of event time against limits. Pure; integers, so exact.

Time is cut into tiles, TILES of them a window; a window ends with every tile. What a window says depends on the decisions in
it and on their order per shopper alone, not on how partitions interleave or batches are cut. Not here: prices by how long
somebody has been a customer (pricing.tenure), who reads decisions and what happens on a breach (streams.guard).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from contracts.decisions import Decision
from contracts.policies import Policy
from pricing.recomputing import feasible_prices

TILES = 10
"""Tiles in a window."""
PPM = 1_000_000
SHOPPERS_MAX = 200_000
"""Pairs of shopper and item whose last price is remembered; the one seen longest ago goes first."""

Permille = Annotated[int, Meta(ge=0, le=10_000)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


class Limits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the prices of a window must keep to. Multipliers are prices over list prices, in permille."""

    window_ms: Annotated[int, Meta(ge=TILES * 1_000)] = 900_000
    draws_min: Annotated[int, Meta(ge=1)] = 200
    """A window with fewer draws is not judged."""
    mean_min_permille: Permille = 800
    """Least mean multiplier of the prices drawn."""
    mean_max_permille: Permille = 1_020
    lowest_share_max: Share = 1.0
    """Largest share of draws at the lowest price that was feasible; 1 judges nothing. What is usual depends on the policy:
    take it from `pricetide guard --file` over a good day."""
    changed_share_max: Share = 0.5
    """Largest share of decisions that change the price of an item for a shopper who has had one of it before. A share, for a
    count of price changes per item grows with the traffic; purchases and other returns to list price do not count."""


class Window(Struct, frozen=True, kw_only=True):
    """What was published in (end_ms - window_ms, end_ms]."""

    end_ms: int
    draws: int
    mean_permille: float
    """Multiplier, over the draws; 0 without any."""
    lowest_share: float
    """Of the draws whose feasible prices are known, and of which there was more than one."""
    changed_share: float
    again: int
    """Decisions of a shopper who had a price of the item before; what `changed_share` is of."""


class Breach(Struct, frozen=True, kw_only=True):
    """A limit that a window does not keep to."""

    what: str
    """The field of `Limits`."""
    value: float
    limit: float
    window: Window

    @property
    def sentence(self) -> str:
        """What is wrong, in words, for the record of the kill switch."""
        names = {
            "mean_min_permille": "mean multiplier of {value:.0f} permille, below {limit:.0f}",
            "mean_max_permille": "mean multiplier of {value:.0f} permille, above {limit:.0f}",
            "lowest_share_max": "{value:.1%} of draws at the lowest feasible price, more than {limit:.1%}",
            "changed_share_max": "{value:.1%} of repeated decisions changed the shopper's price, more than {limit:.1%}",
        }
        return f"{names[self.what].format(value=self.value, limit=self.limit)} ({self.window.draws} draws)"


class _Tile:
    __slots__ = ("again", "changed", "choices", "draws", "lowest", "ppm")

    def __init__(self) -> None:
        self.draws = self.ppm = self.choices = self.lowest = self.again = self.changed = 0


class PriceWatch:
    """Takes decisions one by one, in the order of each shopper; gives the windows that have ended."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.late = 0
        """Decisions that came after every window that they belong to had ended."""
        self._tile_ms = limits.window_ms // TILES
        self._tiles: dict[int, _Tile] = {}
        self._ended = -1
        """The last tile whose window was given."""
        self._last: dict[tuple[str, str], int] = {}
        self._seen_min = 0

    def begin_anew(self, policies_seen: int) -> None:
        """Forget all windows; decisions of workers that had not seen the policies topic up to `policies_seen` count no more.

        For a change of what prices: what was published before says nothing of it.
        """
        self._tiles.clear()
        self._last.clear()
        self._seen_min = policies_seen

    def add(self, decision: Decision, policy: Policy | None) -> None:
        """Count one decision; `policy` is the version that it names, None if that is not known."""
        if decision.policies_seen < self._seen_min:
            return
        number = decision.event_time_ms // self._tile_ms
        if number + TILES - 1 <= self._ended:
            self.late += 1
            return
        tile = self._tiles.setdefault(number, _Tile())
        self._count_change(decision, tile)
        if decision.status != "drawn":
            return
        tile.draws += 1
        tile.ppm += decision.price * PPM // decision.list_price
        feasible = None if decision.forced or decision.held_out else feasible_prices(decision, policy)
        if feasible is not None:
            tile.choices += 1
            tile.lowest += decision.price == feasible[0]

    def _count_change(self, decision: Decision, tile: _Tile) -> None:
        pair = (decision.user, decision.item)
        before = self._last.pop(pair, None)
        if decision.status == "list":
            return  # bought, withdrawn, switched off: the next price is a new beginning
        self._last[pair] = decision.price
        if len(self._last) > SHOPPERS_MAX:
            del self._last[next(iter(self._last))]
        if before is not None:
            tile.again += 1
            tile.changed += before != decision.price

    def ended(self, now_ms: int | None = None) -> Iterator[Window]:
        """Yield the windows that have ended by event time `now_ms`, oldest first, each once; by default all there are.

        Windows without a decision in their last tile are left out: they say nothing that the one before did not.
        """
        until = max(self._tiles, default=-1) + 1 if now_ms is None else now_ms // self._tile_ms
        for number in sorted(self._tiles):
            if self._ended < number < until:
                yield self._window(number)
        self._ended = max(self._ended, until - 1)
        for number in [number for number in self._tiles if number + TILES - 1 <= self._ended]:
            del self._tiles[number]

    def _window(self, last: int) -> Window:
        tiles = [tile for number in range(last - TILES + 1, last + 1) if (tile := self._tiles.get(number))]
        draws, ppm, choices, lowest, again, changed = (
            sum(getattr(tile, name) for tile in tiles)
            for name in ("draws", "ppm", "choices", "lowest", "again", "changed")
        )
        return Window(
            end_ms=(last + 1) * self._tile_ms,
            draws=draws,
            mean_permille=ppm / draws / 1000 if draws else 0.0,
            lowest_share=lowest / choices if choices else 0.0,
            changed_share=changed / again if again else 0.0,
            again=again,
        )


def breaches(window: Window, limits: Limits) -> list[Breach]:
    """Return the limits that `window` does not keep to; none if it has too few draws to say."""
    if window.draws < limits.draws_min:
        return []
    found: list[tuple[str, float, float]] = []
    if window.mean_permille < limits.mean_min_permille:
        found.append(("mean_min_permille", window.mean_permille, limits.mean_min_permille))
    if window.mean_permille > limits.mean_max_permille:
        found.append(("mean_max_permille", window.mean_permille, limits.mean_max_permille))
    if window.lowest_share > limits.lowest_share_max:
        found.append(("lowest_share_max", window.lowest_share, limits.lowest_share_max))
    if window.again >= limits.draws_min and window.changed_share > limits.changed_share_max:
        found.append(("changed_share_max", window.changed_share, limits.changed_share_max))
    return [Breach(what=what, value=value, limit=limit, window=window) for what, value, limit in found]
