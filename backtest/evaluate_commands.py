"""`pricetide evaluate`: what a target policy would have earned, from logged bandit feedback, and whether the log can tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console, RenderableType

from contracts.visible import visible

if TYPE_CHECKING:
    from backtest.logged_draws import Reward


@click.command()
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--target",
    required=True,
    help="`uniform`; a CSV, Parquet or JSON table of action, position and probability; or `column:NAME`, a column of the log "
    "with the target's probability of the logged action. Of a log of ours: the TOML file of a policy.",
)
@click.option("--time", help="Column of the time of the draw.")
@click.option("--user", help="Column of the user; without one, every row counts as a user of its own.")
@click.option("--action", help="Column of the action.")
@click.option("--position", help="Column of the position.")
@click.option("--reward", help="Column of the reward.")
@click.option("--propensity", help="Column of the probability that the logged policy gave to the action.")
@click.option("--id", "decision", help="Column that tells decisions apart; `rows`: every row is one.")
@click.option("--forced", help="Column that is true where only one action was feasible.")
@click.option(
    "--logged-policy",
    type=click.Choice(["auto", "learning", "fixed"]),
    default="auto",
    show_default=True,
    help="Whether the logged policy learned from these rewards; auto: if its propensities move, and in a log of ours if what it "
    "had learned did between these draws.",
)
@click.option(
    "--planned",
    type=click.IntRange(1),
    help="Draws with a choice to be looked at in all, if the log is judged as it grows; the same number at every look.",
)
@click.option(
    "--goal",
    type=click.Choice(["margin", "revenue", "units", "purchase"]),
    help="Of a log of ours: what a draw earns; else margin if the catalogue knows every cost, and revenue if not.",
)
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Of a log of ours: directory of each artifact that was in force.",
)
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Of Switch-DR; else chosen by SLOPE.")
@click.option("--lambda", "shrinkage", type=click.FloatRange(0, min_open=True), help="Of DRos; else chosen by SLOPE.")
@click.option("--clip", type=click.FloatRange(0, min_open=True), default=5.0, show_default=True)
@click.option("--resamples", type=click.IntRange(100), default=1_000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(0), default=12345, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print the evaluation as JSON.")
def evaluate(
    log: Path,
    target: str,
    time: str | None,
    user: str | None,
    action: str | None,
    position: str | None,
    reward: str | None,
    propensity: str | None,
    decision: str | None,
    forced: str | None,
    logged_policy: str,
    planned: int | None,
    goal: Reward | None,
    models: tuple[Path, ...],
    tau: float | None,
    shrinkage: float | None,
    clip: float,
    resamples: int,
    seed: int,
    as_json: bool,
) -> None:
    """Say whether TARGET would earn more than the policy that wrote LOG.

    LOG is a CSV or Parquet file with a row per draw, or the directory of a log that this engine wrote.

    The Open Bandit files are read as they are. Exits with 1 if the log supports no answer (REFUSE).
    """
    from backtest.bandit_files import Columns
    from backtest.estimates import Settings
    from backtest.evaluation import evaluate as judge
    from backtest.evaluation_page import page_of
    from backtest.policy_targets import feedback_on_policy
    from backtest.target_tables import feedback_from

    columns = Columns(time, user, action, position, reward, propensity, decision, forced)
    adaptive = None if logged_policy == "auto" else logged_policy == "learning"
    settings = Settings(resamples=resamples, seed=seed, clip=clip, tau=tau, shrinkage=shrinkage, planned=planned)
    notes: tuple[str, ...] = ()
    if log.is_dir():
        asked = feedback_on_policy(log, target, goal, models, adaptive)
        feedback, notes = asked.feedback, asked.notes
        named: dict[str, str] = {"reward": asked.reward}
    else:
        read, feedback = feedback_from(log, columns, target, adaptive)
        named = read.columns
    found = judge(feedback, settings)
    if as_json:
        head = {"log": str(log), "columns": named, "target": target, "notes": notes}
        click.echo(msgspec.json.format(msgspec.json.encode(head | msgspec.to_builtins(found)), indent=2))
    else:
        columns_read = ", ".join(f"{role}: {name}" for role, name in named.items())
        _print((f"{log}, target {target}; {columns_read}", *notes), page_of(found))
    if found.verdict == "REFUSE":
        raise SystemExit(1)


def _print(head: tuple[str, ...], page: RenderableType) -> None:
    console = Console(markup=False, emoji=False)
    console = console if console.is_terminal else Console(width=160, markup=False, emoji=False)
    for line in head:
        console.print(visible(line))
    console.print(page)
