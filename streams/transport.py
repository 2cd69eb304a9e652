"""The batched transport: Faust's aiokafka consumer reduced to what it does well, membership and assignment.

How it works
------------
Faust's own path moves one record at a time through a conductor, a stream and an ack list, at 200 µs each, and its
rebalance drops, reorders and stalls fetches: recovery, sources and seeks share one fetch loop. Here that loop reads
nothing. The group's consumer stays *paused on every partition for its whole life*: it joins, heartbeats, and is told what
it owns. For each partition that it is given, a *session* (streams.session) is opened, with a transactional producer and a
consumer of its own that nobody else can seek or pause, and closed again when the partition goes. So there is no fetch
of another generation to take by mistake, none to hand back, and none that a seek can overtake.

A session merges the co-partitioned topics and hands one batch at a time to the agent, on an in-memory channel of size
one. The group's offsets are committed inside the session's transactions and nowhere else.

What it overrides in faust-streaming 0.15.3, and why
----------------------------------------------------
`_drain_messages`     polls without fetching: aiokafka leaves a group whose consumer is not polled (max_poll_interval);
                      and ends the worker if the routine that joins the group has ended, which aiokafka tells nobody
`wait_empty`          Faust calls it before partitions go, and before it stops: the sessions finish their batch and close
`perform_seek`, `commit`, `verify_event_path`   belong to the stock loop: there is nothing to seek, ack or watch
`RebalanceListener`   pauses what was assigned, in the consumer's own thread, before a fetch can start
`_create_worker_consumer`   Faust's sticky co-partitioned assignor; without tables Faust would fall back to round-robin,
                      which gives partition 3 of `views` and of `clicks` to different workers
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol, cast

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from contracts.errors import BrokerUnavailable

POLL_S = 1.0


class Shell(Protocol):
    """What the transport tells about partitions."""

    async def assigned(self, places: set[TP]) -> None:
        """Open the sessions of what this worker owns from now on."""

    async def release(self) -> None:
        """Finish what is in flight and close every session."""

    def end(self, error: BaseException) -> NoReturn:
        """End the process."""


class PausedListener(driver.ConsumerRebalanceListener):  # type: ignore[misc]  # faust ships no types
    """Pauses every assigned partition before Faust hears of it."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Run in the consumer's thread, when a rebalance has ended."""
        places = list(assigned)
        self._thread._ensure_consumer().pause(*places)
        await super().on_partitions_assigned(places)


class MembershipThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]  # faust ships no types
    """The thread in which the group's consumer lives: its heartbeats do not wait for a batch."""

    def require_membership(self) -> None:
        """Raise BrokerUnavailable if the routine by which aiokafka joins the group has ended: nobody would join it again."""
        if self._ensure_consumer()._coordinator._coordination_task.done():
            raise BrokerUnavailable(
                "This worker has dropped out of the group for good; a supervisor should start it again"
            )

    def _create_worker_consumer(self, transport: Any) -> Any:  # noqa: ANN401 - aiokafka ships no types
        consumer = super()._create_worker_consumer(transport)
        self._assignor = self.app.assignor
        consumer._partition_assignment_strategy = [self.app.assignor]
        return consumer


class MembershipConsumer(driver.Consumer):  # type: ignore[misc]  # faust ships no types
    """The group's consumer: knows who owns what, reads nothing."""

    RebalanceListener = PausedListener

    @property
    def _shell(self) -> Shell:
        return cast(Shell, self.app.shell)

    def _new_consumer_thread(self) -> MembershipThread:
        return MembershipThread(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:  # noqa: ANN401 - faust's Fetcher
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set() or self.should_stop):
                await self._getmany(set(), POLL_S)
                self._require_membership()
                await asyncio.sleep(POLL_S)
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if not self.app.should_stop:
                raise  # else it is the thread's last answer: it cancels what still waits for it as it stops

    def _require_membership(self) -> None:
        if not self.app.should_stop:
            try:
                self._thread.require_membership()
            except BrokerUnavailable as error:
                self._shell.end(error)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Let Faust settle the assignment, then open its sessions."""
        await super().on_partitions_assigned(assigned, generation_id)
        await self._shell.assigned(assigned)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Close the sessions, also when Faust believes that there was nothing assigned."""
        await self._shell.release()
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Finish what is in flight."""
        await self._shell.release()

    async def perform_seek(self) -> None:
        """Seek nothing: the sessions know their positions."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ANN401 - faust's type
        """Commit nothing: the sessions' transactions do."""
        return True

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Watch nothing: /livez does (streams.web)."""


class BatchedTransport(driver.Transport):  # type: ignore[misc]  # faust ships no types
    """Faust's transport with the membership consumer."""

    Consumer = MembershipConsumer
