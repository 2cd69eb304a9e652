"""A backtest of what a live worker applied gives what it published, however events, catalogue and policies came in.

The live worker is played by a naive twin: one record at a time, in an arbitrary order of the topics, while the catalogue
and the policies grow beside it.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from random import Random

import msgspec
import pytest

from backtest.perturb import Perturbation, perturb_log
from backtest.replay import Replay
from backtest.shoppers import generate_log
from contracts.catalogue import Catalogue
from contracts.decisions import decode_decision
from contracts.intake import Intake
from contracts.log import catalogue_records, open_log, policy_records, records
from contracts.log_capture import applied_row, catalogue_row, event_row, policy_row
from contracts.log_rows import PolicyRow
from contracts.log_writer import LogWriter
from contracts.policies import CurrentPolicy, KillSwitch, ListPrice, Policy, PolicyBook, encode_policy
from contracts.semantics import Topology
from pricing.engine import Engine, PartitionState
from pricing.timers import Timers

LATER = [
    Policy(name="list", number=1, rule=ListPrice()),
    CurrentPolicy(name="list", number=1),
    CurrentPolicy(name="session_intent", number=1),
    KillSwitch(on=True),
    KillSwitch(on=False),
]


PERTURBED = Perturbation(late=0.05, duplicates=0.05, consents=0.05, erasures=0.01)


def perturbed_shop(folder, users, events, seed, policies):
    """Return a perturbed log of two partitions that has `policies` after its own."""
    generate_log(folder / "shop", users, events, seed, Topology(partitions=2), "jsonl")
    perturb_log(folder / "shop", folder / "log", 2, PERTURBED, "jsonl")
    log = open_log(folder / "log")
    with LogWriter(folder / "more", log.manifest, "jsonl") as writer:
        writer.rows(list(log.rows()))
        writer.catalogue(list(chain.from_iterable(log.catalogue())))
        writer.policies(list(chain.from_iterable(log.policies())))
        writer.policies([PolicyRow(record=encode_policy(record).decode()) for record in policies])
    return open_log(folder / "more")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return perturbed_shop(tmp_path_factory.mktemp("shop"), users=60, events=2_000, seed=23, policies=LATER)


class LiveWorker:
    """One partition, one record at a time; some records are isolated for having crashed it."""

    def __init__(self, log, partition, catalogue, policies):
        manifest = log.manifest
        self.intake = Intake(manifest.semantics, manifest.topology, partition)
        self.engine = Engine(manifest.semantics, manifest.topology, partition)
        self.catalogue, self.policies = catalogue, policies
        self.states, self.state = {}, PartitionState()
        self.timers = Timers()
        self.prices, self.decisions, self.outcomes = [], [], []
        self.encoder = None

    def apply(self, record, crashed):
        inbound = self.intake.read(record.source, record.offset, record.key, record.value, record.arrival_ms)
        isolated = {(record.source, record.offset): "Boom"} if crashed else {}
        step = self.engine.step(
            [inbound],
            self.states.get,
            self.state,
            self.catalogue,
            self.policies,
            isolated,
            self.encoder,
            timers=self.timers,
        )
        for key, value in (step.states | step.pending | step.erased).items():
            if value is None:
                self.states.pop(key, None)
            else:
                self.states[key] = value
        self.timers.apply(step.timers)
        self.state = step.partition
        self.prices += step.prices
        self.decisions += step.decisions
        self.outcomes += step.outcomes


def live_run(log, seed):
    """Return the workers after a run in which everything arrives as chance has it."""
    random = Random(seed)
    topics = defaultdict(list)
    for record in records(log):
        topics[record.partition, record.source].append(record)
    items, policies = list(catalogue_records(log)), list(policy_records(log))
    catalogue, book = Catalogue(), PolicyBook()
    workers = [LiveWorker(log, partition, catalogue, book) for partition in range(2)]
    total = sum(map(len, topics.values()))
    while topics:
        # The catalogue comes in while the first events do, the policies all along.
        while items and random.random() < 0.7:
            record = items.pop(0)
            catalogue.apply(record.offset, record.key, record.value)
        if policies and random.random() < 1.2 * 7 / total:
            record = policies.pop(0)
            book.apply(record.offset, record.key, record.value)
        place = random.choice(list(topics))
        workers[place[0]].apply(topics[place].pop(0), crashed=random.random() < 0.01)
        if not topics[place]:
            del topics[place]
    return workers


def recorded(log, workers, directory):
    """Write what `pricetide record` captures: inputs, references, and the applied order from the decisions."""
    semantics, topology = log.manifest.semantics, log.manifest.topology
    with LogWriter(directory, log.manifest) as writer:
        writer.rows([event_row(record, semantics, topology) for record in records(log)])
        writer.catalogue([catalogue_row(r.offset, r.key, r.value) for r in catalogue_records(log)])
        writer.policies([policy_row(r.offset, r.key, r.value) for r in policy_records(log)])
        for worker in workers:
            writer.applied([applied_row(decode_decision(value), topology) for _, value in worker.decisions])
    return open_log(directory)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("batch_max", [5, 2_048])
def test_the_replay_of_a_record_gives_what_the_live_worker_published(shop, tmp_path, seed, batch_max):
    workers = live_run(shop, seed)
    prices, decisions, outcomes = defaultdict(list), defaultdict(list), defaultdict(list)

    def publish(partition, step):
        prices[partition] += step.prices
        decisions[partition] += step.decisions
        outcomes[partition] += step.outcomes

    replay = Replay(recorded(shop, workers, tmp_path), batch_max)
    replay.run(publish)
    for partition, worker in enumerate(workers):
        assert prices[partition] == worker.prices
        assert decisions[partition] == worker.decisions
        assert outcomes[partition] == worker.outcomes
        assert len(worker.outcomes) > 100
    assert replay.not_applied == 0
    seen = {(record.policies_seen, record.catalogue_seen > 0) for w in workers for record in map(decoded, w.decisions)}
    assert len(seen) >= 5, "policies arrived while the worker ran"


def decoded(pair):
    return decode_decision(pair[1])


def test_the_order_of_the_record_is_needed(shop, tmp_path):
    """Without the applied order the same records give other prices: the record proves something."""
    workers = live_run(shop, 1)
    log = recorded(shop, workers, tmp_path)
    tables = {name: entry for name, entry in log.manifest.tables.items() if name != "applied"}
    log.manifest = msgspec.structs.replace(log.manifest, tables=tables)
    prices = defaultdict(list)
    Replay(log).run(lambda partition, step: prices[partition].extend(step.prices))
    assert any(prices[partition] != worker.prices for partition, worker in enumerate(workers))
