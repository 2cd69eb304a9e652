"""The shell of a worker: opens a session per assigned partition, feeds the agent, ends the process on anything unexpected.

Crash-only: there is no state in which something has gone wrong and the worker goes on. A supervisor starts it again, and
starting is recovery. Exit codes: 0 stopped by a signal; 70 a bug; 75 worth another try (fenced, broker gone); 78 settings.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NoReturn

from aiokafka import errors as kafka_errors
from faust.types import TP
from rocksdict import Cache

from contracts.errors import BadSettings, PricetideError
from pricing.engine import EventCrash
from pricing.garbage import collect_seldom
from pricing.menus import MenuShelf
from streams.crashes import CrashCounts
from streams.metrics import Metrics
from streams.models import Models
from streams.reference import References
from streams.session import Batch, Session, Worker
from streams.settings import Settings
from streams.stale_stores import LOOK_EVERY_S, remove_stale
from streams.store import StateStore, disk_remedy, is_of_the_disk
from streams.words import Words

logger = logging.getLogger(__name__)

EXIT_BUG = 70
EXIT_RETRY = 75
EXIT_SETTINGS = 78
CANCEL_AGAIN_S = 0.2
_FENCED = (kafka_errors.ProducerFenced, kafka_errors.InvalidProducerEpoch, kafka_errors.InvalidProducerIdMapping)
_SETTINGS = (
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
    kafka_errors.NoOffsetForPartitionError,
)
_RETRIED: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (_FENCED, "Another worker has taken this partition over (fenced); starting again joins the group anew"),
    (
        asyncio.CancelledError,
        "A Kafka client gave up what it was doing, unasked; a supervisor should start the process again",
    ),
    (
        kafka_errors.UnknownTopicOrPartitionError,  # of one that is gone the next start says which
        "A topic is gone, or a broker that has just started does not know it yet: start the process again",
    ),
)
"""What starting again mends, and the sentence for it."""


def verdict(error: BaseException) -> tuple[int, str]:
    """Return the exit code and the sentence for an error that ends the process."""
    if isinstance(error, PricetideError):
        return error.exit_code, str(error)
    for kinds, sentence in _RETRIED:
        if isinstance(error, kinds):
            return EXIT_RETRY, sentence
    if isinstance(error, _SETTINGS):
        return EXIT_SETTINGS, f"{error!r}: run `pricetide doctor`, which says what to do"
    if is_of_the_disk(error):
        return EXIT_SETTINGS, f"A store or its disk failed: {error}. {disk_remedy(error)}"
    if isinstance(error, kafka_errors.KafkaError | ConnectionError | asyncio.TimeoutError):
        return EXIT_RETRY, f"The broker failed: {error!r}; a supervisor should start the worker again"
    return EXIT_BUG, f"Unexpected {type(error).__name__}: {error}"


def end_process(error: BaseException) -> NoReturn:
    """End the process with a sentence and a code, at once: what is not committed has not happened."""
    code, sentence = verdict(error)
    if code == EXIT_BUG:
        traceback.print_exception(error)
    logger.critical("%s", sentence)
    logging.shutdown()
    sys.stdout.flush()
    print(f"pricetide: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 - the last word, whatever the log level
    os._exit(code)


async def supervised(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`; whatever it raises ends the process, but for a cancellation of the present task."""
    try:
        await work
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        end_process(error)  # one that nobody asked for is a failure, too, and must not pass for an end


async def end_tasks(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they are gone: aiokafka swallows a cancellation that arrives while one of its clients stops."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


class WorkerShell:
    """The sessions of one worker process, and the way in and out of it."""

    def __init__(self, settings: Settings, hand_over: Callable[[Batch], Coroutine[Any, Any, None]]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings.encoder, settings.engine_semantics, self.metrics)
        for topic in (settings.topics.catalogue, settings.topics.policies):
            self.metrics.refused.labels(topic)  # at 0 from the start: an alert sees no increase of what begins at 1
        self.references = References(settings, lambda topic: self.metrics.refused.labels(topic).inc())
        self.words = Words(settings.encoder, self.references.catalogue, self.metrics)
        self.crashes = CrashCounts(settings.data_dir, settings.crashes_max)
        self.joined = False
        """Whether the group has given this worker an assignment, maybe an empty one."""
        self.unassigned_since: float | None = time.monotonic()
        """When the last assignment began to be given up, in monotonic seconds; None while there is one, be it empty."""
        self.sessions: dict[int, Session] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closing = False
        self._following: asyncio.Task[None] | None = None
        self._cache = Cache(settings.block_cache_bytes)
        self._worker = Worker(
            settings=settings,
            semantics=settings.engine_semantics,
            references=self.references,
            models=self.models,
            metrics=self.metrics,
            crashes=self.crashes,
            menus=MenuShelf(),
            open_store=self._open_store,
            hand_over=hand_over,
        )

    @property
    def _stores(self) -> Path:
        return self.settings.data_dir / "state" / self.settings.group

    def _open_store(self, partition: int) -> StateStore:
        return StateStore(self._stores / str(partition), self._cache, self.settings.write_buffer_bytes)

    def _remove_stale(self) -> None:
        removed = remove_stale(self._stores, self.sessions, time.time())
        if removed:
            logger.info("removed the stores of partitions %s, which nobody had open for long", removed)

    async def _keep_removing_stale(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._remove_stale()

    async def assigned(self, places: set[TP]) -> None:
        """Open the sessions of the assigned partitions; returns at once, each restores in a task of its own.

        Once the process is being closed none are opened: a rebalance may still end when the signal has come.
        """
        await self.release()
        if self._closing:
            return
        self._remove_stale()
        sources = self.settings.topics.topology.sources
        partitions = sorted({place.partition for place in places if place.topic in sources})
        for partition in partitions:
            if partition >= self.settings.topics.partitions:
                self.end(
                    BadSettings(
                        f"Partition {partition} was assigned, the settings say {self.settings.topics.partitions}: topics were "
                        "repartitioned, and their users are on other partitions now. Start anew with topics, changelog and "
                        "--group of that count"
                    )
                )
            missing = [source for source in sources if TP(source, partition) not in places]
            if missing:
                self.end(
                    BadSettings(
                        f"Partition {partition} was assigned without {missing}: its topics went to different workers"
                    )
                )
            session = self.sessions[partition] = Session(self._worker, partition)
            self._tasks[partition] = asyncio.create_task(supervised(self._live(session)), name=f"session-{partition}")
        self.joined, self.unassigned_since = True, None
        logger.info("assigned partitions %s", partitions)

    async def _live(self, session: Session) -> None:
        await self._references_are_read()
        await session.run()

    async def _references_are_read(self) -> None:
        if self._following is None:
            self._following = asyncio.create_task(supervised(self._read_and_follow()), name="references")
        await self.references.ready.wait()

    async def _read_and_follow(self) -> None:
        await self.models.load()
        await self.words.load()
        await self.references.read_to_end()
        collect_seldom()
        await asyncio.gather(
            self.references.follow(), self.models.follow(), self.words.follow(), self._keep_removing_stale()
        )

    async def release(self) -> None:
        """Stop fetching, wait for the batches in flight, close every session, and free what they held."""
        self.unassigned_since = time.monotonic()
        if self.sessions:
            await self._close_sessions()
            gc.collect()  # a session, its buffers and its clients are in circles, and the collector comes seldom

    async def _close_sessions(self) -> None:
        sessions, tasks = self.sessions, self._tasks
        self.sessions, self._tasks = {}, {}
        await end_tasks(tasks.values())
        timeout_s = self.settings.session_timeout_ms / 2000
        closed = await asyncio.gather(*(one.close(timeout_s) for one in sessions.values()), return_exceptions=True)
        for partition, error in zip(sessions, closed, strict=True):
            if error is not None:  # in a rebalance: aiokafka would write it down and go on
                self.end(error)
            self.metrics.leave(self.settings.topics.topology.sources, partition)

    async def close(self) -> None:
        """Release everything, for good."""
        self._closing = True
        await self.release()
        if self._following is not None:
            await end_tasks([self._following])
        await self.references.close()
        self.words.close()

    def apply(self, batch: Batch) -> None:
        """Apply one batch, from the agent's body: nothing escapes it, for Faust would acknowledge and go on."""
        if batch.session.closing or self.sessions.get(batch.session.partition) is not batch.session:
            return  # of an assignment that is gone: its events are read again by whoever owns them now
        try:
            batch.session.apply(batch)
        except Exception as error:
            cause = error.__cause__
            if cause is not None and is_of_the_disk(cause):  # as it asked for a pending draw: not the event's fault
                self.end(cause)
            try:
                if isinstance(error, EventCrash):
                    self._count_crash(error, batch.session.partition)
            finally:  # the disk may be full
                self.end(error)
        committing = batch.session.committing
        if committing is not None:
            committing.add_done_callback(self._commit_ended)

    def _commit_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)

    def end(self, error: BaseException) -> NoReturn:
        """End the process: nothing goes on after something went wrong."""
        end_process(error)

    def _count_crash(self, error: EventCrash, partition: int) -> None:
        topic = self.settings.topics.topology.sources[error.source]
        text = "".join(traceback.format_exception(error))
        count = self.crashes.add(topic, partition, error.offset, text)
        logger.critical(
            "the event at %s/%d/%d has crashed the engine (%d of %d before it is isolated)",
            topic,
            partition,
            error.offset,
            count,
            self.settings.crashes_max,
        )
