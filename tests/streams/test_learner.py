"""The learner's shell and writer: who is learned for, one transaction per version, which versions go. Kafka: tests/integration."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced
from msgspec.structs import replace

from contracts.errors import BadInput, BrokenInvariant, BrokerUnavailable
from contracts.experiments import Experiment, RunningExperiments, Variant
from contracts.learned import Learned, digest_of, payload_of
from contracts.policies import CurrentPolicy, ListPrice, Policy, encode_policy, policy_key
from contracts.rules import Features, Thompson
from pricing.choosers import ignorance
from pricing.demand import Posterior
from pricing.learned import KnownShelf
from streams import lesson_session
from streams.learner import LearnerShell
from streams.learner_app import build_learner, stuck, waits_for
from streams.policy_log import Entry, PolicyLog
from streams.reference import References
from streams.settings import Settings, load_settings
from streams.version_writer import VersionWriter
from tests.streams.test_commit import Producer

DEMAND = Policy(name="demand", number=1, rule=Thompson())
OTHER = Policy(name="other", number=2, rule=Thompson())
MADE = Policy(name="made", number=1, rule=ListPrice(), model="0123456789abcdef", fallback="other@2")
PLAIN = Policy(name="plain", number=1, rule=ListPrice())
DAY_MS = 86_400_000


@pytest.fixture
def settings(tmp_path) -> Settings:
    return load_settings(
        data_dir=tmp_path, port=0, group="g", **{"topics.partitions": 2, "semantics.consent_default": True}
    )


def version(number: int) -> Learned:
    return Learned(name="demand", number=1, version=number, feature_version=1, payload="", digest="0" * 64, outcomes=3, left={},
                   positions=(5, 6), begins=(0, 0), resolved_ms=7)  # fmt: skip


# -- the writer --------------------------------------------------------------------------------------------------------


def writer_with(settings: Settings, monkeypatch: pytest.MonkeyPatch, producer: Producer) -> VersionWriter:
    monkeypatch.setattr("streams.version_writer.named_producer", lambda *_: producer)
    return VersionWriter(settings, DEMAND)


async def test_version_pointer_and_offsets_are_one_transaction(settings, monkeypatch):
    producer = Producer()
    await writer_with(settings, monkeypatch, producer).publish(version(4), 0)
    assert producer.calls == [
        "begin",
        ("policies", [b"demand/1/learned/4", b"demand/1/learned"]),
        ("offsets", "g-learner-demand-1", [("outcomes", 5), ("outcomes", 6)]),
        "end",
    ]
    pointer = b'{"record":"current_learned","name":"demand","number":1,"version":4}'
    assert [value for _, value in producer.last] == [encode_policy(version(4)), pointer]


async def test_nothing_is_ended_before_the_version_is_acknowledged(settings, monkeypatch):
    producer = Producer(asyncio.get_running_loop().create_future())
    publishing = asyncio.create_task(writer_with(settings, monkeypatch, producer).publish(version(1), 0))
    await asyncio.sleep(0.02)
    assert "end" not in producer.calls
    producer.acks.set_result(SimpleNamespace(offset=1))  # type: ignore[union-attr]
    await publishing
    assert producer.calls[-1] == "end"


async def test_a_fenced_writer_says_who_took_over(settings, monkeypatch):
    producer = Producer(asyncio.get_running_loop().create_future())
    producer.acks.set_exception(ProducerFenced())  # type: ignore[union-attr]
    with pytest.raises(BrokerUnavailable, match=r"Another learner has taken over what demand@1 learns \(fenced\)"):
        await writer_with(settings, monkeypatch, producer).publish(version(1), 0)


async def test_versions_go_when_the_next_one_has_outlived_the_decisions_and_two_always_stay(settings, monkeypatch):
    producer = Producer()
    writer = writer_with(settings, monkeypatch, producer)
    log = PolicyLog()
    log.entries += [Entry(offset=n, time_ms=n * DAY_MS, key=b"", record=version(n)) for n in (1, 2, 3)]
    log.entries.append(Entry(offset=9, time_ms=0, key=b"", record=replace(version(8), name="other")))
    writer.know(log)
    keep_ms = settings.topics.decisions_retention_ms + DAY_MS
    gone = []
    for number, now_ms in ((4, 2 * DAY_MS + keep_ms), (5, 2 * DAY_MS + keep_ms + 1), (6, 900 * DAY_MS)):
        await writer.publish(version(number), now_ms)
        gone.append([key for key, value in producer.last if value is None])
    assert gone == [[], [b"demand/1/learned/1"], [b"demand/1/learned/2", b"demand/1/learned/3"]]


# -- who is learned for ------------------------------------------------------------------------------------------------


def shell_of(settings: Settings, *records: Any, only: tuple[str, ...] = ()) -> LearnerShell:
    async def hand_over(batch: Any) -> None:
        raise AssertionError("nothing is handed over here")

    shell = LearnerShell(settings, only, hand_over)
    book = shell.references.policies
    for record in (DEMAND, OTHER, MADE, PLAIN, *records):
        book.apply(book.seen, policy_key(record), encode_policy(record))
    return shell


def current(policy: Policy) -> CurrentPolicy:
    return CurrentPolicy(name=policy.name, number=policy.number)


EXPERIMENT = Experiment(
    name="spring",
    number=1,
    control="a",
    variants=(Variant(name="a", weight=0.5, policy="plain@1"), Variant(name="b", weight=0.5, policy="demand@1")),
)


@pytest.mark.parametrize(
    ("records", "wanted"),
    [
        ([], []),
        ([current(PLAIN)], []),
        ([current(DEMAND)], ["demand@1"]),
        ([current(MADE)], ["other@2"]),
        ([current(OTHER), EXPERIMENT], ["other@2"]),
        ([current(OTHER), EXPERIMENT, RunningExperiments(experiments=("spring@1",))], ["other@2", "demand@1"]),
        (
            [current(OTHER), EXPERIMENT, RunningExperiments(experiments=("spring@1",)), RunningExperiments()],
            ["other@2"],
        ),
    ],
)
def test_whoever_may_price_and_learns_is_learned_for(settings, records, wanted):
    assert [policy.version for policy in shell_of(settings, *records)._wanted()] == wanted


def test_a_policy_asked_for_by_name_is_learned_for_alone_and_must_be_one_that_learns(settings):
    assert [one.version for one in shell_of(settings, current(OTHER), only=("demand@1",))._wanted()] == ["demand@1"]
    for version_, reason in (("demand@7", "is not on the topic"), ("plain@1", "does not learn")):
        with pytest.raises(BadInput, match=f"Policy '{version_}' {reason}"):
            shell_of(settings, only=(version_,))._wanted()


async def test_a_session_begins_and_ends_with_its_policys_turn(settings, monkeypatch):
    lives: list[str] = []

    class Session:
        opened, lag, progress_at = True, 0, 0.0

        def __init__(self, room: Any, policy: Policy) -> None:
            self.policy = policy

        async def run(self) -> None:
            lives.append(f"begins {self.policy.version}")
            await asyncio.sleep(60)

        async def close(self, timeout_s: float) -> None:
            lives.append(f"ends {self.policy.version}")

    monkeypatch.setattr("streams.learner.LessonSession", Session)
    monkeypatch.setattr("streams.learner.FOLLOW_S", 0.01)
    shell = shell_of(settings, current(DEMAND))
    following = asyncio.create_task(shell._follow())
    book = shell.references.policies
    async with asyncio.timeout(30):
        while not lives:  # noqa: ASYNC110 - what follows sets no event
            await asyncio.sleep(0.01)
        book.apply(book.seen, b"current", encode_policy(current(OTHER)))
        while len(lives) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert lives == ["begins demand@1", "ends demand@1", "begins other@2"]
    following.cancel()
    shell._running = following
    await shell.close()
    assert lives[3:] == ["ends other@2"]


def test_a_version_that_workers_would_refuse_ends_the_learner_and_is_not_published(settings, monkeypatch):
    ends: list[BaseException] = []
    monkeypatch.setattr("streams.learner.end_process", ends.append)
    shell = shell_of(settings, current(DEMAND))

    class Session:
        policy, committing = DEMAND, None

        def apply(self, batch: Any) -> None:
            raise BrokenInvariant("its covariance is not positive definite")

    shell.sessions["demand@1"] = session = Session()  # type: ignore[assignment]
    shell.apply(SimpleNamespace(session=session))  # type: ignore[arg-type]
    assert [error.exit_code for error in ends] == [70]  # type: ignore[attr-defined]
    assert session.committing is None


# -- pages -------------------------------------------------------------------------------------------------------------


def test_a_learner_is_ready_when_its_sessions_are_and_stuck_when_one_with_a_backlog_publishes_nothing(settings):
    shell = build_learner(settings).shell
    assert waits_for(shell) == ["policies are being read"]
    shell.references.ready.set()
    session = SimpleNamespace(opened=False, lag=0, progress_at=100.0)
    shell.sessions["demand@1"] = session  # type: ignore[assignment]
    assert waits_for(shell) == ["demand@1 is being taken up"]
    session.opened = True
    limit_s = settings.liveness_ms / 1000 + 2 * settings.learner.version_seconds
    assert (waits_for(shell), stuck(shell, 101.0 + limit_s)) == ([], [])
    session.lag = 7
    assert stuck(shell, 99.0 + limit_s) == []
    assert stuck(shell, 101.0 + limit_s) == [f"demand@1: 7 records behind, no version for {1 + limit_s:.0f} s"]


# -- what it reads -----------------------------------------------------------------------------------------------------


async def test_policies_are_caught_up_with_once_what_lies_there_now_is_applied(settings):
    applied: list[int] = []
    references = References(settings, lambda _: None, catalogue=False)

    at_work = asyncio.get_running_loop().create_future()

    class Consumer:
        at = 0
        _fetcher, _client = SimpleNamespace(_fetch_task=at_work), SimpleNamespace(_sync_task=at_work)

        async def end_offsets(self, places: Any) -> dict[Any, int]:
            return dict.fromkeys(places, 3)

        async def position(self, place: Any) -> int:
            return self.at

        async def getmany(self, *, timeout_ms: int, max_records: int | None) -> dict[Any, Any]:
            await asyncio.sleep(0.01)
            self.at += 1
            return {}

    references._consumer = Consumer()
    references._apply = lambda fetched: applied.append(references._consumer.at)  # type: ignore[method-assign, union-attr]
    following = asyncio.create_task(references.follow())
    await references.caught_up()
    assert max(applied) >= 3
    following.cancel()


def test_refused_policies_are_a_series_from_the_start_so_that_the_first_one_is_an_increase(settings):
    value = LearnerShell(settings, (), None).metrics.registry.get_sample_value  # type: ignore[arg-type]
    assert value("pricetide_learner_refused_references_total", {"topic": settings.topics.policies}) == 0.0


def test_a_version_that_no_price_can_be_made_of_is_refused_and_counted_and_workers_price_by_the_one_before(settings):
    """The trap: a check at the topic that lets pass what the one at use does not, and every worker ends."""
    refused: list[str] = []
    references, place = References(settings, refused.append), TopicPartition(settings.topics.policies, 0)
    policy = replace(DEMAND, rule=Thompson(features=Features(names=("intent", "price"))))
    sound, unsound = ignorance(policy.rule), ignorance(policy.rule)
    assert isinstance(sound, Posterior) and isinstance(unsound, Posterior)
    unsound.covariance[:2, :2] = ((1.0, 1.0), (1.0, 1.0 + 2**-52))
    records = [policy, *[learned_by(policy, number, one) for number, one in ((1, sound), (2, unsound))]]
    references._apply({place: [SimpleNamespace(offset=n, key=policy_key(one), value=encode_policy(one))
                               for n, one in enumerate(records)]})  # type: ignore[dict-item]  # fmt: skip
    assert refused == [settings.topics.policies]
    in_force = references.policies.knowledge_of(policy)
    assert in_force is not None and in_force.version == 1
    assert KnownShelf().of(policy, in_force).knowledge.encode() == sound.encode()


def learned_by(policy: Policy, number: int, knowledge: Posterior) -> Learned:
    content = knowledge.encode()
    return Learned(name=policy.name, number=policy.number, version=number, feature_version=1, payload=payload_of(content),
                   digest=digest_of(content, 0.0), outcomes=3, left={}, positions=(5, 6), begins=(0, 0), resolved_ms=7)  # fmt: skip


def test_records_that_are_no_outcome_are_gone_past_and_a_partitions_time_never_falls(settings):
    from contracts.outcomes import encode_outcome
    from tests.pricing.outcome_topic import WINDOW_MS, a_late_purchase, outcome

    room = SimpleNamespace(settings=settings, metrics=LearnerShell(settings, (), None).metrics)  # type: ignore[arg-type]
    session: Any = object.__new__(lesson_session.LessonSession)
    session._room, session.policy, session._highest = room, DEMAND, [0, 0]
    values = [
        encode_outcome(outcome(drawn_ms=9)),
        None,
        b"{",
        encode_outcome(a_late_purchase(1)),
        encode_outcome(outcome(drawn_ms=5)),
    ]
    records = [SimpleNamespace(offset=n, value=value) for n, value in enumerate(values)]
    lessons = session._read(1, records)
    assert [(one.order_ms, one.offset, one.outcome is None) for one in lessons] == [
        (WINDOW_MS + 9, 0, False), (WINDOW_MS + 9, 1, True), (WINDOW_MS + 9, 2, True), (WINDOW_MS + 9, 3, True),
        (WINDOW_MS + 9, 4, False),
    ]  # fmt: skip
    assert room.metrics.unreadable.labels("demand@1")._value.get() == 1
