"""The worker's web pages: /livez, /readyz, /metrics; /items/search and /users/<id> when they were asked for.

Live: fails when there is lag, recovery is over, the broker answers, and no transaction has committed for a while; and when
partitions were given up, or the group was asked for some, and no assignment has come in the time that the group itself gives its
members. A restart can help then, and only then. Ready: catalogue and policies are read, partitions are assigned and restored.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from contracts.ids import partition_of
from features.profile import looking_up, profile_of
from features.state import UserState, decode_state
from streams.words import Asked

if TYPE_CHECKING:
    from streams.app import PricetideApp

BROKER_SILENCE_MS = 5_000
NEAREST_MAX = 8
QUERY_CHARS_MAX = 500


def not_live(app: PricetideApp, now: float, now_ms: int) -> list[str]:
    """Return why a restart would help, partition by partition while it has some; empty while the worker is live.

    Args:
        app: the worker.
        now: monotonic seconds.
        now_ms: Unix milliseconds.
    """
    limit_s = app.shell.settings.liveness_ms / 1000
    since = app.shell.unassigned_since
    if since is not None:
        waiting_s = now - since
        late = waiting_s > limit_s + app.shell.settings.rebalance_timeout_s
        return [f"rebalancing for {waiting_s:.0f} s without an assignment"] if late else []
    stuck = []
    for session in app.shell.sessions.values():
        since = now - (session.committed_at or session.opened_at)
        answered = now_ms - session.broker_answered_ms() < BROKER_SILENCE_MS
        if session.restored and session.lag > 0 and answered and since > limit_s:
            stuck.append(f"partition {session.partition}: {session.lag} records behind, no commit for {since:.0f} s")
    return stuck


def not_ready(app: PricetideApp) -> list[str]:
    """Return what the worker still waits for; empty when it is ready."""
    waits = []
    if app.shell.settings.encoder.model is not None and app.shell.models.current is None:
        waits.append("the model is being loaded")
    if not app.shell.references.ready.is_set():
        waits.append("catalogue and policies are being read")
    if app.rebalancing or not app.shell.joined:
        waits.append("the group is rebalancing")
    waits += [f"partition {s.partition} is being restored" for s in app.shell.sessions.values() if not s.restored]
    return waits


def add_pages(app: PricetideApp) -> None:
    """Add the pages to Faust's web server."""

    @app.page("/livez")  # type: ignore[untyped-decorator]  # faust ships no types
    async def livez(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
        stuck = not_live(app, time.monotonic(), int(time.time() * 1000))
        return web.json({"live": not stuck, "stuck": stuck}, status=503 if stuck else 200)

    @app.page("/readyz")  # type: ignore[untyped-decorator]  # faust ships no types
    async def readyz(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
        waits = not_ready(app)
        return web.json({"ready": not waits, "waits_for": waits}, status=503 if waits else 200)

    @app.page("/metrics")  # type: ignore[untyped-decorator]  # faust ships no types
    async def metrics(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
        app.shell.models.gauge()
        app.shell.metrics.kill_switch.set(app.shell.references.policies.kill_switch)
        for session in app.shell.sessions.values():
            session.gauge(time.monotonic(), time.time())
        return web.bytes(generate_latest(app.shell.metrics.registry), content_type=CONTENT_TYPE_LATEST.split(";")[0])

    if app.shell.settings.encoder.text is not None:

        @app.page("/items/search")  # type: ignore[untyped-decorator]  # faust ships no types
        async def search(web: Any, request: Any) -> Any:  # noqa: ANN401 - faust ships no types
            query = request.query.get("q", "")[:QUERY_CHARS_MAX]
            nearest = await nearest_in_words(app, query, "query")
            return web.json({"query": query, "nearest": nearest}, status=503 if nearest is None else 200)

    if app.shell.settings.web_state:

        @app.page("/users/{user}")  # type: ignore[untyped-decorator]  # faust ships no types
        async def user_state(web: Any, request: Any, user: str) -> Any:  # noqa: ANN401 - faust ships no types
            session = app.shell.sessions.get(partition_of(user.encode(), app.shell.settings.topics.partitions))
            value = session.state_of(user) if session is not None else None
            if value is None:
                return web.json({"error": "no such user in this worker"}, status=404)
            return web.json(await user_page(app, decode_state(value)))


async def user_page(app: PricetideApp, state: UserState) -> dict[str, Any]:
    """Return a state as data, field by field; with the setting encoder.text its profile and the items nearest to that, too."""
    page: dict[str, Any] = dict(zip(state.__struct_fields__, msgspec.to_builtins(state), strict=True))
    if app.shell.settings.encoder.text is not None:
        currency = app.shell.settings.engine_semantics.currency
        text = profile_of(state, state.last_ms, looking_up(app.shell.references.catalogue), currency)
        page["profile"] = {"text": text, "nearest": await nearest_in_words(app, text, "profile")}
    return page


async def nearest_in_words(app: PricetideApp, text: str, asked: Asked) -> list[dict[str, Any]] | None:
    """Return the items whose texts are nearest to `text`, with their titles; None while too many others ask."""
    found = await app.shell.words.nearest(text, NEAREST_MAX, asked)
    if found is None:
        return None
    last = {item: app.shell.references.catalogue.last(item) for item, _ in found}
    titles = {item: version.title for item, version in last.items() if version is not None}
    return [{"item": item, "title": titles[item], "cosine": cosine} for item, cosine in found if item in titles]
