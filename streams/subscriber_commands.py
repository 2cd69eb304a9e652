"""`pricetide tail`: price updates as they are committed, with their reasons in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

import click
import msgspec

from contracts.visible import visible
from streams.options import with_settings
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.subscriber import Change, Clock, PriceSubscriber


@click.command()
@click.option("--user", help="Only this user's prices.")
@click.option("--from-beginning", is_flag=True, help="Begin with every price still on the topic.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many updates.")
@click.option("--json", "as_json", is_flag=True, help="Print each update as a line of JSON.")
@click.option(
    "--clock",
    type=click.Choice(["wall", "stream"]),
    default="wall",
    show_default=True,
    help="When a price has expired: by this machine's clock, or by the updates seen, for a replay of an old log.",
)
@click.option("--as-published", is_flag=True, help="Print every update as it was published, expired or not.")
@with_settings
def tail(
    settings: Settings,
    user: str | None,
    from_beginning: bool,
    limit: int | None,
    as_json: bool,
    clock: Clock,
    as_published: bool,
) -> None:
    """Follow price updates as they hold; ends with Ctrl-C or after --limit.

    Prices that have expired are passed over, and under the kill switch each is its list price, as for a subscriber.
    """
    from streams.subscriber import PriceSubscriber

    start = "beginning" if from_beginning else "end"
    with (
        suppress(KeyboardInterrupt),
        PriceSubscriber(settings, start=start, prices_max=100_000, clock=clock) as prices,  # type: ignore[arg-type]  # one of two literals
    ):
        wanted = (change for change in _changes(prices) if user in (None, change.user))
        held = wanted if as_published else _held(prices, wanted)
        for change in islice(held, limit):
            click.echo(msgspec.json.encode(change) if as_json else visible(_line(change)))


def _changes(prices: PriceSubscriber) -> Iterator[Change]:
    """Yield changes for ever; say on stderr what the kill switch does meanwhile."""
    known = False
    while True:
        changes = prices.poll()
        if prices.book.kill_switch != known:
            known = prices.book.kill_switch
            says = "on: everybody pays list price" if known else "off: personal prices hold again"
            click.echo(f"The kill switch is {says}.", err=True)
        yield from changes


def _held(prices: PriceSubscriber, changes: Iterator[Change]) -> Iterator[Change]:
    """Yield what holds of `changes`."""
    from streams.subscriber import Removal

    expired = False
    for change in changes:
        held = change if isinstance(change, Removal) else prices.book.in_force(change)
        if held is not None:
            yield held
        elif not expired:
            expired = True
            click.echo(
                "Prices that have expired are passed over: --clock stream for the replay of an old log, --as-published for all.",
                err=True,
            )


def _line(change: Change) -> str:
    from pricing.sentences import explain
    from streams.subscriber import Removal

    if isinstance(change, Removal):
        return f"{change.user} · {change.item}: removed"
    return f"{change.user} · {change.item} · v{change.version} {change.status}: {explain(change)}"
