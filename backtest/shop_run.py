"""A policy in a simulated shop, through the whole decision path: the engine that workers run, with rails, holds and outcomes.

Shoppers act, the engine prices, shoppers see those prices and act on them. Everything that happens is a log that a worker can
consume, with the decisions, outcomes and truth beside it. A policy that learns does so from resolved outcomes, between batches.
Not here: the shoppers (backtest.crowd), a shop behind a real Kafka (`pricetide shoppers`), the same worlds without a shop around
them, which is faster (backtest.simulation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from backtest.crowd import REACT_MS, RUSH_MS, Crowd
from backtest.outputs import DecisionTable, OutcomeTable
from backtest.passers_by import Town
from backtest.truth import Account, Truth, TruthRow, share_of
from contracts.catalogue import Catalogue
from contracts.errors import BadInput
from contracts.intake import Inbound, Intake
from contracts.log import Addresses, Manifest
from contracts.log_files import Format, write_rows
from contracts.log_rows import EventRow, PolicyRow, event_value, item_record_key, item_value
from contracts.log_writer import LogWriter
from contracts.outcomes import Outcome, decode_outcome
from contracts.policies import CurrentPolicy, Policy, PolicyBook, PolicyRecord, encode_policy, policy_key
from contracts.prices import decode_price
from contracts.rules import LinearQ, Sarsa
from contracts.semantics import Semantics, Topology
from pricing.arms import one
from pricing.choosers import Knowledge, ignorance
from pricing.demand import Posterior
from pricing.engine import Engine, PartitionState, Step
from pricing.q_linear import Values
from pricing.timers import Timers


class ShopScore(Struct, frozen=True, kw_only=True):
    """How a policy did in a simulated shop; values are expected margin of the draws that were seen, in minor units."""

    world: str
    seed: int
    policy: str
    events: int
    looks: int
    share: float
    """Of the oracle's gain over list price, in percent."""
    best_fixed_share: float
    account: Account


class Files(NamedTuple):
    """Where a run is written: a log, and beside it decisions, outcomes and truth."""

    directory: Path
    format: Format = "parquet"


def semantics_of() -> Semantics:
    """Return the semantics of a simulated shop: who says nothing is not priced personally, and the shop states exposure."""
    return Semantics(consent_default=False, exposure="ids")


class _Lane:
    """One partition: its engine, states, pending draws and intake."""

    def __init__(self, semantics: Semantics, topology: Topology, partition: int) -> None:
        self.intake = Intake(semantics, topology, partition)
        self._engine = Engine(semantics, topology, partition)
        self._states: dict[bytes, bytes] = {}
        self._state = PartitionState()
        self._timers = Timers()

    def step(
        self, batch: list[Inbound], catalogue: Catalogue, policies: PolicyBook, town: Town, knows: Knowledge
    ) -> Step:
        """Apply a batch in merged order."""
        batch.sort(key=lambda each: (each.order_ms, each.source, each.offset))
        step = self._engine.step(
            batch, self._states.get, self._state, catalogue, policies, encoder=town.encoder, knowledge=knows,
            timers=self._timers,
        )  # fmt: skip
        self._states.update(step.states)
        for key, value in step.pending.items():
            if value is None:
                del self._states[key]
            else:
                self._states[key] = value
        self._timers.apply(step.timers)
        self._state = step.partition
        return step


class Shop:
    """Engines over a simulated shop's events; one knowledge for all of them."""

    def __init__(self, town: Town, policy: Policy, topology: Topology) -> None:
        semantics = semantics_of()
        _require_fit(policy)
        self._town, self._policy = town, policy
        self._addresses = Addresses(topology)
        self._lanes = [_Lane(semantics, topology, partition) for partition in range(topology.partitions)]
        self._catalogue, self._policies = Catalogue(), PolicyBook()
        for offset, row in enumerate(town.catalogue):
            self._catalogue.apply(offset, item_record_key(row), item_value(row))
        for offset, record in enumerate(records_of(policy)):
            self._policies.apply(offset, policy_key(record), encode_policy(record))
        self.knowledge = ignorance(policy.rule)

    def apply(self, rows: Iterable[EventRow]) -> list[tuple[int, Step]]:
        """Apply what happened within REACT_MS; return each partition's step."""
        batches: dict[int, list[Inbound]] = {}
        for row in rows:
            source, partition, offset, key = self._addresses.of(row)
            inbound = self._lanes[partition].intake.read(source, offset, key, event_value(row), row.arrival_ms)
            batches.setdefault(partition, []).append(inbound)
        return [
            (partition, self._lanes[partition].step(batch, self._catalogue, self._policies, self._town, self.knowledge))
            for partition, batch in sorted(batches.items())
        ]

    def learn(self, outcome: Outcome) -> None:
        """Take an outcome, if the policy learns and may."""
        if not (outcome.learnable and outcome.exposed and outcome.features and outcome.policy == self._policy.version):
            return
        x, rule = np.array(outcome.features), self._policy.rule
        shift = 5.0 * (1.0 - outcome.price / outcome.list_price)
        if isinstance(self.knowledge, Posterior):
            self.knowledge.learn(x, shift, outcome.bought is not None)
        elif isinstance(self.knowledge, Values):
            assert isinstance(rule, LinearQ | Sarsa)
            gain = float(one((outcome.price,), outcome.list_price, outcome.cost, rule.money).gains[0, 0])
            self.knowledge.learn(rule, x, shift, gain if outcome.bought else 0.0, None, None)


def records_of(policy: Policy) -> tuple[PolicyRecord, ...]:
    """Return what puts `policy` in force."""
    return policy, CurrentPolicy(name=policy.name, number=policy.number)


def _require_fit(policy: Policy) -> None:
    if policy.rails.dwell_ms < RUSH_MS:
        raise BadInput(
            f"rails.dwell_ms is {policy.rails.dwell_ms}: simulated shoppers take up to {RUSH_MS} ms to buy, and an offer that "
            "ends before has no known chance of a purchase; use at least that"
        )
    if isinstance(policy.rule, LinearQ | Sarsa) and policy.rule.discount > 0.0:
        raise BadInput("A policy that looks ahead (rule.discount above 0) is scored in world CARRY only, without --out")


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
    shop, crowd, truth = Shop(town, policy, topology), Crowd(town.looks()), Truth()
    events = 0
    with ExitStack() as stack:
        book = stack.enter_context(Books(files, town, policy, topology)) if files is not None else None
        while (now := crowd.next_ms()) is not None:
            rows = crowd.until(now + REACT_MS)
            events += len(rows)
            for partition, step in shop.apply(rows):
                found = _tell(crowd, truth, shop, step)
                if book is not None:
                    book.steps(partition, step, found)
            if book is not None:
                book.rows(rows)
    account = truth.account()
    return ShopScore(
        world=town.name,
        seed=seed,
        policy=policy.version,
        events=events,
        looks=crowd.opened,
        share=account.share,
        best_fixed_share=share_of(account.whole.best_fixed, account.whole),
        account=account,
    )


def _tell(crowd: Crowd, truth: Truth, shop: Shop, step: Step) -> list[TruthRow]:
    """Tell shoppers their prices, the policy what it may learn, and the account what has resolved."""
    found: list[TruthRow] = []
    for _, value in step.prices:
        crowd.told(decode_price(value))
    for _, value in step.outcomes:
        outcome = decode_outcome(value)
        if isinstance(outcome, Outcome):
            shop.learn(outcome)
            made = crowd.draws.pop(outcome.draw_id, None)
            if made is not None:
                found += truth.add(outcome, made)
    return found


class Books:
    """The files of a run."""

    def __init__(self, files: Files, town: Town, policy: Policy, topology: Topology) -> None:
        directory = files.directory
        manifest = Manifest(
            semantics=semantics_of(), topology=topology, source=f"Simulated: world {town.name}", offers="shown",
            synthetic=town.rules,
        )  # fmt: skip
        self._exit = ExitStack()
        self._log = LogWriter(directory, manifest, files.format)
        self._decisions = DecisionTable(directory / "decisions.parquet")
        self._outcomes = OutcomeTable(directory / "outcomes.parquet")
        self._truth = write_rows(directory / f"truth.{files.format}", TruthRow)
        self._log.catalogue(town.catalogue)
        self._log.policies([PolicyRow(record=encode_policy(record).decode()) for record in records_of(policy)])

    def __enter__(self) -> Books:
        self._exit.enter_context(self._log)
        for file in (self._decisions, self._outcomes, self._truth):
            self._exit.enter_context(closing(file))
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.__exit__(*error)  # type: ignore[arg-type]  # as the interpreter gives them

    def rows(self, rows: Sequence[EventRow]) -> None:
        """Write events."""
        self._log.rows(rows)

    def steps(self, partition: int, step: Step, found: Sequence[TruthRow]) -> None:
        """Write what a step led to."""
        self._decisions.append(partition, step.decisions)
        self._outcomes.append(partition, step.outcomes)
        self._truth.append(found)
