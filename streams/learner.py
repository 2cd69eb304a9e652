"""The shell of a learner: a session per policy that prices now and learns, the agent's body, and the end of the process.

Crash-only as a worker is, with its exit codes: what is not committed has not happened, and starting is recovery. Follows the
topic `policies`: whoever may set a price now (the current policy, variants of running experiments, their fallbacks) and learns
is learned for, or who was asked for by name. A policy that comes begins with everything that the topic `outcomes` retains.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from contracts.errors import BadInput
from contracts.policies import Policy
from contracts.rules import LearningRule
from streams.learner_metrics import LearnerMetrics
from streams.lesson_session import Classroom, LessonBatch, LessonSession
from streams.reference import References
from streams.settings import Settings
from streams.shell import end_process, end_tasks, supervised

logger = logging.getLogger(__name__)
FOLLOW_S = 1.0
"""How soon another policy is begun to learn for."""
CLOSE_S = 5.0


class LearnerShell:
    """The sessions of one learner process."""

    def __init__(
        self, settings: Settings, only: tuple[str, ...], hand_over: Callable[[LessonBatch], Coroutine[Any, Any, None]]
    ) -> None:
        """Prepare; `only` names the versions of policies to learn for, empty: those that may price."""
        self.settings = settings
        self.metrics = LearnerMetrics()
        self.metrics.refused.labels(settings.topics.policies)  # from 0 on, as a worker's
        self.references = References(settings, lambda topic: self.metrics.refused.labels(topic).inc(), catalogue=False)
        self.sessions: dict[str, LessonSession] = {}
        self._only = only
        self._room = Classroom(settings=settings, references=self.references, metrics=self.metrics, hand_over=hand_over)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Learn until closed; anything unexpected ends the process."""
        self._running = asyncio.create_task(supervised(self._run()), name="learner")

    async def _run(self) -> None:
        await self.references.read_to_end()
        await asyncio.gather(self.references.follow(), self._follow())

    async def _follow(self) -> None:
        while True:
            wanted = {policy.version: policy for policy in self._wanted()}
            for version in self.sessions.keys() - wanted.keys():
                await self._stop(version)
            for version in wanted.keys() - self.sessions.keys():
                session = self.sessions[version] = LessonSession(self._room, wanted[version])
                self._tasks[version] = asyncio.create_task(supervised(session.run()), name=f"learn-{version}")
                logger.info("%s is learned for from now on", version)
            await asyncio.sleep(FOLLOW_S)

    def _wanted(self) -> list[Policy]:
        """Return the policies to learn for.

        Raises:
            BadInput: one was asked for that is not on the topic, or does not learn.
        """
        book = self.references.policies
        if not self._only:
            deciding = [*book.priced_by(), *([] if book.shadow is None else [book.shadow])]
            return [policy for policy in deciding if isinstance(policy.rule, LearningRule)]
        named = []
        for version in self._only:
            policy = book.find(version)
            if policy is None or not isinstance(policy.rule, LearningRule):
                reason = "is not on the topic" if policy is None else "does not learn"
                raise BadInput(f"Policy {version!r} {reason}: name another --policy, as NAME@N")
            named.append(policy)
        return named

    async def _stop(self, version: str) -> None:
        session, task = self.sessions.pop(version), self._tasks.pop(version)
        await end_tasks([task])
        await session.close(CLOSE_S)
        logger.info("%s is not learned for any more", version)

    def apply(self, batch: LessonBatch) -> None:
        """Learn one batch, from the agent's body: nothing escapes it, for Faust would acknowledge and go on."""
        session = batch.session
        if self.sessions.get(session.policy.version) is not session:
            return  # it was stopped meanwhile: its outcomes are read again when it is begun again
        try:
            session.apply(batch)
        except Exception as error:
            end_process(error)
        if session.committing is not None:
            session.committing.add_done_callback(_publish_ended)

    async def close(self) -> None:
        """Stop everything."""
        if self._running is not None:
            await end_tasks([self._running])
        with suppress(TimeoutError):
            await asyncio.gather(*(self._stop(version) for version in list(self.sessions)))
        await self.references.close()


def _publish_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        end_process(error)
