"""Times on the command line: UTC, to the second, as event times in ms."""

from __future__ import annotations

from datetime import UTC, datetime

import click

UTC_TIME = click.DateTime(("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"))


def epoch_ms(time: datetime | None) -> int | None:
    """Return ms since 1970 of a time without a zone, taken as UTC; None for None."""
    return int(time.replace(tzinfo=UTC).timestamp() * 1000) if time is not None else None
