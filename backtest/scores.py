"""A score as people ask for it: from the file of a policy and the name of a world to a table in the terminal.

Not here: the simulation (backtest.simulation, backtest.memories), tables of many policies (benchmarks).
"""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from backtest import memories, simulation
from backtest.simulation import Score
from backtest.worlds import WORLDS, world_of
from contracts.errors import BadInput
from contracts.policies import Policy
from contracts.policy_files import read_policy


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
