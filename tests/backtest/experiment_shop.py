"""A shop that shows the engine's prices to shoppers who react to them, for experiments whose truth is known. Writes a log.

    python -m tests.backtest.experiment_shop DIRECTORY

Half of the users see the list price, half a discount by intent; one in twenty is held out. Every shopper comes twice, once
before the experiment starts and once after, and is more or less keen on buying, for good. The log replays to the same prices.
"""

from __future__ import annotations

import sys
from heapq import heappop, heappush
from math import exp
from pathlib import Path
from random import Random

from contracts.catalogue import Catalogue, CatalogueItem
from contracts.decisions import Decision, decode_decision
from contracts.experiments import Experiment, Guardrail, RunningExperiments, Variant
from contracts.intake import Intake
from contracts.log import Addresses, Manifest
from contracts.log_rows import CatalogueRow, EventRow, PolicyRow, PublishedRow, event_value
from contracts.log_writer import LogWriter
from contracts.policies import (
    CurrentPolicy,
    ListPrice,
    Policy,
    PolicyBook,
    PolicyRecord,
    Rails,
    SessionIntent,
    encode_policy,
    policy_key,
)
from contracts.semantics import Semantics, Topology
from pricing.engine import Engine, PartitionState
from pricing.timers import Timers

START_MS = 1_762_160_400_000
DAY_MS = 86_400_000
MINUTE_MS = 60_000
ITEMS = [(f"item-{number}", 1_999 + 1_000 * number, 1_200 + 600 * number) for number in range(12)]
"""Item, list price, cost."""
RAILS = Rails(charm_endings=())
POLICIES = (
    Policy(name="list", number=1, rule=ListPrice(), rails=RAILS),
    CurrentPolicy(name="list", number=1),
    Policy(name="deal", number=1, seed=5, rule=SessionIntent(discounts_permille=(150, 100, 50, 0)), rails=RAILS),
)
SPRING = Experiment(
    name="spring",
    number=1,
    variants=(
        Variant(name="plain", weight=0.5, policy="list@1"),
        Variant(name="deal", weight=0.5, policy="deal@1"),
    ),
    control="plain",
    start_ms=START_MS + 3 * DAY_MS,
    guardrails=(Guardrail(metric="consent", worse_by=0.02), Guardrail(metric="margin", worse_by=0.1)),
    promote="when_better",
)


class Shop:
    """An engine of one partition, and every row that it was given."""

    def __init__(self, policies: list[PolicyRecord], items: list[CatalogueItem] | None = None) -> None:
        self.semantics, self.topology = Semantics(consent_default=True), Topology(partitions=1)
        self.rows: list[EventRow] = []
        self._engine = Engine(self.semantics, self.topology, 0)
        self._intake = Intake(self.semantics, self.topology, 0)
        self._addresses = Addresses(self.topology)
        self._states: dict[bytes, bytes] = {}
        self._partition = PartitionState()
        self._catalogue, self._policies = Catalogue(), PolicyBook()
        self._timers = Timers()
        self.outcomes: list[PublishedRow] = []
        self.items = items or [
            CatalogueItem(
                item=item,
                valid_from_ms=0,
                title=item,
                category="c",
                brand="b",
                currency="USD",
                list_price=price,
                cost=cost,
            )
            for item, price, cost in ITEMS
        ]
        for one in self.items:
            self._catalogue.add(self._catalogue.seen, one)
        for record in policies:
            self._policies.apply(self._policies.seen, policy_key(record), encode_policy(record))

    def price(self, row: EventRow) -> int | None:
        """Apply the event of a row; return the price that the shopper is shown."""
        self.rows.append(row)
        source, _, offset, key = self._addresses.of(row)
        inbound = self._intake.read(source, offset, key, event_value(row), row.arrival_ms)
        step = self._engine.step(
            [inbound], self._states.get, self._partition, self._catalogue, self._policies, timers=self._timers
        )
        for name, value in (step.states | step.pending).items():
            if value is None:
                del self._states[name]
            else:
                self._states[name] = value
        self._timers.apply(step.timers)
        self.outcomes += [PublishedRow(0, name, value) for name, value in step.outcomes]
        self._partition = step.partition
        decision = decode_decision(step.decisions[0][1])
        return decision.price if isinstance(decision, Decision) else None


def write_experiment(
    directory: Path, users: int, seed: int, experiment: Experiment = SPRING, slope: float = 4.0
) -> None:
    """Write the log of a shop in which `experiment` runs.

    Args:
        directory: must not hold a log.
        users: shoppers.
        seed: of everything they do.
        experiment: on the policies list@1 and deal@1.
        slope: how much the log-odds of buying fall with the share of list price that is asked; 0: not at all.
    """
    random = Random(seed)
    policies = [*POLICIES, experiment, RunningExperiments(experiments=(experiment.version,))]
    shop = Shop(policies)
    coming: list[tuple[int, int, int, str]] = []
    keen = [random.gauss(0.0, 1.5) for _ in range(users)]
    for user in range(users):
        for day in (0, 3):  # once before the experiment, once in it
            for _ in range(1 + random.randrange(3)):
                at_ms = START_MS + day * DAY_MS + random.randrange(2 * DAY_MS)
                heappush(coming, (at_ms, user, random.randrange(len(ITEMS)), "view"))
    while coming:
        at_ms, user, place, kind = heappop(coming)
        item, list_price, _ = ITEMS[place]
        name = f"shopper-{user:05d}"
        row = EventRow(
            kind, event_id=f"e{len(shop.rows)}", user=name, item=item, event_time_ms=at_ms, price=list_price, currency="USD",
            arrival_ms=at_ms,
        )  # fmt: skip
        if kind.isdecimal():
            row.type, row.price, row.quantity = "purchase", int(kind), 1
        shown = shop.price(row)
        if row.type == "view" and shown is not None:
            odds = keen[user] - 2.0 - slope * (shown / list_price - 1.0)
            if random.random() < 1.0 / (1.0 + exp(-odds)):
                heappush(coming, (at_ms + MINUTE_MS + random.randrange(5 * MINUTE_MS), user, place, str(shown)))
    write_shop(
        directory, shop, policies, f"Generated: python -m tests.backtest.experiment_shop, {users} users, seed {seed}"
    )


def write_shop(directory: Path, shop: Shop, policies: list[PolicyRecord], source: str) -> None:
    """Write the log of what a shop was given."""
    manifest = Manifest(
        semantics=shop.semantics,
        topology=shop.topology,
        source=source,
        offers="shown",
        synthetic=("Everything: shoppers who react to the engine's prices by a logistic curve.",),
    )
    with LogWriter(directory, manifest) as writer:
        writer.rows(shop.rows)
        writer.published("outcomes", shop.outcomes)
        writer.catalogue(
            [CatalogueRow(**{name: getattr(one, name) for name in one.__struct_fields__}) for one in shop.items]
        )
        writer.policies([PolicyRow(record=encode_policy(record).decode()) for record in policies])


if __name__ == "__main__":
    write_experiment(Path(sys.argv[1]), users=8_000, seed=1)
