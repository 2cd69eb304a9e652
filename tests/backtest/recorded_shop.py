"""Logs whose shoppers saw the prices, with decisions and outcomes as published, for tests of what is read from them."""

from __future__ import annotations

from itertools import chain

import msgspec

from backtest.replay import Replay
from backtest.shoppers import generate_log
from contracts.log import open_log
from contracts.log_rows import PolicyRow, PublishedRow
from contracts.log_writer import LogWriter
from contracts.policies import CurrentPolicy, Policy, UniformRandom, encode_policy
from contracts.semantics import Topology

UNIFORM = Policy(name="uniform", number=1, seed=7, rule=UniformRandom())


def rewritten(
    source,
    directory,
    *,
    offers="shown",
    policies=(),
    catalogue=None,
    rows=None,
    outcomes=None,
    file_format="jsonl",
    exposure="all",
):
    """Write the log in `source` again, with other tables where they are given."""
    log = open_log(source)
    semantics = msgspec.structs.replace(log.manifest.semantics, exposure=exposure)
    manifest = msgspec.structs.replace(log.manifest, offers=offers, semantics=semantics)
    with LogWriter(directory, manifest, file_format) as writer:
        writer.rows(list(log.rows()) if rows is None else rows)
        writer.catalogue(list(chain.from_iterable(log.catalogue())) if catalogue is None else catalogue)
        writer.policies(list(chain.from_iterable(log.policies())))
        writer.policies([PolicyRow(record=encode_policy(record).decode()) for record in policies])
        if outcomes is not None:
            writer.published("outcomes", outcomes)
    return directory


def published_outcomes(directory):
    """Return what workers would have published, in the order of their topic."""
    rows = []

    def publish(partition, step):
        rows.extend(PublishedRow(partition, key, value) for key, value in step.outcomes)

    Replay(open_log(directory)).run(publish)
    return rows


def recorded_shop(folder, policy=UNIFORM, users=80, events=1_500, seed=3, partitions=3):
    """Return the directory of a log of shoppers who saw the prices of `policy`, outcomes included."""
    generate_log(folder / "generated", users, events, seed, Topology(partitions=partitions), "jsonl")
    current = CurrentPolicy(name=policy.name, number=policy.number)
    rewritten(folder / "generated", folder / "priced", policies=[policy, current])
    return rewritten(folder / "priced", folder / "log", outcomes=published_outcomes(folder / "priced"))
