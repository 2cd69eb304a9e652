"""Workers while an operator begins, ramps up and promotes an experiment between pieces of a log: who is priced by what, and the
replay of what was recorded.
"""

from __future__ import annotations

from itertools import chain

from deployment import Deployment, difference, expected

from contracts.decisions import Decision, decode_decision
from contracts.experiments import Experiment
from pricing.assignment import Lots
from streams.policy_log import read_policy_log
from tests.integration.test_workers_follow_policies import BATCH_MAX, POLICY, piece_of_log, run

EXPERIMENT = """
name = "spring"
control = "plain"
coverage = {coverage}
holdout = 0.2
[[variants]]
name = "plain"
weight = 0.5
policy = "session_intent@1"
[[variants]]
name = "bolder"
weight = 0.5
policy = "bolder@1"
"""


def test_workers_follow_an_experiment_from_its_start_to_its_promotion(kafka, unique, tmp_path):
    (tmp_path / "bolder.toml").write_text(POLICY.format(name="bolder", discount=250), encoding="utf-8")
    for coverage in (0.4, 0.9):
        (tmp_path / f"spring-{coverage}.toml").write_text(EXPERIMENT.format(coverage=coverage), encoding="utf-8")
    steps: list[tuple[str, ...]] = [
        (),
        ("experiment", "apply", str(tmp_path / "spring-0.4.toml")),
        ("experiment", "apply", str(tmp_path / "spring-0.9.toml")),
        ("experiment", "promote", "spring", "--variant", "bolder"),
    ]
    with Deployment(kafka, unique, tmp_path, partitions=2, batch_max=BATCH_MAX) as deployment:
        deployment.create()
        for name in ("first", "second"):
            deployment.worker(name).wait_until_said("restored")
        for number, words in enumerate(steps):
            if words:
                run(deployment, *words)
            deployment.produce(piece_of_log(tmp_path / str(number), number, deployment))
            deployment.wait_until_applied(120)
            if number == 0:
                run(deployment, "policy", "apply", str(tmp_path / "bolder.toml"), "--no-activate")
        published = deployment.published()
        log = read_policy_log(deployment.settings)
        replayed = expected(deployment.record(tmp_path / "recorded"), batch_max=13)
    assert difference(replayed, published) == ""
    records = [decode_decision(value) for _, value in chain.from_iterable(published.decisions)]
    check([one for one in records if isinstance(one, Decision)], log.book.experiments.versions("spring"))
    assert log.book.current.version == "bolder@1"
    assert log.book.experiments.running == ()


def check(decisions: list[Decision], versions: list[Experiment]) -> None:
    """Every stamp is that of the hash, and the last piece is priced by the promoted policy, stamped with nothing."""
    by_version = {one.version: one for one in versions}
    assert {one.experiment for one in decisions} == {None, *by_version}
    for version, experiment in by_version.items():
        lots = Lots()
        lots.use((experiment,))
        stamped = [one for one in decisions if one.experiment == version]
        assert {one.variant for one in stamped} == {"plain", "bolder"}
        assert {one.held_out for one in stamped} == {True, False}
        for one in stamped:
            lot = lots.of(one.user)
            assert lot is not None
            variant = experiment.variants[lot.variant]
            assert (one.variant, one.policy, one.held_out) == (variant.name, variant.policy, lot.held_out)
            assert not one.held_out or one.status != "drawn" or one.price == one.list_price
    last = [one for one in decisions if (one.event_id or "").startswith("3-")]
    after = [one for one in last if (one.experiment, one.policy) == (None, "bolder@1")]
    assert len(last) - len(after) <= 2 * BATCH_MAX < len(last), "a batch of each partition may have been under way"
