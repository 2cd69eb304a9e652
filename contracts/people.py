"""People before a shop that shows our prices: what a loop through Kafka needs of simulated shoppers, whoever simulates them.

The demand behind them belongs to the offline shell, Kafka to the live one, and neither knows the other: they meet in this
protocol. `pricetide shoppers` finds the maker as the entry point `simulated` of the group `pricetide.people`. Time is that of
the events. Not here: shoppers (backtest.people), the loop (streams.shoppers).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from contracts.log_rows import CatalogueRow, EventRow
from contracts.outcomes import OutcomeRecord
from contracts.prices import PriceUpdate

MAKERS = "pricetide.people"
"""Group of entry points: each names a function from an Errand to People."""


class Errand(Struct, frozen=True, kw_only=True):
    """Who comes, and where what is known of them afterwards is written."""

    world: str
    seed: int
    looks: int
    elasticity: float
    traffic: float
    habits: Path | None = None
    out: Path | None = None


class People(Protocol):
    """Simulated shoppers."""

    currency: str
    react_ms: int
    """Nobody reacts to a price sooner."""

    def catalogue(self) -> list[CatalogueRow]:
        """Return what the shop sells."""

    def next_ms(self) -> int | None:
        """Return when somebody does something next; None when all have gone."""

    def until(self, ms: int) -> list[EventRow]:
        """Return what happens before `ms`, by time; at most `next_ms() + react_ms`. Earlier prices must have been told."""

    def told(self, update: PriceUpdate) -> None:
        """Take a price that the shop has been told."""

    def resolved(self, record: OutcomeRecord) -> None:
        """Take what became of a draw."""

    def waiting(self) -> int:
        """Return how many draws have not resolved."""

    def line(self) -> str:
        """Return how it goes, in a line."""

    def finish(self) -> Any:  # noqa: ANN401 - whatever rich can print
        """Write what is to be written, and return the account of it all for the terminal."""
