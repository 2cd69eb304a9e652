"""The commands of simulated worlds: `simulate` scores a policy where the best prices are known, `calibrate` measures a log."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console

from contracts.errors import BadInput
from contracts.log_files import Format

_FILE = click.Path(path_type=Path)
_share = click.FloatRange(0.0, 1.0)


@click.command()
@click.option("--world", type=click.Choice(["LOGIT", "MIS", "NULL", "CARRY", "SHOP"]), required=True)
@click.option("--policy", "file", type=_FILE, required=True, help="TOML file of the policy to score.")
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the world.")
@click.option("--events", type=click.IntRange(2), default=20_000, show_default=True, help="Visits, or looks at items.")
@click.option("--discount-only", is_flag=True, help="No price above list; the oracle has none, either. Not in a shop.")
@click.option(
    "--holdout", type=_share, default=0.0, show_default=True, help="Share of visits at list price. Not in a shop."
)
@click.option(
    "--out", type=_FILE, help="Directory of a new log: the world as a shop, through the engine, and the truth."
)
@click.option("--habits", type=_FILE, help="SHOP: traffic as `calibrate` has measured it. Left out: made up.")
@click.option(
    "--elasticity",
    "elasticities",
    type=click.FloatRange(0.0, 50.0, min_open=True),
    multiple=True,
    help="SHOP: by how many percent purchases fall when list price rises by one. Several: one after the other.",
)
@click.option(
    "--traffic",
    type=click.FloatRange(0.0, 100.0, min_open=True),
    default=1.0,
    show_default=True,
    help="SHOP: sessions per hour, as a share of those in --habits.",
)
@click.option("--partitions", type=click.IntRange(1, 4096), default=4, show_default=True, help="Of the log's topics.")
@click.option("--format", "file_format", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@click.option("--plot", type=_FILE, help="SVG file of value over time, of a shop.")
@click.option("--json", "as_json", is_flag=True, help="Print the score as JSON; of several elasticities an array.")
def simulate(
    world: str,
    file: Path,
    seed: int,
    events: int,
    discount_only: bool,
    holdout: float,
    out: Path | None,
    habits: Path | None,
    elasticities: tuple[float, ...],
    traffic: float,
    partitions: int,
    file_format: Format,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Score one policy in one simulated world, where the best possible prices are known.

    LOGIT, MIS, NULL and CARRY are scored visit by visit, with outcomes known at once. SHOP, and the first three with --out, are
    shops: the engine that workers run prices sessions of shoppers who see those prices and react, outcomes resolve when their
    windows end, and only what the rails leave is charged, by policy and oracle alike.
    """  # fmt: skip
    from backtest import scores

    if world != "SHOP" and (habits is not None or elasticities or traffic != 1.0):
        raise BadInput(
            f"--habits, --elasticity and --traffic belong to world SHOP: leave them out, or use it for {world}"
        )
    if world != "SHOP" and out is None:
        if plot is not None:
            raise BadInput("--plot shows value over time in a shop: use world SHOP, or --out")
        told: msgspec.Struct | list[msgspec.Struct] = scores.score_file(
            file, world, seed, events, discount_only, holdout
        )
        shown = scores.table_of(told)  # type: ignore[arg-type]  # of one world
    else:
        if discount_only or holdout:
            raise BadInput(
                "A shop knows neither --discount-only nor --holdout: raise_markets and experiments say so there"
            )
        place = scores.Place(world, seed, events, habits, traffic, partitions, out, file_format)
        found = scores.score_shops(file, place, elasticities or (scores.ELASTICITY,))
        told = list(found) if len(found) > 1 else found[0]
        shown = scores.table_of_shops(found)
        if plot is not None:
            from backtest.curves import write_plot

            write_plot(found[0].account, f"{found[0].policy} in {found[0].world}, seed {seed}", plot)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
    else:
        Console().print(shown)


@click.command()
@click.argument("directory", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="JSON file of the statistics.")
def calibrate(directory: Path, out: Path) -> None:
    """Measure the traffic in the log DIRECTORY, for `simulate --world SHOP --habits`: rates, funnel, prices; nothing of anybody.

    The file says what its log says, and belongs to whoever owns that. How demand answers to prices it cannot say.
    """
    from backtest.habits import habits_of, write_habits

    found = habits_of(directory)
    write_habits(found, out)
    looks = sum(number * share for number, share in enumerate(found.looks, 1))
    bought = sum(category.share * category.purchases for category in found.categories)
    click.echo(
        f"{len(found.categories)} categories, {sum(found.sessions_per_hour) / 24:,.0f} sessions per hour, {looks:.1f} looks per "
        f"session, {bought:.2%} of looks buy; in {out}"
    )
