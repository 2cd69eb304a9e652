"""A worker and its learner on a real broker: what is learned is what the outcomes say, whoever is killed, and all of it replays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from click.testing import CliRunner
from deployment import Deployment, as_arguments, difference, expected

from backtest.perturb import Perturbation, perturb_log
from backtest.shoppers import generate_log
from contracts.decisions import Decision, decode_decision
from contracts.learned import Learned
from contracts.log import open_log
from contracts.log_writer import LogWriter
from contracts.outcomes import encode_outcome
from contracts.policies import Policy
from contracts.rules import Features, Guard, Thompson
from pricetide import command_line
from pricing.choosers import ignorance
from pricing.learned import restored
from streams.broker import administering, producing
from streams.doctor import examine
from streams.policy_changes import apply_policy
from streams.policy_log import read_policy_log
from tests.laws.naive_lessons import in_order, naive_demand, teaching
from tests.pricing.outcome_topic import outcome

FEATURES = Features(names=("intent", "price"))
RULE = Thompson(features=FEATURES, guard=Guard(user_outcomes_max=5, user_window_ms=3_600_000))
PIECES = 3
OFTEN = {"learner__version_seconds": 0.3, "learner__version_outcomes": 200}


def a_log_in_pieces(directory: Path, deployment: Deployment) -> list[Path]:
    """Write a log of shoppers, some of their events late, without the policy that it would publish; in pieces."""
    generate_log(directory / "plain", 150, 6_000, 41, deployment.topology)
    perturb_log(directory / "plain", directory / "perturbed", 41, Perturbation(late=0.02))
    log = open_log(directory / "perturbed")
    rows = list(log.rows())
    pieces = [directory / f"piece-{number}" for number in range(PIECES)]
    for number, piece in enumerate(pieces):
        with LogWriter(piece, log.manifest) as writer:
            writer.rows(rows[len(rows) * number // PIECES : len(rows) * (number + 1) // PIECES])
            for items in log.catalogue() if number == 0 else ():
                writer.catalogue(items)
    return pieces


def versions_of(deployment: Deployment) -> list[Learned]:
    """Return every version on the topic, the last one with its payload."""
    log = read_policy_log(deployment.settings)
    versions = [one.record for one in log.entries if isinstance(one.record, Learned) and not one.refused]
    last = log.book.learned.newest("demand", 1)
    return [] if last is None else [*versions[:-1], last]


def wait_until(what: Callable[[], Any], deployment: Deployment, limit_s: float = 60) -> None:
    ends_at = time.monotonic() + limit_s
    while not what():
        said = [f"-- {one.name}, {one.process.poll()}\n{one.said()[-3000:]}" for one in deployment.learners]
        assert time.monotonic() < ends_at, "\n".join(said)
        time.sleep(0.2)


def has_learned_all(deployment: Deployment) -> bool:
    records = deployment.committed(deployment.settings.topics.outcomes)
    versions = versions_of(deployment)
    return bool(versions) and all(
        at > pile[-1].offset for at, pile in zip(versions[-1].positions, records, strict=True) if pile
    )


def raw_outcomes(deployment: Deployment) -> list[list[tuple[int, Any]]]:
    piles = deployment.committed(deployment.settings.topics.outcomes)
    return [[(one.offset, json.loads(one.value)) for one in pile] for pile in piles]


def test_a_killed_learner_learns_nothing_twice_and_decisions_with_what_it_learned_replay(kafka, unique, tmp_path):
    flags = {"semantics__consent_default": True, "batch_max": 200}
    with Deployment(kafka, unique, tmp_path, partitions=2, **flags) as deployment:
        pieces, rnd = a_log_in_pieces(tmp_path, deployment), Random(7)
        deployment.create()
        apply_policy(deployment.settings, Policy(name="demand", number=1, rule=RULE))
        deployment.worker().wait_until_said("restored")
        learner = deployment.learner("learner-0", **OFTEN)
        for number, piece in enumerate(pieces):
            deployment.produce(piece)
            deployment.wait_until_applied(120)
            learner.wait_until_said(r"1: version \d+, ")
            time.sleep(rnd.uniform(0.0, 0.2))
            learner.kill()  # with more to learn, and maybe a version under way
            learner = deployment.learner(f"learner-{number + 1}", **OFTEN)
        wait_until(lambda: has_learned_all(deployment), deployment)
        versions, outcomes, published = versions_of(deployment), raw_outcomes(deployment), deployment.published()
        check_versions(deployment, versions, outcomes)
        records = [decode_decision(value) for pairs in published.decisions for _, value in pairs]
        named = {one.learned for one in records if isinstance(one, Decision)} - {None}
        known = {version.digest for version in versions} | {ignorance(RULE).digest()}  # type: ignore[union-attr]
        assert named <= known
        assert len(named) >= PIECES, "decisions followed what was learned"
        replayed = expected(deployment.record(tmp_path / "recorded"), batch_max=13)
        assert difference(replayed, published) == ""
        assert learner.terminate() == 0, learner.said()


def check_versions(deployment: Deployment, versions: list[Learned], outcomes: list[list[tuple[int, Any]]]) -> None:
    """Every version is one naive pass over the committed outcomes up to it; the group's offsets are those of the last one."""
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))
    bounds = [version.positions for version in versions]
    taught = teaching(in_order(outcomes, bounds), {"demand@1"}, 5, 3_600_000)
    last = versions[-1]
    assert last.outcomes == len(taught) > 300
    mean, covariance = naive_demand(taught, FEATURES.width, msgspec.structs.asdict(RULE.prior))
    mine: Any = restored(RULE, last)
    np.testing.assert_allclose(mine.mean, mean, rtol=0, atol=1e-8)
    np.testing.assert_allclose(mine.covariance, covariance, rtol=0, atol=1e-8)
    group = f"{deployment.settings.group}-learner-demand-1"
    with administering(deployment.settings) as admin:
        offsets = {place.partition: at.offset for place, at in admin.list_group_offsets(group)[group].items()}
    assert offsets == dict(enumerate(last.positions))


def test_a_second_learner_fences_the_first_and_goes_on_where_that_one_was(kafka, unique, tmp_path):
    with Deployment(kafka, unique, tmp_path, partitions=2, semantics__consent_default=True) as deployment:
        deployment.create()
        apply_policy(deployment.settings, Policy(name="demand", number=1, rule=RULE))
        first = deployment.learner("first", **OFTEN)
        first.wait_until_said("knows nothing yet")
        send_outcomes(deployment, 0, 30)
        wait_until(lambda: has_learned_all(deployment), deployment)
        second = deployment.learner("second", **OFTEN)
        second.wait_until_said(r"knows version \d+, 25 outcomes; recalled 30 records")
        send_outcomes(deployment, 30, 60)
        assert first.wait() == 75, first.said()
        assert "Another learner has taken over what demand@1 learns (fenced)" in first.said()
        wait_until(lambda: has_learned_all(deployment), deployment)
        versions = versions_of(deployment)
        assert [version.version for version in versions] == list(range(1, len(versions) + 1))
        assert versions[-1].outcomes == 50
        for finding in examine(deployment.settings):
            if finding.subject == "learner of demand@1":
                assert (finding.level, finding.message.split(";")[0]) == (
                    "ok",
                    f"version {len(versions)}, 50 outcomes learned",
                )
        assert second.terminate() == 0, second.said()
        done = CliRunner().invoke(command_line, ["policy", "recall", "demand@1", "1", *as_arguments(deployment.flags)])
        assert "demand@1 prices by version 1 of what it has learned" in done.stdout, done.exception
        book = read_policy_log(deployment.settings).book.learned
        found = [one.version for one in (book.of("demand", 1), book.newest("demand", 1)) if one is not None]
        assert found == [1, len(versions)], "what is in force, and where a learner goes on"


def send_outcomes(deployment: Deployment, begin: int, end: int) -> None:
    """Put outcomes on their topic, a user's seen ones and every sixth unseen, on both partitions."""
    topic = deployment.settings.topics.outcomes
    with producing(deployment.settings) as producer:
        for number in range(begin, end):
            one = outcome(number, f"user{number}", policy="demand@1", features=(1.0, 0.5, -0.5), exposed=number % 6 > 0)
            producer.send(topic, encode_outcome(one), b"[]", partition=number % 2)
        producer.flush()
