"""The Faust app: a factory, never a module-level app. Membership, agent, web; the hot path is in streams.session."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterable
from typing import Any

import click
import faust
from yarl import URL

from contracts.errors import BadSettings, BrokerUnavailable
from streams.session import Batch
from streams.settings import Settings, unknown_variables
from streams.shell import WorkerShell
from streams.transport import BatchedTransport
from streams.web import add_pages

HEARTBEATS_PER_SESSION = 4


class PricetideApp(faust.App):  # type: ignore[misc]  # faust ships no types
    """A Faust app that owns the shell of this worker."""

    shell: WorkerShell


def build_app(settings: Settings) -> PricetideApp:
    """Return the worker's app: subscribed to the sources, with the pricing agent behind the batched transport.

    Raises:
        BadSettings: a setting is missing or out of range.
    """
    settings.engine_semantics  # noqa: B018 - refuse wrong semantics before anything is opened
    app = PricetideApp(settings.group, **configuration(settings))
    app.transport = BatchedTransport(
        [URL(f"kafka://{server}") for server in settings.kafka.bootstrap_servers.split(",")], app
    )
    channel = app.channel(maxsize=1)

    async def hand_over(batch: Batch) -> None:
        await channel.send(value=batch)

    app.shell = WorkerShell(settings, hand_over)

    @app.agent(channel, name="price")  # type: ignore[untyped-decorator]  # faust ships no types
    async def price(batches: AsyncIterable[Batch]) -> None:
        """Turn batches of events into prices."""
        async for batch in batches:
            app.shell.apply(batch)

    @app.on_before_shutdown.connect  # type: ignore[untyped-decorator]  # faust ships no types
    async def close(*_: Any, **__: Any) -> None:  # noqa: ANN401 - faust's signal
        await app.shell.close()

    for source in settings.topics.topology.sources:
        topic = app.topic(source, key_type=bytes, value_type=bytes)
        app.topics.add(topic.clone(is_iterator=True))  # makes the conductor subscribe; no stream reads it
    add_pages(app)
    return app


def run_app(app: faust.App, settings: Settings) -> None:
    """Run `app` as this process until SIGTERM.

    Raises:
        BrokerUnavailable: Faust itself has crashed.
        SystemExit: the end, with 0.
    """
    if unknown := unknown_variables():
        click.echo(f"pricetide: no settings, and not read: {', '.join(unknown)}. Correct the names", err=True)
    for client in ("aiokafka", "kafka"):
        logging.getLogger(client).setLevel(logging.WARNING)
    # Kafka 4 answers the first send of a transaction with NotEnoughReplicas while it verifies the partition (KIP-890); the
    # client tries again in 5 ms and warns every time. What does not heal ends the commit with an error of its own.
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.ERROR)
    runner = faust.Worker(
        app, loglevel=settings.log_level, redirect_stdouts=False, quiet=True, console_port=None, blocking_timeout=None
    )
    try:
        runner.execute_from_commandline()
    except SystemExit as end:
        if end.code:  # our own ends never come here: membership, heartbeats or the web server broke, the log says how
            raise BrokerUnavailable(
                "Faust has crashed, see the log above; a supervisor should start the process again"
            ) from None
        raise


def configuration(settings: Settings) -> dict[str, Any]:
    """Return what Faust is told of `settings`.

    Raises:
        BadSettings: the port is taken, or the host is not this machine's.
    """
    port = _free_port(settings.host, settings.port)
    session_s = settings.session_timeout_ms / 1000
    return {
        "broker": [f"kafka://{server}" for server in settings.kafka.bootstrap_servers.split(",")],
        "broker_credentials": _credentials(settings),
        "broker_session_timeout": session_s,
        "broker_heartbeat_interval": session_s / HEARTBEATS_PER_SESSION,
        "broker_rebalance_timeout": settings.rebalance_timeout_s,
        "broker_request_timeout": max(settings.kafka.request_timeout_ms / 1000, session_s),
        "producer_request_timeout": settings.kafka.request_timeout_ms / 1000,
        "consumer_auto_offset_reset": "earliest",
        "store": "memory://",
        "datadir": str(settings.data_dir / "faust"),
        "table_standby_replicas": 0,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "stream_wait_empty": True,
        "web_enabled": True,
        "web_bind": settings.host,
        "web_host": settings.host,
        "web_port": port,
        "web_tables_enabled": False,
    }


def _credentials(settings: Settings) -> Any:  # noqa: ANN401 - faust ships no types
    kafka = settings.kafka
    if kafka.security_protocol == "PLAINTEXT":
        return None
    context = kafka.ssl_context()
    if kafka.security_protocol == "SSL":
        return context
    return faust.SASLCredentials(
        username=kafka.sasl_username, password=kafka.password, mechanism=kafka.sasl_mechanism, ssl_context=context
    )


def _free_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0: workers are named in the group by host and port, so no two may share them.

    Raises:
        BadSettings: the port is taken, or the host is not this machine's.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise BadSettings(
            f"Cannot listen on {host}:{port}: {error.strerror}. Correct the settings host and port, or set port to 0 for any"
        ) from None
