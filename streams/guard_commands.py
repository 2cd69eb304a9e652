"""`pricetide guard`: the circuit breaker on published prices, and the watch on what loyal customers pay."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from contracts.errors import BadSettings
from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from pricing.review import Guarded

_path = click.Path(path_type=Path)


@click.command()
@click.option("--limits", "limits_file", type=_path, help="TOML file with the tables [prices] and [tenure].")
@click.option("--alarm-only", is_flag=True, help="Never throw the kill switch: log and count.")
@click.option("--tenure-kills", is_flag=True, help="Throw it also if loyal customers pay more.")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65_535), help="Serve /metrics there; without it nothing listens."
)
@click.option(
    "--until-idle", type=click.FloatRange(min=0.1), metavar="SECONDS", help="End after so long without a record."
)
@click.option(
    "--file", type=_path, help="Judge this file of decisions (`pricetide backtest --decisions`) instead of the topic."
)
@click.option("--log", type=_path, help="With --file: the log that it was made from, which has the policies.")
@click.option("--json", "as_json", is_flag=True, help="With --file: print what was found as JSON.")
@with_settings
def guard(
    settings: Settings,
    limits_file: Path | None,
    alarm_only: bool,
    tenure_kills: bool,
    metrics_port: int | None,
    until_idle: float | None,
    file: Path | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Watch published prices; throw the kill switch and exit with 1 when they leave their limits."""
    from streams.guard import Guard, read_limits

    guarded = read_limits(limits_file)
    if file is not None:
        _judge_file(file, log, guarded, as_json)
        return
    _log_to_stderr(settings)
    watching = Guard(settings, guarded, alarm_only=alarm_only, tenure_kills=tenure_kills)
    if metrics_port is not None:
        _serve(watching.metrics.registry, settings.host, metrics_port)
    reason = None
    with suppress(KeyboardInterrupt):
        reason = watching.watch(until_idle)
    if reason is not None:
        click.echo(f"The kill switch is on: {reason}. Look at `pricetide policy history`; when it is mended, "
                   "`pricetide killswitch off`.", err=True)  # fmt: skip
        raise SystemExit(1)


def _serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Serve /metrics.

    Raises:
        BadSettings: the port is taken, or the host is not this machine's.
    """
    from prometheus_client import start_http_server

    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise BadSettings(f"Cannot listen on {host}:{port}: {error.strerror}. Correct --metrics-port or host") from None


def _log_to_stderr(settings: Settings) -> None:
    import logging

    logging.basicConfig(level=settings.log_level.upper(), format="[%(asctime)s] [%(levelname)s] %(message)s")
    logging.getLogger("kafka").setLevel(logging.WARNING)


def _judge_file(file: Path, log: Path | None, guarded: Guarded, as_json: bool) -> None:
    from pricing.review import review
    from streams.console import wide_console
    from streams.decision_search import decisions_in, policies_of
    from streams.guard_pages import page

    found = review(decisions_in(file), guarded, policies_of(log).find)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        wide_console().print(page(found, guarded))
    if found.alarm:
        raise SystemExit(1)
