"""`pricetide tail`: price updates as they are committed, with their reasons in words."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import click
import msgspec

from contracts.visible import visible
from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.subscriber import Change


@click.command()
@click.option("--user", help="Only this user's prices.")
@click.option("--from-beginning", is_flag=True, help="Begin with every price still on the topic.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many updates.")
@click.option("--json", "as_json", is_flag=True, help="Print each update as a line of JSON.")
@with_settings
def tail(settings: Settings, user: str | None, from_beginning: bool, limit: int | None, as_json: bool) -> None:
    """Follow price updates; ends with Ctrl-C or after --limit."""
    from streams.subscriber import PriceSubscriber

    start = "beginning" if from_beginning else "end"
    with suppress(KeyboardInterrupt), PriceSubscriber(settings, start=start, prices_max=100_000) as prices:  # type: ignore[arg-type]  # one of two literals
        if prices.book.kill_switch:
            click.echo("The kill switch is on: everybody pays list price.", err=True)
        wanted = (change for change in prices if user in (None, change.user))
        for change in islice(wanted, limit):
            click.echo(msgspec.json.encode(change) if as_json else visible(_line(change)))


def _line(change: Change) -> str:
    from pricing.sentences import explain
    from streams.subscriber import Removal

    if isinstance(change, Removal):
        return f"{change.user} · {change.item}: removed"
    return f"{change.user} · {change.item} · v{change.version} {change.status}: {explain(change)}"
