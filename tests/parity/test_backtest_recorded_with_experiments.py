"""A backtest of what live workers applied gives what they published while experiments began, ramped up and ended."""

from __future__ import annotations

from collections import defaultdict

import pytest
from msgspec.structs import replace

from backtest.replay import Replay
from contracts.decisions import decode_decision
from contracts.experiments import Experiment, RunningExperiments, Variant
from contracts.policies import ListPrice, Policy
from tests.parity.test_backtest_recorded import live_run, perturbed_shop, recorded

SPRING = Experiment(
    name="spring",
    number=1,
    variants=(
        Variant(name="plain", weight=0.4, policy="session_intent@1"),
        Variant(name="list", weight=0.6, policy="list@1"),
    ),
    control="plain",
    coverage=0.3,
    holdout=0.2,
)
LATER = [
    Policy(name="list", number=1, seed=3, rule=ListPrice()),
    SPRING,
    RunningExperiments(experiments=("spring@1",)),
    replace(SPRING, number=2, coverage=0.9),
    RunningExperiments(experiments=("spring@2",)),
    RunningExperiments(),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return perturbed_shop(tmp_path_factory.mktemp("shop"), users=60, events=2_000, seed=31, policies=LATER)


@pytest.mark.parametrize("batch_max", [5, 2_048])
def test_the_replay_of_a_record_gives_what_the_live_worker_published_in_experiments(shop, tmp_path, batch_max):
    workers = live_run(shop, 4)
    published = defaultdict(list)
    Replay(recorded(shop, workers, tmp_path), batch_max).run(lambda partition, step: published[partition].extend(
        (*step.prices, *step.decisions)))  # fmt: skip
    for partition, worker in enumerate(workers):
        assert sorted(published[partition]) == sorted((*worker.prices, *worker.decisions))
    stamps = {getattr(decode_decision(value), "experiment", None) for w in workers for _, value in w.decisions}
    assert stamps == {None, "spring@1", "spring@2"}
