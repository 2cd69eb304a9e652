"""A watch on published prices, of all users at once: windows of event time against limits. Pure; integers, so exact.

Time is cut into tiles, TILES of them a window; a window ends with every tile. There are windows of all partitions together, and
of each partition by its own time, so that one which lags is judged, too. What a window says depends on the decisions in it and
on their order per shopper alone, not on how partitions interleave or batches are cut; but for those that come after all their
windows have ended, which count in the one that ends next. Not here: prices by how long
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
    partition: int | None = None
    """None: of all partitions."""


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
        partition = self.window.partition
        where = "" if partition is None else f" of partition {partition}"
        return f"{_SENTENCES[self.what].format(value=self.value, limit=self.limit)} ({self.window.draws} draws{where})"


_SENTENCES = {
    "mean_min_permille": "mean multiplier of {value:.0f} permille, below {limit:.0f}",
    "mean_max_permille": "mean multiplier of {value:.0f} permille, above {limit:.0f}",
    "lowest_share_max": "{value:.1%} of draws at the lowest feasible price, more than {limit:.1%}",
    "changed_share_max": "{value:.1%} of repeated decisions changed the shopper's price, more than {limit:.1%}",
}
JUDGED = tuple(_SENTENCES)
"""Every `Breach.what` that there may be."""


_FIGURES = ("draws", "ppm", "choices", "lowest", "again", "changed")


class _Tile:
    __slots__ = _FIGURES

    def __init__(self) -> None:
        self.draws = self.ppm = self.choices = self.lowest = self.again = self.changed = 0


class _Tiles:
    """The tiles of one partition, or of all, by their own highest event time. At most those of a window that has not ended."""

    __slots__ = ("_tile_ms", "ended", "tiles", "watermark_ms")

    def __init__(self, tile_ms: int) -> None:
        self._tile_ms = tile_ms
        self.tiles: dict[int, _Tile] = {}
        self.ended = -1
        """The last tile whose window was given."""
        self.watermark_ms = 0

    def of(self, event_time_ms: int) -> tuple[_Tile, bool]:
        """Return the tile that a decision counts in, and whether it came late: then all windows of its own have ended, and it
        counts in the next one to end, as something published now.
        """
        number = event_time_ms // self._tile_ms
        late = number + TILES - 1 <= self.ended
        return self.tiles.setdefault(self.ended + 1 if late else number, _Tile()), late

    def windows(self, partition: int | None, final: bool) -> Iterator[Window]:
        until = max(self.tiles, default=-1) + 1 if final else self.watermark_ms // self._tile_ms
        for number in sorted(self.tiles):
            if self.ended < number < until:
                yield self._window(number, partition)
        self.ended = max(self.ended, until - 1)
        for number in [number for number in self.tiles if number + TILES - 1 <= self.ended]:
            del self.tiles[number]

    def _window(self, last: int, partition: int | None) -> Window:
        tiles = [tile for number in range(last - TILES + 1, last + 1) if (tile := self.tiles.get(number))]
        draws, ppm, choices, lowest, again, changed = (sum(getattr(tile, name) for tile in tiles) for name in _FIGURES)
        return Window(
            end_ms=(last + 1) * self._tile_ms,
            draws=draws,
            mean_permille=ppm / draws / 1000 if draws else 0.0,
            lowest_share=lowest / choices if choices else 0.0,
            changed_share=changed / again if again else 0.0,
            again=again,
            partition=partition,
        )


class PriceWatch:
    """Takes decisions one by one, in the order of each shopper; gives the windows that have ended.

    Windows are of all partitions together, by the highest event time of any, and of each partition alone, by its own: one that
    lags, however far, is judged as it goes.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.late = 0
        """Decisions that came after every window of all partitions that they belong to had ended."""
        self._tile_ms = limits.window_ms // TILES
        self._tiles: dict[int | None, _Tiles] = {None: _Tiles(self._tile_ms)}
        """By partition; None: of all."""
        self._last: dict[tuple[str, str], int] = {}
        self._seen_min = 0

    def begin_anew(self, policies_seen: int) -> None:
        """Forget all windows; decisions of workers that had not seen the policies topic up to `policies_seen` count no more.

        For a change of what prices: what was published before says nothing of it.
        """
        for of in self._tiles.values():
            of.tiles.clear()
        self._last.clear()
        self._seen_min = policies_seen

    def add(self, decision: Decision, policy: Policy | None, partition: int | None = None) -> None:
        """Count one decision.

        Args:
            decision: of a shopper whose earlier ones were counted before.
            policy: the version that it names, None if that is not known.
            partition: of the topic that it came from; None where that is not known, as in a file: it counts among all only.
        """
        scopes = [self._tiles[None]]
        if partition is not None:
            scopes.append(self._tiles.setdefault(partition, _Tiles(self._tile_ms)))
        for of in scopes:
            of.watermark_ms = max(of.watermark_ms, decision.event_time_ms)
        if decision.policies_seen < self._seen_min:
            return
        found = [of.of(decision.event_time_ms) for of in scopes]
        self.late += found[0][1]
        self._count([tile for tile, _ in found], decision, policy)

    def _count(self, tiles: list[_Tile], decision: Decision, policy: Policy | None) -> None:
        before = self._price_before(decision)
        drawn = decision.status == "drawn"
        feasible = None
        if drawn and not decision.forced and not decision.held_out:
            feasible = feasible_prices(decision, policy)
        for tile in tiles:
            if before is not None:
                tile.again += 1
                tile.changed += before != decision.price
            if drawn:
                tile.draws += 1
                tile.ppm += decision.price * PPM // decision.list_price
            if feasible is not None:
                tile.choices += 1
                tile.lowest += decision.price == feasible[0]

    def _price_before(self, decision: Decision) -> int | None:
        """Return the price that the shopper had of the item, None if there is none to compare with; remember the new one."""
        pair = (decision.user, decision.item)
        before = self._last.pop(pair, None)
        if decision.status == "list":
            return None  # bought, withdrawn, switched off: the next price is a new beginning
        self._last[pair] = decision.price
        if len(self._last) > SHOPPERS_MAX:
            del self._last[next(iter(self._last))]
        return before

    def ended(self, *, final: bool = False) -> Iterator[Window]:
        """Yield the windows that have ended, each once: those of all partitions oldest first, then of each its own.

        Windows without a decision in their last tile are left out: they say nothing that the one before did not. So are those
        of a partition as long as no other one has been heard of: they are those of all.

        Args:
            final: nothing more will come: what there is ends.
        """
        alone = len(self._tiles) <= 2  # of all, and of one partition
        for partition, of in self._tiles.items():
            windows = list(of.windows(partition, final))  # they end, whether anybody is told or not
            if partition is None or not alone:
                yield from windows


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
