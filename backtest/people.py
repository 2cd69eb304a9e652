"""Simulated shoppers for a real Kafka: contracts.people on a simulated shop, with its account over time.

A policy that reads a model's vectors cannot be served by these worlds live: no artifact gives what LOGIT and MIS know of a visit.
So live there is SHOP, of which a policy sees what the events say. Not here: the loop through Kafka (streams.shoppers).
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec
from rich.table import Table

from backtest.crowd import REACT_MS, Crowd
from backtest.curves import write_plot
from backtest.scores import Place, table_of_shops, town_of
from backtest.shop_run import ShopScore, truths_of
from backtest.truth import Truth, TruthRow
from contracts.errors import BadInput
from contracts.log_files import write_rows
from contracts.log_rows import CatalogueRow, EventRow
from contracts.outcomes import OutcomeRecord
from contracts.people import Errand
from contracts.prices import PriceUpdate


def people_of(errand: Errand) -> SimulatedPeople:
    """Return the shoppers of an errand.

    Raises:
        BadInput: its world is no shop without a model, or its habits cannot be read.
    """
    return SimulatedPeople(errand)


class SimulatedPeople:
    """The shoppers of a simulated shop, and what they are worth."""

    react_ms = REACT_MS

    def __init__(self, errand: Errand) -> None:
        place = Place(errand.world, errand.seed, errand.looks, errand.habits, errand.traffic)
        self._town = town_of(place, errand.elasticity)
        if self._town.encoder is not None:
            raise BadInput(f"World {errand.world} needs vectors that no model gives: use SHOP")
        self._errand = errand
        self.currency = self._town.currency
        self._crowd, self._truth = Crowd(self._town.looks(), self.currency), Truth()
        self._rows: list[TruthRow] = []
        self._events = 0
        self._policies: dict[str, None] = {}

    def catalogue(self) -> list[CatalogueRow]:
        """Return what the shop sells."""
        return self._town.catalogue

    def next_ms(self) -> int | None:
        """Return when somebody does something next; None when all have gone."""
        return self._crowd.next_ms()

    def until(self, ms: int) -> list[EventRow]:
        """Return what happens before `ms`, by time."""
        rows = self._crowd.until(ms)
        self._events += len(rows)
        return rows

    def told(self, update: PriceUpdate) -> None:
        """Take a price that the shop has been told."""
        self._crowd.told(update)

    def resolved(self, record: OutcomeRecord) -> None:
        """Take what became of a draw."""
        rows = truths_of(self._crowd, self._truth, [record])
        if rows:
            self._policies[record.policy] = None  # type: ignore[union-attr]  # only outcomes have rows
            self._rows += rows

    def waiting(self) -> int:
        """Return how many draws have not resolved."""
        return len(self._crowd.draws)

    def score(self) -> ShopScore:
        """Return the account so far."""
        return ShopScore(
            world=self._town.name,
            seed=self._errand.seed,
            policy=", ".join(self._policies) or "none",
            events=self._events,
            looks=self._crowd.opened,
            account=self._truth.account(),
        )

    def line(self) -> str:
        """Return how it goes, in a line."""
        score = self.score()
        whole = score.account.whole
        return (
            f"{score.looks:,} looks, {score.events:,} events, {score.account.draws:,} draws resolved: policy "
            f"{whole.lift(whole.policy):+.1f} %, best fixed {whole.lift(whole.best_fixed):+.1f} %, oracle "
            f"{whole.lift(whole.oracle):+.1f} % on list price"
        )

    def finish(self) -> Table:
        """Write account, truth and plot into the errand's directory, and return the account as a table."""
        score, out = self.score(), self._errand.out
        if out is not None:
            self._write(score, out)
        return table_of_shops([score])

    def _write(self, score: ShopScore, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "account.json").write_bytes(msgspec.json.format(msgspec.json.encode(score), indent=2) + b"\n")
        with closing(write_rows(out / "truth.jsonl", TruthRow)) as truth:
            truth.append(self._rows)
        if score.account.draws:
            write_plot(score.account, f"{score.policy} in {score.world}, seed {score.seed}", out / "value.svg")
