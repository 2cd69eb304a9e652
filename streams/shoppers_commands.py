"""`pricetide shoppers`: simulated shoppers who see the prices that workers publish, and what those prices are worth."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import click
from rich.console import Console

from contracts.errors import BadSettings
from streams.options import with_settings
from streams.settings import Settings


@click.command()
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the shop and its people.")
@click.option("--events", type=click.IntRange(2), default=2_000, show_default=True, help="Looks at items.")
@click.option("--habits", type=click.Path(path_type=Path), help="Traffic as `pricetide calibrate` has measured it.")
@click.option(
    "--elasticity",
    type=click.FloatRange(0.0, 50.0, min_open=True),
    default=3.0,
    show_default=True,
    help="By how many percent purchases fall when list price rises by one.",
)
@click.option(
    "--traffic",
    type=click.FloatRange(0.0, 100.0, min_open=True),
    default=1.0,
    show_default=True,
    help="Sessions per hour, as a share of those in --habits.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Directory for account.json, truth.jsonl and value.svg.")
@with_settings
def shoppers(
    settings: Settings, seed: int, events: int, habits: Path | None, elasticity: float, traffic: float, out: Path | None
) -> None:
    """Send simulated shoppers into topics that workers serve; they see the prices and buy or not, by a demand that is known.

    Says at the end, and by the period, what the prices earned against list price, the best fixed price and the oracle. Topics
    should be fresh, the exposure `ids` (--set semantics.exposure=ids, here and for the workers).
    """  # fmt: skip
    from contracts.people import MAKERS, Errand
    from streams.shoppers import ShopFront

    found = tuple(entry_points(group=MAKERS, name="simulated"))
    if not found:
        raise BadSettings("No simulated shoppers are installed: pip install pricetide anew, with its room backtest")
    people = found[0].load()(
        Errand(world="SHOP", seed=seed, looks=events, elasticity=elasticity, traffic=traffic, habits=habits, out=out)
    )
    console = Console()
    with ShopFront(settings) as front:
        front.stock(people)
        front.serve(people, lambda line: click.echo(line, err=True))
    console.print(people.finish())
