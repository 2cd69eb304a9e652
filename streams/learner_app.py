"""The Faust app of a learner: an agent on batches of outcomes, and its web pages. It joins no group, for one process has every
partition.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterable
from typing import Any

import faust
from faust.app.base import BootStrategy
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams.app import configuration
from streams.learner import LearnerShell
from streams.lesson_session import LessonBatch
from streams.settings import Settings


class WithoutKafka(BootStrategy):  # type: ignore[misc]  # faust ships no types
    """Faust's own clients stay closed: what a learner reads and writes, its sessions do."""

    enable_kafka = False


class LearnerApp(faust.App):  # type: ignore[misc]  # faust ships no types
    """A Faust app that owns the shell of this learner."""

    BootStrategy = WithoutKafka
    shell: LearnerShell

    def _create_directories(self) -> None:
        """Keep nothing on disk."""

    async def _wait_for_table_recovery_completed(self) -> bool:
        return False  # there are no tables, and nobody who would say that they are recovered


def build_learner(settings: Settings, only: tuple[str, ...] = ()) -> LearnerApp:
    """Return the learner's app.

    Args:
        settings: of the deployment.
        only: versions of policies to learn for; empty: those that may price.

    Raises:
        BadSettings: the port is taken, or the host is not this machine's.
    """
    app = LearnerApp(f"{settings.group}-learner", **configuration(settings))
    channel = app.channel(maxsize=1)

    async def hand_over(batch: LessonBatch) -> None:
        await channel.send(value=batch)

    app.shell = LearnerShell(settings, only, hand_over)

    @app.agent(channel, name="learn")  # type: ignore[untyped-decorator]  # faust ships no types
    async def learn(batches: AsyncIterable[LessonBatch]) -> None:
        """Turn batches of outcomes into versions of what policies have learned."""
        async for batch in batches:
            app.shell.apply(batch)

    @app.task  # type: ignore[untyped-decorator]  # faust ships no types
    async def begin() -> None:
        app.flow_control.resume()  # channels are shut until a consumer has its partitions, and there is none
        app.shell.begin()

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]  # faust ships no types
    async def close(*_: Any, **__: Any) -> None:  # noqa: ANN401 - faust's signal
        await app.shell.close()

    _add_pages(app)
    return app


def stuck(shell: LearnerShell, now: float) -> list[str]:
    """Return why a restart would help, policy by policy; empty while the learner is live.

    Args:
        shell: of the learner.
        now: monotonic seconds.
    """
    limit_s = shell.settings.liveness_ms / 1000 + 2 * shell.settings.learner.version_seconds
    return [
        f"{version}: {session.lag} records behind, no version for {now - session.progress_at:.0f} s"
        for version, session in shell.sessions.items()
        if session.lag > 0 and now - session.progress_at > limit_s
    ]


def waits_for(shell: LearnerShell) -> list[str]:
    """Return what the learner still waits for; empty when it is ready."""
    if not shell.references.ready.is_set():
        return ["policies are being read"]
    return [f"{version} is being taken up" for version, session in shell.sessions.items() if not session.opened]


def _add_pages(app: LearnerApp) -> None:
    @app.page("/livez")  # type: ignore[untyped-decorator]  # faust ships no types
    async def livez(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
        why = stuck(app.shell, time.monotonic())
        return web.json({"live": not why, "stuck": why}, status=503 if why else 200)

    @app.page("/readyz")  # type: ignore[untyped-decorator]  # faust ships no types
    async def readyz(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
        waits = waits_for(app.shell)
        return web.json({"ready": not waits, "waits_for": waits}, status=503 if waits else 200)

    @app.page("/metrics")  # type: ignore[untyped-decorator]  # faust ships no types
    async def metrics(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
        for version, session in app.shell.sessions.items():
            app.shell.metrics.lag.labels(version).set(session.lag)
        text = generate_latest(app.shell.metrics.registry)
        return web.bytes(text, content_type=CONTENT_TYPE_LATEST.split(";")[0])
