"""A score as people ask for it: from the file of a policy and the name of a world to a table in the terminal.

Not here: the simulation (backtest.simulation, backtest.memories), tables of many policies (benchmarks).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from backtest import memories, simulation
from backtest.habits import MADE_UP, read_habits
from backtest.passers_by import Town, passers_by
from backtest.shop_run import Files, ShopScore, run_shop
from backtest.simulation import Score
from backtest.street import street
from backtest.truth import Period
from backtest.worlds import WORLDS, world_of
from contracts.errors import BadInput
from contracts.log_files import Format
from contracts.policies import Policy
from contracts.policy_files import read_policy

ELASTICITY = 3.0
"""Of a shop, unless told."""


class Place(NamedTuple):
    """Where a policy is tried, and where that is written."""

    world: str
    seed: int
    events: int
    habits: Path | None = None
    traffic: float = 1.0
    partitions: int = 4
    out: Path | None = None
    format: Format = "parquet"


def score_file(file: Path, world: str, seed: int, events: int, discount_only: bool, holdout: float) -> Score:
    """Return the score of the policy in `file`; see score_policy.

    Raises:
        BadInput: as read_policy and score_policy.
    """
    return score_policy(read_policy(file), world, seed, events, discount_only, holdout)


def score_policy(
    policy: Policy, world: str, seed: int, events: int, discount_only: bool = False, holdout: float = 0.0
) -> Score:
    """Return the score of `policy` in the world of that name and seed.

    Args:
        policy: what it would publish; its rails are not asked.
        world: LOGIT, MIS, NULL or CARRY.
        seed: of the world.
        events: visits.
        discount_only: no price above list.
        holdout: share of visits at list price.

    Raises:
        BadInput: the world has no such option.
    """
    if world == "CARRY":
        if discount_only or holdout:
            raise BadInput("World CARRY knows neither --discount-only nor --holdout: leave them out")
        return memories.simulate(policy, seed, events)
    if world not in WORLDS:
        raise BadInput(f"World {world!r} is not known: use LOGIT, MIS, NULL or CARRY")
    return simulation.simulate(policy, world, world_of(world, seed, events), seed, discount_only, holdout)


def table_of(score: Score) -> Table:
    """Return the score as a table for the terminal."""
    table = Table(title=f"{score.policy} in {score.world}, seed {score.seed}")
    for column in ("", "expected margin, in list prices", "share of the oracle's gain, %"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("list price", f"{score.list_value:,.1f}", "0.0")
    table.add_row("best fixed price, in hindsight", f"{score.best_fixed_value:,.1f}", f"{score.best_fixed_share:.1f}")
    table.add_row("the policy", f"{score.policy_value:,.1f}", f"{score.share:.1f}", style="bold")
    table.add_row("oracle", f"{score.oracle_value:,.1f}", "100.0")
    late = (
        ""
        if score.loss_after_1000 is None
        else f"; {-score.loss_after_1000:+.2f} % on list price after the first 1,000"
    )
    table.caption = f"{score.events:,} events, {score.events_per_second:,.0f} per second{late}"
    return table


def town_of(place: Place, elasticity: float) -> Town:
    """Return the world of `place` as a shop; only SHOP has an elasticity to be told.

    Raises:
        BadInput: it is none, or the file of habits cannot be used.
    """
    if place.world == "SHOP":
        habits = MADE_UP if place.habits is None else read_habits(place.habits)
        return street(habits, elasticity, place.seed, place.events, place.traffic)
    if place.world not in WORLDS:
        raise BadInput(f"World {place.world} is no shop: leave out --out, or use SHOP, LOGIT, MIS or NULL")
    return passers_by(place.world, place.seed, place.events)


def score_shops(file: Path, place: Place, elasticities: Sequence[float]) -> list[ShopScore]:
    """Return the score of the policy in `file` in the shop of `place`, at each elasticity.

    Raises:
        BadInput: as read_policy, town_of and run_shop; or several elasticities would go into one log.
    """
    if place.out is not None and len(elasticities) > 1:
        raise BadInput("--out takes the log of one shop: name one --elasticity, or leave out --out")
    policy = read_policy(file)
    files = None if place.out is None else Files(place.out, place.format)
    return [
        run_shop(town_of(place, elasticity), policy, place.seed, place.partitions, files) for elasticity in elasticities
    ]


def table_of_shops(scores: Sequence[ShopScore]) -> Table:
    """Return the scores of shops as a table; of a single one with its periods."""
    first = scores[0]
    table = Table(title=f"{first.policy}, seed {first.seed}: expected margin of draws seen, above list price")
    for column in ("", "draws", "at list price", "policy, %", "best fixed, %", "oracle, %", "share, %"):
        table.add_column(column, justify="right" if column else "left")
    for score in scores:
        table.add_row(score.world, *_cells(score.account.whole), style="bold" if len(scores) == 1 else "")
    if len(scores) == 1:
        for number, period in enumerate(first.account.periods, 1):
            table.add_row(f"period {number}", *_cells(period))
    at_best = ", ".join(f"{score.account.best_fixed_permille / 10:g} %" for score in scores)
    table.caption = (
        f"{first.looks:,} looks, {first.events:,} events; the best fixed price, in hindsight: {at_best} of list; share: of the "
        "oracle's gain over list price"
    )
    return table


def _cells(period: Period) -> tuple[str, ...]:
    share = period.share(period.policy)
    return (
        f"{period.draws:,}",
        f"{period.list_price / 100.0:,.2f}",
        f"{period.lift(period.policy):+.1f}",
        f"{period.lift(period.best_fixed):+.1f}",
        f"{period.lift(period.oracle):+.1f}",
        "-" if share is None else f"{share:.1f}",
    )
