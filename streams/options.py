"""The command line flags that every command of the live shell shares, and how they become Settings.

Flag over environment over TOML file (streams.settings reads the last two). Not here: any command.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from contracts.errors import BadSettings
from streams.settings import load_settings

Command = TypeVar("Command", bound=Callable[..., Any])

_FLAGS: dict[str, str] = {
    "bootstrap_servers": "kafka.bootstrap_servers",
    "group": "group",
    "data_dir": "data_dir",
    "partitions": "topics.partitions",
    "port": "port",
    "model": "encoder.model",
    "consent_default": "semantics.consent_default",
}
"""Parameter of the command line -> dotted name in Settings."""

_OPTIONS = (
    click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings."),
    click.option("--bootstrap-servers", metavar="HOST:PORT,...", help="Kafka brokers to ask first."),
    click.option("--group", metavar="NAME", help="Consumer group, and prefix of the transactional ids."),
    click.option("--data-dir", type=click.Path(path_type=Path), help="Directory of this worker's state."),
    click.option("--partitions", type=int, metavar="N", help="Partitions of inputs and outputs."),
    click.option("--port", type=int, metavar="N", help="Port of the web server; 0 takes any free one."),
    click.option("--model", type=click.Path(path_type=Path), help="Directory of a model artifact, or a link to one."),
    click.option(
        "--consent-default",
        type=click.Choice(["granted", "denied"]),
        help="What holds for a user who never gave or withdrew consent.",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other setting by its dotted name, for example topics.views=my-views. Repeatable.",
    ),
)


def with_settings(command: Command) -> Command:
    """Add the shared flags to a click command; the command gets the keyword `settings` instead of them.

    Raises (when the command runs):
        BadSettings: a flag, the environment or the file holds what cannot be.
    """

    @wraps(command)
    def with_flags(
        *args: Any,  # noqa: ANN401 - click hands over any type
        config: Path | None,
        assignments: tuple[str, ...],
        consent_default: str | None,
        **given: Any,  # noqa: ANN401 - as above
    ) -> Any:  # noqa: ANN401 - whatever the command returns
        flags = {dotted: given.pop(name) for name, dotted in _FLAGS.items() if name in given}
        flags["semantics.consent_default"] = None if consent_default is None else consent_default == "granted"
        flags |= dict(_assignment(text) for text in assignments)
        return command(*args, settings=load_settings(config, **flags), **given)

    decorated: Any = with_flags
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]  # click's decorators give back what they got


def _assignment(text: str) -> tuple[str, str]:
    """Split NAME=VALUE; the value stays text, which the settings convert."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadSettings(f"--set {text!r} is not NAME=VALUE: write for example --set topics.views=my-views")
    return name.strip(), value
