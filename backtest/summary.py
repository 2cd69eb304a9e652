"""What came out of a backtest, in numbers. Counts what was published, from the published bytes: never the engine's word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

import msgspec
from msgspec import Struct
from rich.table import Table

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
    first_dead: dict[str, str]
    """By their codes: where the first of them stands, and what is wrong with it."""
    not_applied: int
    unknown: int
    """Records that were not there yet at the time of the cut, as far as they were met."""
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
    """A decision, or what was applied without one, which alone has an `outcome`."""

    multiplier: int = 0
    trail: msgspec.Raw = msgspec.Raw(b"[]")
    """JSON of _Rail; thousands of decisions share a trail, so one of them is read."""
    outcome: str = ""
    model: str | None = None


class _Outcome(Struct, gc=False):
    record: str
    bought: msgspec.Raw = msgspec.Raw(b"null")


_prices = msgspec.json.Decoder(list[_Price]).decode
_decisions = msgspec.json.Decoder(list[_Decision]).decode
_outcomes = msgspec.json.Decoder(list[_Outcome]).decode
_rails = msgspec.json.Decoder(list[_Rail]).decode
_KIND = attrgetter("outcome", "multiplier", "model")
_TRAIL = attrgetter("trail")


class Tally(Struct):
    """Counts of what was published; of several partitions they add up."""

    events: int = 0
    decisions: int = 0
    prices: int = 0
    below: int = 0
    """Prices below list."""
    status: dict[str, int] = {}
    multipliers: dict[str, int] = {}
    rails: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    resolved: dict[str, int] = {}
    models: dict[str, int] = {}
    dead: dict[str, int] = {}
    first_dead: dict[str, str] = {}
    """By code: where the first dead letter stands, and what is wrong with it."""

    def add(self, step: Step, events: int, topics: Sequence[str], partition: int) -> None:
        """Count a step of `partition`, in which `events` records were applied; `topics` names the sources."""
        self.events += events
        self.prices += len(step.prices)
        prices = _prices(_joined(step.prices))
        _merge(self.status, Counter(map(attrgetter("status"), prices)))
        self.below += sum([price.price < price.list_price for price in prices])
        self._count_decisions(step.decisions)
        _merge(self.resolved, Counter(map(_kind_of, _outcomes(_joined(step.outcomes)))))
        for inbound, error in step.dead:
            place = f"{topics[inbound.source]}, partition {partition}, offset {inbound.offset}: {error.message}"
            self.first_dead.setdefault(error.code, place)
        _merge(self.dead, Counter(error.code for _, error in step.dead))

    def _count_decisions(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        decisions = _decisions(_joined(records))
        for (outcome, permille, model), times in Counter(map(_KIND, decisions)).items():
            if outcome:
                _add(self.outcomes, outcome, times)
                continue
            self.decisions += times
            _add(self.multipliers, str(permille), times)
            if model is not None:
                _add(self.models, model, times)
        for trail, times in Counter(map(bytes, map(_TRAIL, decisions))).items():
            for rail in _rails(trail):
                _add(self.rails, rail.name, times)

    def join(self, other: Tally) -> None:
        """Add the counts of another partition, a later one."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if name == "first_dead":
                self.first_dead = theirs | mine
            elif isinstance(mine, dict):
                _merge(mine, theirs)
            else:
                setattr(self, name, mine + theirs)

    def summary(self, end: End) -> Summary:
        """Return the summary of a backtest that ended like this."""
        return Summary(
            events=self.events,
            events_per_second=round(end.applied / end.seconds, 1) if end.seconds > 0 else 0.0,
            prices=self.prices,
            decisions=self.decisions,
            below_list=round(self.below / self.prices, 6) if self.prices else 0.0,
            status=_sorted(self.status),
            multipliers=dict(sorted(self.multipliers.items(), key=lambda one: int(one[0]))),
            rails=_sorted(self.rails),
            outcomes=_sorted(self.outcomes),
            resolved=_sorted(self.resolved),
            pending=end.pending,
            models=_sorted(self.models),
            dead_letters=_sorted(self.dead),
            first_dead=_sorted(self.first_dead),
            not_applied=end.not_applied,
            unknown=end.unknown,
            refused_references=end.refused_references,
            digest=end.digest,
        )


class End(Struct, frozen=True, kw_only=True):
    """What is known of a backtest when it is over."""

    seconds: float
    """What the replay took, and reading the log with it."""
    applied: int
    """Records applied meanwhile: fewer than all where a killed run went on."""
    pending: int
    not_applied: int
    unknown: int
    refused_references: int
    digest: str


_V = TypeVar("_V", int, str)


def _add(into: dict[str, int], name: str, count: int) -> None:
    into[name] = into.get(name, 0) + count


def _merge(into: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        _add(into, name, count)


def _joined(records: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the values of `records` as one JSON array: a call for each would cost as much as the reading."""
    return b"[%b]" % b",".join([value for _, value in records])


def _sorted(counts: dict[str, _V]) -> dict[str, _V]:
    return dict(sorted(counts.items()))


def _kind_of(outcome: _Outcome) -> str:
    if outcome.record != "outcome":
        return outcome.record
    return "not_bought" if bytes(outcome.bought) == b"null" else "bought"


def table_of(summary: Summary, title: str = "Backtest") -> Table:
    """Return the summary as a table for the terminal."""
    table = Table(title=title, show_header=False)
    table.add_column(style="bold")
    table.add_column()
    table.add_row("events", f"{summary.events:,} ({summary.events_per_second:,.0f} per second)")
    table.add_row("prices", f"{summary.prices:,}, {summary.below_list:.1%} below list")
    for name, counts in (
        ("status", summary.status),
        ("multipliers, permille", summary.multipliers),
        ("rails that bound", summary.rails),
        ("without a decision", summary.outcomes),
        ("outcomes of draws", summary.resolved | {"pending": summary.pending}),
        ("models", summary.models),
        ("dead letters", summary.dead_letters),
    ):
        table.add_row(name, "  ".join(f"{what} {count:,}" for what, count in counts.items()) or "none")
    for code, place in summary.first_dead.items():
        table.add_row(f"first {code}", place)
    if summary.unknown:
        table.add_row("not known then", f"{summary.unknown:,} records")
    if summary.not_applied:
        table.add_row("never applied", f"{summary.not_applied:,} records, as in the recorded run")
    if summary.refused_references:
        table.add_row("refused", f"{summary.refused_references:,} records of catalogue or policies")
    table.add_row("digest of prices", summary.digest)
    return table
