"""`pricetide experiment report`: what came of an experiment, from the files of a backtest.

It joins the group of the live room's commands on the command line (pricetide.py), and no import joins the rooms.
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console

from contracts.errors import REFUSED, BadInput
from contracts.experiments import Experiment
from contracts.log import open_log, policy_records
from contracts.policies import PolicyBook


@click.command()
@click.argument("name")
@click.option(
    "--log", type=click.Path(path_type=Path), required=True, help="The log that was replayed: it has the experiment."
)
@click.option(
    "--decisions", type=click.Path(path_type=Path), required=True, help="Its decisions: `backtest --decisions`."
)
@click.option("--outcomes", type=click.Path(path_type=Path), required=True, help="Its outcomes: `backtest --outcomes`.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option(
    "--act", is_flag=True, help="Promote the winner if the verdict is to and the experiment's file allows it."
)
@click.option("--config", type=click.Path(path_type=Path), help="With --act: the settings file of the live deployment.")
@click.pass_context
def report(
    ctx: click.Context,
    name: str,
    log: Path,
    decisions: Path,
    outcomes: Path,
    as_json: bool,
    act: bool,
    config: Path | None,
) -> None:
    """Say what came of experiment NAME: users, lifts, guardrails, verdict. Exits with 1 if the experiment is broken."""
    from backtest.experiment_report import report_on
    from backtest.experiment_tables import page_of
    from backtest.experiment_users import read_users

    experiment = experiment_of(log, name)
    window_ms = open_log(log, verify=False).manifest.semantics.outcome_window_ms
    users = read_users(name, decisions, outcomes, experiment.horizon_ms, window_ms)
    found = report_on(experiment, users)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        console = Console()
        (console if console.is_terminal else Console(width=160)).print(page_of(found))
    if act:
        _act(ctx, name, found.winner, found.promote, config)
    if found.verdict == "broken":
        raise SystemExit(1)


def experiment_of(directory: Path, name: str) -> Experiment:
    """Return the newest version of experiment `name` in the policies of a log.

    Raises:
        BadInput: it has none; or there is no log.
    """
    book = PolicyBook()
    for record in policy_records(open_log(directory, verify=False)):
        try:
            book.apply(record.offset, record.key, record.value)
        except REFUSED:
            continue  # as workers do
    versions = book.experiments.versions(name)
    if not versions:
        known = ", ".join(sorted({one.name for one in book.experiments.versions()})) or "none"
        raise BadInput(f"{directory} has no experiment {name}; it has {known}")
    return versions[-1]


def _act(ctx: click.Context, name: str, winner: str | None, promote: str, config: Path | None) -> None:
    """Run the live room's `promote` beside this command, if there is a winner and the file says so."""
    if winner is None:
        click.echo("Nothing to promote.", err=True)
        return
    if promote != "when_better":
        click.echo(
            f"Not promoted: the experiment says promote = {promote!r}. By hand: pricetide experiment promote {name} "
            f"--variant {winner}",
            err=True,
        )
        return
    group = ctx.parent.command if ctx.parent is not None else None
    command = group.get_command(ctx, "promote") if isinstance(group, click.Group) else None
    if command is None:
        raise BadInput("Nothing here can promote: run `pricetide experiment report` where pricetide is installed whole")
    words = [name, "--variant", winner, *(["--config", str(config)] if config is not None else [])]
    command.main(words, prog_name="pricetide experiment promote", standalone_mode=False)
