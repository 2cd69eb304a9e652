"""A backtest of what live workers applied gives what they published, models included, which came and went on the way."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, pairwise
from math import inf
from random import Random

import pytest

from backtest.feed import References, Seen
from backtest.replay import Replay
from contracts.decisions import decode_decision
from contracts.errors import BadInput
from contracts.log import Manifest, open_log, records
from contracts.log_rows import CatalogueRow, EventRow
from contracts.log_writer import LogWriter
from contracts.policies import CurrentPolicy, ListPrice, Policy, PolicyBook
from contracts.semantics import Semantics, Topology
from tests.parity.test_backtest_recorded import LiveWorker, perturbed_shop, recorded
from tests.pricing.ring_encoder import RingEncoder

DAY_MS = 86_400_000
START_MS = 1_572_566_400_000
FALLS_BACK = [
    Policy(name="made", number=1, rule=ListPrice(), model="a", fallback="session_intent@1"),
    CurrentPolicy(name="made", number=1),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return perturbed_shop(tmp_path_factory.mktemp("shop"), users=40, events=1_500, seed=29, policies=FALLS_BACK)


def seen_whole(log):
    """Return catalogue and policies as a worker has read them that finds everything on the topics."""
    seen = Seen(References(log), PolicyBook(), log.manifest.semantics.currency)
    seen.advance(inf, inf)
    return seen.catalogue, seen.policies


def live_run(log, seed):
    """Return the workers of both partitions; each takes up another model, or none, now and then, and always anew."""
    random = Random(seed)
    workers = [LiveWorker(log, partition, *seen_whole(log)) for partition in range(2)]
    for record in records(log):
        worker = workers[record.partition]
        if random.random() < 0.02:
            digest = random.choice(["a", "a", "b", None])
            worker.encoder = None if digest is None else RingEncoder(digest)
        worker.apply(record, crashed=random.random() < 0.01)
    return workers


def replayed(log, batch_max, *digests):
    models = {digest: RingEncoder(digest) for digest in digests}
    replay = Replay(log, batch_max, models)
    out = defaultdict(list)
    replay.run(lambda partition, step: out[partition].extend(step.decisions))
    return out, models


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("batch_max", [5, 2_048])
def test_the_replay_of_a_record_repeats_every_model_where_it_was_in_force(shop, tmp_path, seed, batch_max):
    workers = live_run(shop, seed)
    decisions, _ = replayed(recorded(shop, workers, tmp_path), batch_max, "b", "a")
    assert [decisions[partition] for partition in range(2)] == [worker.decisions for worker in workers]
    made = [decode_decision(value) for worker in workers for _, value in worker.decisions]
    assert {record.model for record in made} == {"a", "b", None}
    assert sum(one.model != other.model for one, other in pairwise(made)) >= 10
    assert {getattr(record, "policy", "") for record in made} >= {"made@1", "session_intent@1"}


def test_a_model_that_is_not_given_is_named(shop, tmp_path):
    log = recorded(shop, live_run(shop, 1), tmp_path)
    with pytest.raises(BadInput, match=r"was decided with model a; given are b\. Name the directory"):
        replayed(log, 64, "b")


@pytest.mark.parametrize("batch_max", [1, 7, 2_048])
def test_a_plain_log_is_replayed_with_one_model_in_all_partitions_and_batches_of_any_size(shop, batch_max):
    decisions, models = replayed(shop, batch_max, "a")
    assert decisions == replayed(shop, 300, "a")[0]
    made = [decode_decision(value) for _, value in chain(*decisions.values())]
    assert {record.model for record in made} == {"a"}
    events = [record for record in made if getattr(record, "preference", None) is not None]
    assert {record.policy for record in events} == {"made@1"}
    assert models["a"].rebuilt >= len({record.user for record in events}) > 30


def test_a_plain_log_does_not_say_which_of_two_models_is_in_force(shop):
    with pytest.raises(BadInput, match="2 models for a log that was not recorded from workers: name one"):
        replayed(shop, 64, "a", "b")


def test_a_model_that_comes_back_does_not_take_a_user_for_the_one_it_knew(tmp_path):
    """Ann expires while another model is in force, and has as many tokens again when the first one comes back."""
    times = {"ann": [0, 1, 40 * DAY_MS + 1, 40 * DAY_MS + 2, 40 * DAY_MS + 3], "bob": [40 * DAY_MS]}
    item = CatalogueRow("i", 0, "t", "c", "b", "USD", 5_000)
    manifest = Manifest(
        semantics=Semantics(consent_default=True), topology=Topology(partitions=1), source="a test", offers="shown"
    )
    rows = [
        EventRow("view", f"{user}{at}", user, "i", START_MS + at, 5_000, "USD", arrival_ms=START_MS + at)
        for user, ats in times.items()
        for at in ats
    ]
    with LogWriter(tmp_path / "log", manifest, "jsonl") as writer:
        writer.catalogue([item])
        writer.rows(sorted(rows, key=lambda row: row.event_time_ms))
    log = open_log(tmp_path / "log")
    worker = LiveWorker(log, 0, *seen_whole(log))
    for digest, record in zip("aabbba", records(log), strict=True):
        if worker.encoder is None or worker.encoder.digest != digest:
            worker.encoder = RingEncoder(digest)
        worker.apply(record, crashed=False)
    decisions, _ = replayed(recorded(log, [worker], tmp_path / "recorded"), 64, "a", "b")
    assert decisions[0] == worker.decisions
    assert [decode_decision(value).sequence for _, value in worker.decisions] == [1, 2, 1, 1, 2, 3]
