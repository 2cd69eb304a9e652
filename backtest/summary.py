"""What came out of a backtest, in numbers. Counts what was published, from the published bytes: never the engine's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from rich.table import Table

from contracts.digest import PublishedDigest
from pricing.engine import Step


class Summary(Struct, frozen=True, kw_only=True):
    """The outcome of a backtest. Shares are fractions of the prices."""

    events: int
    """Records applied, dead letters included."""
    events_per_second: float
    prices: int
    decisions: int
    below_list: float
    status: dict[str, int]
    multipliers: dict[str, int]
    """Decisions by the permille of list price that they charge."""
    rails: dict[str, int]
    """Decisions in which a rail removed a point of the full lattice."""
    outcomes: dict[str, int]
    """What was applied without a decision."""
    resolved: dict[str, int]
    """What became of draws, and purchases that reward none: `bought`, `not_bought`, `price_mismatch`, `late`."""
    pending: int
    """Draws whose window the log does not see the end of: they have no outcome."""
    models: dict[str, int]
    """Decisions by the digest of the model in force; those without one are in none."""
    dead_letters: dict[str, int]
    not_applied: int
    refused_references: int
    digest: str
    """Of the price updates, contracts.digest."""


class _Price(Struct, gc=False):
    price: int
    list_price: int
    status: str


class _Rail(Struct, array_like=True, gc=False):
    name: str


class _Decision(Struct, gc=False):
    record: str
    multiplier: int = 0
    trail: tuple[_Rail, ...] = ()
    outcome: str = ""
    model: str | None = None


class _Outcome(Struct, gc=False):
    record: str
    bought: msgspec.Raw = msgspec.Raw(b"null")


_price = msgspec.json.Decoder(_Price).decode
_decision = msgspec.json.Decoder(_Decision).decode
_outcome = msgspec.json.Decoder(_Outcome).decode


class Tally:
    """Counts steps as they are published."""

    def __init__(self) -> None:
        self._digest = PublishedDigest()
        self._events = self._decisions = self._below = 0
        self._status: Counter[str] = Counter()
        self._multipliers: Counter[int] = Counter()
        self._rails: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._resolved: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._dead: Counter[str] = Counter()

    def add(self, step: Step, events: int) -> None:
        """Count a step, in which `events` records were applied."""
        self._events += events
        for key, value in step.prices:
            self._digest.add(key, value)
            price = _price(value)
            self._status[price.status] += 1
            self._below += price.price < price.list_price
        self._count_decisions(step.decisions)
        self._resolved.update(_kind_of(_outcome(value)) for _, value in step.outcomes)
        self._dead.update(error.code for _, error in step.dead)

    def _count_decisions(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        rails = self._rails
        for _, value in records:
            decision = _decision(value)
            if decision.record == "applied":
                self._outcomes[decision.outcome] += 1
                continue
            self._decisions += 1
            self._multipliers[decision.multiplier] += 1
            if decision.model is not None:
                self._models[decision.model] += 1
            for rail in decision.trail:
                rails[rail.name] += 1

    def summary(self, seconds: float, not_applied: int, refused_references: int, pending: int = 0) -> Summary:
        """Return the summary; `seconds` is what the replay took."""
        prices = self._digest.records
        return Summary(
            events=self._events,
            events_per_second=round(self._events / seconds, 1) if seconds > 0 else 0.0,
            prices=prices,
            decisions=self._decisions,
            below_list=round(self._below / prices, 6) if prices else 0.0,
            status=dict(sorted(self._status.items())),
            multipliers={str(permille): self._multipliers[permille] for permille in sorted(self._multipliers)},
            rails=dict(sorted(self._rails.items())),
            outcomes=dict(sorted(self._outcomes.items())),
            resolved=dict(sorted(self._resolved.items())),
            pending=pending,
            models=dict(sorted(self._models.items())),
            dead_letters=dict(sorted(self._dead.items())),
            not_applied=not_applied,
            refused_references=refused_references,
            digest=self._digest.hexdigest(),
        )


def _kind_of(outcome: _Outcome) -> str:
    if outcome.record != "outcome":
        return outcome.record
    return "not_bought" if bytes(outcome.bought) == b"null" else "bought"


def table_of(summary: Summary) -> Table:
    """Return the summary as a table for the terminal."""
    table = Table(title="Backtest", show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("events", f"{summary.events:,} ({summary.events_per_second:,.0f} per second)")
    table.add_row("prices", f"{summary.prices:,}, {summary.below_list:.1%} below list")
    for title, counts in (
        ("status", summary.status),
        ("multipliers, permille", summary.multipliers),
        ("rails that bound", summary.rails),
        ("without a decision", summary.outcomes),
        ("outcomes of draws", summary.resolved | {"pending": summary.pending}),
        ("models", summary.models),
        ("dead letters", summary.dead_letters),
    ):
        table.add_row(title, "  ".join(f"{name} {count:,}" for name, count in counts.items()) or "none")
    if summary.not_applied:
        table.add_row("never applied", f"{summary.not_applied:,} records, as in the recorded run")
    if summary.refused_references:
        table.add_row("refused", f"{summary.refused_references:,} records of catalogue or policies")
    table.add_row("digest of prices", summary.digest)
    return table
