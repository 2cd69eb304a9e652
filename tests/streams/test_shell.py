"""The shell and its transport: whole partitions only, nothing escapes the agent, every end has a code."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.consumer.fetcher import Fetcher
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

from contracts.errors import BadSettings, BrokenInvariant, BrokerUnavailable
from pricing.engine import EventCrash
from streams import transport
from streams.app import build_app
from streams.closing import stop
from streams.crashes import CrashCounts
from streams.settings import Settings, load_settings
from streams.shell import EXIT_BUG, EXIT_RETRY, EXIT_SETTINGS, WorkerShell, supervised, verdict
from streams.web import not_live


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def settings(tmp_path) -> Settings:
    return load_settings(data_dir=tmp_path, port=0, **{"semantics.consent_default": True, "topics.partitions": 2})


@pytest.fixture
def codes(monkeypatch) -> list[int]:
    """The codes that the process would have ended with."""
    seen: list[int] = []

    def end(code: int) -> None:
        seen.append(code)
        raise Ended

    monkeypatch.setattr("os._exit", end)
    return seen


@pytest.fixture
def shell(settings) -> WorkerShell:
    async def hand_over(batch: Any) -> None:
        raise AssertionError("nothing is handed over here")

    return WorkerShell(settings, hand_over)


def test_refused_references_are_series_from_the_start_so_that_the_first_one_is_an_increase(shell):
    count = shell.metrics.registry.get_sample_value
    assert {count("pricetide_refused_references_total", {"topic": one}) for one in ("catalogue", "policies")} == {0.0}


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BadSettings("Set it"), EXIT_SETTINGS, "Set it"),
        (BrokerUnavailable("No answer"), EXIT_RETRY, "No answer"),
        (BrokenInvariant("Never"), EXIT_BUG, "Never"),
        (kafka_errors.ProducerFenced(), EXIT_RETRY, "Another worker has taken this partition over"),
        (kafka_errors.InvalidProducerEpoch(), EXIT_RETRY, "Another worker has taken this partition over"),
        (kafka_errors.UnknownTopicOrPartitionError(), EXIT_RETRY, "a broker that has just started"),
        (kafka_errors.OffsetOutOfRangeError({}), EXIT_SETTINGS, "pricetide doctor"),
        (kafka_errors.KafkaConnectionError("gone"), EXIT_RETRY, "The broker failed"),
        (ConnectionResetError(), EXIT_RETRY, "The broker failed"),
        (TimeoutError(), EXIT_RETRY, "The broker failed"),
        (OSError(28, "No space left on device"), EXIT_SETTINGS, "Make room on its disk"),
        (Exception("IO error: No space left on device"), EXIT_SETTINGS, "Make room on its disk"),
        (OSError(30, "Read-only file system"), EXIT_SETTINGS, "Mend the disk (quota, mount"),
        (Exception("IO error: While appending: 9.sst: Disk quota exceeded"), EXIT_SETTINGS, "nothing need be removed"),
        (Exception("Corruption: block checksum mismatch"), EXIT_SETTINGS, "state/GROUP/PARTITION, and no other"),
        (Exception("something else"), EXIT_BUG, "Unexpected Exception"),
        (ZeroDivisionError("division by zero"), EXIT_BUG, "Unexpected ZeroDivisionError: division by zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_its_code_and_its_sentence(error, code, words):
    found, sentence = verdict(error)
    assert found == code
    assert words in sentence


# -- the agent ---------------------------------------------------------------------------------------------------------


def batch_of(shell: WorkerShell, error: BaseException | None) -> Any:
    """Return a batch of an open session that raises `error`."""
    applied: list[Any] = []

    def apply(batch: Any) -> None:
        applied.append(batch)
        if error is not None:
            raise error

    session = SimpleNamespace(partition=0, closing=False, apply=apply, committing=None, applied=applied)
    shell.sessions[0] = session  # type: ignore[assignment]
    return SimpleNamespace(session=session)


@pytest.mark.parametrize("error", [ValueError("a bug"), BrokenInvariant("seen"), KeyError("k")])
def test_nothing_escapes_the_agents_body_because_faust_would_acknowledge_and_go_on(shell, codes, error, capsys):
    with pytest.raises(Ended):
        shell.apply(batch_of(shell, error))
    assert codes == [EXIT_BUG]
    assert "pricetide: " in capsys.readouterr().err


def test_an_event_that_crashes_the_engine_is_counted_before_the_process_ends(shell, codes, settings):
    with pytest.raises(Ended):
        shell.apply(batch_of(shell, EventCrash(1, 42)))
    assert codes == [EXIT_BUG]
    assert CrashCounts(settings.data_dir, 1).isolated(settings.topics.topology.sources, 0).keys() == {(1, 42)}


def test_a_crash_that_cannot_be_counted_ends_the_process_all_the_same(shell, codes, monkeypatch):
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shell.crashes, "add", full)
    with pytest.raises(Ended):
        shell.apply(batch_of(shell, EventCrash(1, 42)))
    assert codes == [EXIT_BUG]


def test_a_disk_that_fails_under_an_event_is_not_the_event_s_fault(shell, codes, settings):
    crash = EventCrash(1, 42)
    crash.__cause__ = Exception("Corruption: block checksum mismatch")
    with pytest.raises(Ended):
        shell.apply(batch_of(shell, crash))
    assert codes == [EXIT_SETTINGS]
    assert CrashCounts(settings.data_dir, 1).isolated(settings.topics.topology.sources, 0) == {}


def test_a_batch_of_an_assignment_that_is_gone_is_not_applied(shell):
    closing, replaced = batch_of(shell, None), batch_of(shell, None)
    shell.sessions[0] = closing.session
    closing.session.closing = True
    shell.apply(closing)
    shell.apply(replaced)
    assert closing.session.applied == replaced.session.applied == []


async def test_a_commit_that_fails_behind_the_agents_back_ends_the_process(shell, codes):
    async def fenced() -> None:
        raise kafka_errors.ProducerFenced

    ends: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: ends.append(context["exception"]))
    batch = batch_of(shell, None)
    batch.session.committing = asyncio.create_task(fenced())
    shell.apply(batch)
    await asyncio.sleep(0.02)
    assert codes == [EXIT_RETRY]


async def test_one_agent_takes_one_batch_at_a_time(settings):
    """The trap: an agent with concurrency or a longer queue applies two batches of a user at once, or out of order."""
    app = build_app(settings)
    (agent,) = app.agents.values()
    assert agent.concurrency == 1
    assert agent.isolated_partitions is False
    assert agent.channel.maxsize == 1


# -- partitions --------------------------------------------------------------------------------------------------------


async def test_a_partition_that_comes_without_one_of_its_topics_ends_the_worker(shell, codes, capsys):
    with pytest.raises(Ended):
        await shell.assigned({TP("consents", 0), TP("views", 0), TP("clicks", 0)})
    assert codes == [EXIT_SETTINGS]
    assert "Partition 0 was assigned without ['purchases']" in capsys.readouterr().err


async def test_a_partition_beyond_those_of_the_settings_ends_the_worker(shell, codes, capsys):
    """Topics that grow under a group have their users on other partitions: every key would become a dead letter."""
    grown = {TP(topic, 2) for topic in shell.settings.topics.topology.sources}
    with pytest.raises(Ended):
        await shell.assigned(grown)
    assert codes == [EXIT_SETTINGS]
    assert "Partition 2 was assigned, the settings say 2: topics were repartitioned" in capsys.readouterr().err


async def test_a_partition_that_is_given_up_leaves_no_gauges(shell):
    """The trap: its lag of that moment would stand beside its next owner's for ever, and ring for commits that are not its own."""

    async def close(timeout_s: float) -> None:
        pass

    metrics = shell.metrics
    for partition in (0, 1):
        metrics.lag.labels("views", partition).set(7)
        for gauge in (
            metrics.restoring,
            metrics.users,
            metrics.pending_draws,
            metrics.erasures_waiting,
            metrics.last_commit,
        ):
            gauge.labels(partition).set(7)
    shell.sessions[0] = SimpleNamespace(close=close)  # type: ignore[assignment]
    await shell.release()
    left = [
        sample.labels
        for family in metrics.registry.collect()
        for sample in family.samples
        if "partition" in sample.labels
    ]
    assert [labels["partition"] for labels in left] == ["1"] * 6


async def test_a_partition_that_cannot_be_given_up_makes_the_worker_fail_its_liveness_in_the_end(shell):
    """The trap: from the first moment on there is no session any more that could be stuck."""

    async def close(timeout_s: float) -> None:
        await asyncio.Event().wait()

    await shell.assigned(set())
    assert shell.unassigned_since is None
    shell.sessions[0] = SimpleNamespace(close=close)  # type: ignore[assignment]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(shell.release(), 0.02)
    app: Any = SimpleNamespace(shell=shell)
    assert not_live(app, shell.unassigned_since + 119, 0) == []
    assert not_live(app, shell.unassigned_since + 121, 0) != []


async def test_the_group_is_joined_with_the_assignor_that_keeps_topics_together(settings):
    """The trap: without tables Faust falls back to round-robin, which parts partition 1 of views from that of clicks."""
    app = build_app(settings)
    consumer = app._new_consumer()
    thread = consumer._new_consumer_thread()
    assert isinstance(thread, transport.MembershipThread)
    real = thread._create_worker_consumer(app.transport)
    assert real._partition_assignment_strategy == [app.assignor]
    assert isinstance(app.assignor, PartitionAssignor)
    await real.stop()


async def test_assigned_partitions_are_paused_before_anything_can_fetch(monkeypatch):
    order: list[Any] = []
    listener = object.__new__(transport.PausedListener)
    consumer = SimpleNamespace(pause=lambda *places: order.append(("pause", places)))
    listener._thread = SimpleNamespace(_ensure_consumer=lambda: consumer)

    async def heard(self: Any, assigned: Any) -> None:
        order.append(("heard", tuple(assigned)))

    monkeypatch.setattr(transport.driver.ConsumerRebalanceListener, "on_partitions_assigned", heard)
    await listener.on_partitions_assigned(iter([TP("views", 0), TP("views", 1)]))
    places = (TP("views", 0), TP("views", 1))
    assert order == [("pause", places), ("heard", places)]


def membership(**parts: Any) -> Any:
    flag = SimpleNamespace(is_set=lambda: False)
    whole = {"_stopped": flag, "should_stop": False, "consumer_stopped_errors": (), "_require_membership": lambda: None}
    return SimpleNamespace(**whole | parts)


async def test_a_consumer_that_reads_nothing_still_polls(monkeypatch):
    """The trap: aiokafka leaves the group when its consumer is not polled for max_poll_interval."""
    monkeypatch.setattr(transport, "POLL_S", 0.001)
    polls: list[set[Any]] = []
    consumer = membership()

    async def getmany(places: set[Any], timeout_s: float) -> None:
        polls.append(places)
        consumer.should_stop = len(polls) == 5

    consumer._getmany = getmany
    await transport.MembershipConsumer._drain_messages(consumer, consumer)
    assert polls == [set()] * 5


@pytest.mark.parametrize("stopping", [True, False])
async def test_a_poll_that_is_cancelled_is_the_end_only_while_stopping(stopping):
    async def getmany(places: set[Any], timeout_s: float) -> None:
        raise asyncio.CancelledError

    consumer = membership(_getmany=getmany, app=SimpleNamespace(should_stop=stopping))
    if stopping:
        await transport.MembershipConsumer._drain_messages(consumer, consumer)
    else:
        with pytest.raises(asyncio.CancelledError):
            await transport.MembershipConsumer._drain_messages(consumer, consumer)


@pytest.mark.parametrize(("ended", "stopping"), [(True, False), (False, False), (True, True)])
async def test_a_worker_whose_routine_of_joining_has_ended_ends_unless_it_stops(shell, codes, ended, stopping):
    """The trap: an error in a rebalance can end that routine without a word, and nobody would join the group again."""
    routine = asyncio.create_task(asyncio.sleep(0 if ended else 60))
    await asyncio.sleep(0.01)
    thread = object.__new__(transport.MembershipThread)
    thread._ensure_consumer = lambda: SimpleNamespace(_coordinator=SimpleNamespace(_coordination_task=routine))
    consumer = SimpleNamespace(app=SimpleNamespace(should_stop=stopping), _thread=thread, _shell=shell)
    ends = pytest.raises(Ended) if ended and not stopping else nullcontext()
    with ends:
        transport.MembershipConsumer._require_membership(consumer)
    assert codes == ([EXIT_RETRY] if ended and not stopping else [])
    routine.cancel()


class Client:
    """An aiokafka client that ends in its own way."""

    def __init__(self, error: BaseException | None = None, seconds: float = 0.0) -> None:
        self.error, self.seconds, self.stopped = error, seconds, False

    async def stop(self) -> None:
        await asyncio.sleep(self.seconds)
        self.stopped = True
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [asyncio.CancelledError(), kafka_errors.KafkaConnectionError("gone"), None])
async def test_a_client_is_stopped_whatever_it_raises(error):
    """The trap: aiokafka's fetcher lets out the cancellation of a fetch that rests after a failure, into whoever stops it."""
    clients = [Client(error), Client(), None]
    await stop(*clients)
    assert [client.stopped for client in clients[:2]] == [True, True]
    assert asyncio.current_task().cancelling() == 0


async def test_a_fetcher_that_rests_after_a_failed_fetch_does_not_cancel_whoever_stops_it():
    async def failed_fetch() -> None:
        await asyncio.sleep(60)  # the backoff, outside of what catches a cancellation

    fetcher = object.__new__(Fetcher)
    fetcher._fetch_task = asyncio.create_task(asyncio.sleep(60))
    fetcher._fetch_waiters, fetcher._pending_tasks = set(), {asyncio.create_task(failed_fetch())}
    await asyncio.sleep(0)
    await stop(SimpleNamespace(stop=fetcher.close))


async def test_a_client_that_does_not_end_is_left_to_its_fate():
    slow, quick = Client(seconds=60), Client()
    await stop(slow, quick, timeout_s=0.02)
    assert (slow.stopped, quick.stopped) == (False, True)


async def test_a_cancellation_that_nobody_asked_for_ends_the_process(codes):
    async def cut_off() -> None:
        raise asyncio.CancelledError

    with pytest.raises(Ended):
        await supervised(cut_off())
    assert codes == [EXIT_RETRY]


async def test_a_cancelled_task_ends_and_the_process_does_not(codes):
    task = asyncio.create_task(supervised(asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert codes == []


async def test_a_session_that_cannot_be_closed_ends_the_process(shell, codes):
    async def close(timeout_s: float) -> None:
        raise asyncio.CancelledError

    shell.sessions[0] = SimpleNamespace(close=close)  # type: ignore[assignment]
    with pytest.raises(Ended):
        await shell.release()
    assert codes == [EXIT_RETRY]


async def test_a_cancellation_that_a_library_swallows_does_not_hold_up_a_release(shell):
    """The trap: aiokafka suppresses the cancellation of a task that is stopping one of its clients."""
    closed: list[float] = []

    async def close(timeout_s: float) -> None:
        closed.append(timeout_s)

    async def deaf_once() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)

    shell.sessions[0] = SimpleNamespace(close=close)  # type: ignore[assignment]
    shell._tasks[0] = asyncio.create_task(deaf_once())
    await asyncio.sleep(0)
    await asyncio.wait_for(shell.release(), 5)
    assert closed == [shell.settings.session_timeout_ms / 2000]
    assert shell.sessions == {}
