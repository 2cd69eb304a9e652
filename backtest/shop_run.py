"""A policy in a simulated shop, through the whole decision path: the engine that workers run, with rails, holds and outcomes.

Shoppers act, the engine prices, shoppers see those prices and act on them. Everything that happens is a log that a worker can
consume, with decisions and outcomes as published, and the truth beside it. A policy that learns does so as beside workers: from
resolved outcomes, in versions that go to the policies of the log; so a replay of the log gives the same bytes. Not here: the
shoppers (backtest.crowd), a shop behind a real Kafka (`pricetide shoppers`), the same worlds without a shop around them, which
is faster (backtest.simulation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from backtest.crowd import REACT_MS, RUSH_MS, Crowd
from backtest.passers_by import Town
from backtest.truth import Account, Truth, TruthRow
from contracts.catalogue import Catalogue
from contracts.decisions import decode_decision
from contracts.errors import BadInput
from contracts.ids import partition_of
from contracts.intake import Inbound, Intake
from contracts.learned import CurrentLearned
from contracts.log import Addresses, Manifest
from contracts.log_capture import applied_row
from contracts.log_files import Format, write_rows
from contracts.log_rows import EventRow, PolicyRow, PublishedRow, event_value, item_record_key, item_value
from contracts.log_writer import LogWriter
from contracts.outcomes import Outcome, OutcomeRecord, decode_outcome
from contracts.policies import CurrentPolicy, Policy, PolicyBook, PolicyRecord, encode_policy, policy_key
from contracts.prices import decode_price
from contracts.rules import LearningRule
from contracts.semantics import Semantics, Topology
from pricing.engine import Engine, PartitionState, Step
from pricing.lessons import Lesson, Lessons
from pricing.timers import Timers

LEARN_EVERY = 50
"""Outcomes after which a policy that learns has a new version."""


class ShopScore(Struct, frozen=True, kw_only=True):
    """How a policy did in a simulated shop."""

    world: str
    seed: int
    policy: str
    events: int
    looks: int
    account: Account


class Files(NamedTuple):
    """Where a run is written: a log, and the truth beside it."""

    directory: Path
    format: Format = "parquet"


def semantics_of(currency: str) -> Semantics:
    """Return the semantics of a simulated shop: who says nothing is not priced personally, and the shop states exposure."""
    return Semantics(consent_default=False, exposure="ids", currency=currency)


class _Lane:
    """One partition: its engine, states, pending draws and intake."""

    def __init__(self, semantics: Semantics, topology: Topology, partition: int) -> None:
        self.intake = Intake(semantics, topology, partition)
        self._engine = Engine(semantics, topology, partition)
        self._states: dict[bytes, bytes] = {}
        self._state = PartitionState()
        self._timers = Timers()

    def step(self, batch: list[Inbound], catalogue: Catalogue, policies: PolicyBook, town: Town) -> Step:
        """Apply a batch, which is put into merged order."""
        batch.sort(key=lambda each: (each.order_ms, each.source, each.offset))
        step = self._engine.step(
            batch, self._states.get, self._state, catalogue, policies, encoder=town.encoder, timers=self._timers
        )
        self._states.update(step.states)
        for key, value in step.pending.items():
            if value is None:
                del self._states[key]
            else:
                self._states[key] = value
        self._timers.apply(step.timers)
        self._state = step.partition
        return step


class Resolved(NamedTuple):
    """A record of the topic of outcomes, and where it would stand there."""

    partition: int
    offset: int
    record: OutcomeRecord


class Shop:
    """Engines over a simulated shop's events, and the one learner of their policy."""

    def __init__(self, town: Town, policy: Policy, topology: Topology) -> None:
        if policy.rails.dwell_ms < RUSH_MS:
            raise BadInput(
                f"rails.dwell_ms is {policy.rails.dwell_ms}: simulated shoppers take up to {RUSH_MS} ms to buy, and the chance "
                "of a purchase is not known of an offer that ends before; use at least that"
            )
        self.semantics = semantics_of(town.currency)
        self._town = town
        self._addresses = Addresses(topology)
        self._lanes = [_Lane(self.semantics, topology, partition) for partition in range(topology.partitions)]
        self._offsets = [0] * topology.partitions
        self._orders = [0] * topology.partitions
        self._catalogue, self._policies = Catalogue(), PolicyBook()
        for offset, row in enumerate(town.catalogue):
            self._catalogue.apply(offset, item_record_key(row), item_value(row))
        self.published: list[PolicyRecord] = []
        """Records of the policies topic that nobody has taken yet."""
        self._publish(policy, CurrentPolicy(name=policy.name, number=policy.number))
        learns = isinstance(policy.rule, LearningRule)
        self._lessons = Lessons(policy, topology.partitions, None, lambda _: None) if learns else None
        self._learned = 0

    def apply(self, rows: Iterable[EventRow]) -> list[tuple[int, Step, list[Resolved]]]:
        """Apply what happened within REACT_MS; return of each partition the step, and what it says of draws."""
        batches: dict[int, list[Inbound]] = {}
        for row in rows:
            source, partition, offset, key = self._addresses.of(row)
            inbound = self._lanes[partition].intake.read(source, offset, key, event_value(row), row.arrival_ms)
            batches.setdefault(partition, []).append(inbound)
        done = []
        for partition, batch in sorted(batches.items()):
            step = self._lanes[partition].step(batch, self._catalogue, self._policies, self._town)
            done.append((partition, step, [self._resolved(partition, value) for _, value in step.outcomes]))
        self._learn([one for _, _, resolved in done for one in resolved])
        return done

    def _resolved(self, partition: int, value: bytes) -> Resolved:
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        return Resolved(partition, offset, decode_outcome(value))

    def _learn(self, resolved: list[Resolved]) -> None:
        """Learn from outcomes by (resolve time, partition, offset); publish a version when there are enough."""
        if self._lessons is None:
            return
        lessons = []
        for partition, offset, record in resolved:
            outcome = record if isinstance(record, Outcome) else None
            if outcome is not None:
                self._orders[partition] = max(self._orders[partition], outcome.resolved_ms)
            lessons.append(Lesson(self._orders[partition], partition, offset, outcome))
        for lesson in sorted(lessons, key=lambda each: (each.order_ms, each.partition, each.offset)):
            self._learned += self._lessons.learn(lesson) is None and lesson.outcome is not None
        if self._learned >= LEARN_EVERY:
            self._learned = 0
            version = self._lessons.version()
            pointer = CurrentLearned(name=version.name, number=version.number, version=version.version)
            self._publish(version, pointer)

    def _publish(self, *records: PolicyRecord) -> None:
        for record in records:
            self._policies.apply(self._policies.seen, policy_key(record), encode_policy(record))
        self.published += records


def run_shop(town: Town, policy: Policy, seed: int, partitions: int = 1, files: Files | None = None) -> ShopScore:
    """Play `policy` in `town`, write the log if `files` says where, and return the score.

    Args:
        town: the shop and its people.
        policy: in force from the beginning.
        seed: of the town, for the record.
        partitions: of every topic.
        files: where to write; None: nowhere.

    Raises:
        BadInput: the policy does not fit, the directory holds a log already, or pyarrow is missing for Parquet.
    """
    topology = Topology(partitions=partitions)
    shop, crowd, truth = Shop(town, policy, topology), Crowd(town.looks(), town.currency), Truth()
    events, now_ms = 0, 0
    with ExitStack() as stack:
        books = stack.enter_context(Books(files, town, topology)) if files is not None else None
        while (now := crowd.next_ms()) is not None:
            now_ms = now
            rows = crowd.until(now + REACT_MS)
            events += len(rows)
            _turn(shop, crowd, truth, books, rows)
        _turn(shop, crowd, truth, books, closing_time(now_ms + REACT_MS + shop.semantics.outcome_window_ms, partitions))
    return ShopScore(
        world=town.name,
        seed=seed,
        policy=policy.version,
        events=events,
        looks=crowd.opened,
        account=truth.account(),
    )


def _turn(shop: Shop, crowd: Crowd, truth: Truth, books: Books | None, rows: Sequence[EventRow]) -> None:
    """Have the engine apply `rows`; tell shoppers their prices, and the account what has resolved."""
    if books is not None:
        books.policies(shop.published)
        books.rows(rows)
    shop.published.clear()
    for partition, step, resolved in shop.apply(rows):
        for _, value in step.prices:
            crowd.told(decode_price(value))
        found = truths_of(crowd, truth, [one.record for one in resolved])
        if books is not None:
            books.step(partition, step, found)


def truths_of(crowd: Crowd, truth: Truth, records: Iterable[OutcomeRecord]) -> list[TruthRow]:
    """Enter the draws that have resolved; return their rows."""
    rows: list[TruthRow] = []
    for outcome in records:
        made = crowd.draws.pop(outcome.draw_id, None) if isinstance(outcome, Outcome) else None
        if isinstance(outcome, Outcome) and made is not None:
            rows += truth.add(outcome, made)
    return rows


def closing_time(at_ms: int, partitions: int) -> list[EventRow]:
    """Return an event on every partition that says nothing of any shopper: it ends the windows of all draws before it."""
    rows: dict[int, EventRow] = {}
    number = 0
    while len(rows) < partitions:
        user = f"closing-time-{number}"
        partition = partition_of(user.encode(), partitions)
        number += 1
        rows.setdefault(partition, EventRow("consent", user=user, granted=False, event_time_ms=at_ms, arrival_ms=at_ms))
    return [rows[partition] for partition in range(partitions)]


class Books:
    """The files of a run."""

    def __init__(self, files: Files, town: Town, topology: Topology) -> None:
        manifest = Manifest(
            semantics=semantics_of(town.currency), topology=topology, source=f"Simulated: world {town.name}", offers="shown",
            synthetic=(*town.rules, "The last record of every partition is of nobody: it ends the windows of all draws."),
        )  # fmt: skip
        self._topology = topology
        self._replays = town.encoder is None
        """Without a model's vectors a replay of the log has all that the engine had."""
        self._exit = ExitStack()
        self._log = LogWriter(files.directory, manifest, files.format)
        self._truth = write_rows(files.directory / f"truth.{files.format}", TruthRow)
        self._log.catalogue(town.catalogue)

    def __enter__(self) -> Books:
        self._exit.enter_context(self._log)
        self._exit.enter_context(closing(self._truth))
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.__exit__(*error)  # type: ignore[arg-type]  # as the interpreter gives them

    def policies(self, records: Sequence[PolicyRecord]) -> None:
        """Write what went to the policies topic."""
        self._log.policies([PolicyRow(record=encode_policy(record).decode()) for record in records])

    def rows(self, rows: Sequence[EventRow]) -> None:
        """Write events."""
        self._log.rows(rows)

    def step(self, partition: int, step: Step, found: Sequence[TruthRow]) -> None:
        """Write what a step led to."""
        if self._replays:
            self._log.applied([applied_row(decode_decision(value), self._topology) for _, value in step.decisions])
        self._log.published("decisions", [PublishedRow(partition, key, value) for key, value in step.decisions])
        self._log.published("outcomes", [PublishedRow(partition, key, value) for key, value in step.outcomes])
        self._truth.append(found)
