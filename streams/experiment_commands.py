"""`pricetide experiment apply|show|stop|promote`: who is priced by which policy, for comparison.

`pricetide experiment report` is the offline room's (backtest.experiment_commands).
"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.table import Table

from contracts.experiment_files import read_experiment
from contracts.experiments import Experiment
from streams.options import with_settings
from streams.settings import Settings


@click.group()
def experiment() -> None:
    """Compare policies on users, and make the better one current."""


@experiment.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.toml")
@click.option("--no-start", is_flag=True, help="Publish only; it does not run yet.")
@with_settings
def apply(settings: Settings, file: Path, no_start: bool) -> None:
    """Publish FILE.toml as the next version of its name and run it; workers follow with their next batch."""
    from streams.experiment_changes import apply_experiment

    done = apply_experiment(settings, read_experiment(file), start=not no_start)
    version = done.experiment.version
    if done.published_at is None:
        click.echo(f"{version} says the same and is the newest of its name: nothing was published again.")
    else:
        click.echo(f"Published {version} at offset {done.published_at}.")
    if done.running_at is not None:
        click.echo(f"{version} runs (offset {done.running_at}).")
    _say_running(done.running)


@experiment.command()
@click.argument("name")
@with_settings
def stop(settings: Settings, name: str) -> None:
    """Stop the experiment NAME: its users are priced by the current policy from the next batch on."""
    from streams.experiment_changes import stop_experiment

    done = stop_experiment(settings, name)
    click.echo(f"{done.experiment.version} was stopped (offset {done.running_at}).")
    _say_running(done.running)


@experiment.command()
@click.argument("name")
@click.option("--variant", required=True, help="Whose policy becomes the current one.")
@with_settings
def promote(settings: Settings, name: str, variant: str) -> None:
    """Make the policy of a variant of experiment NAME current for everybody, and stop the experiment."""
    from streams.experiment_changes import promote_variant

    done = promote_variant(settings, name, variant)
    how = "is current already" if done.current_at is None else f"is current (offset {done.current_at})"
    click.echo(f"{done.policy} {how}; {done.experiment.version} was stopped (offset {done.running_at}).")
    _say_running(done.running)


@experiment.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the versions as JSON.")
@with_settings
def show(settings: Settings, name: str | None, as_json: bool) -> None:
    """Print every version of the experiment NAME, or of all, and which of them run."""
    from streams.console import wide_console
    from streams.policy_log import read_policy_log

    book = read_policy_log(settings).book.experiments
    running = {one.version for one in book.running}
    versions = book.versions(name)
    if as_json:
        plain = [{"running": one.version in running} | msgspec.to_builtins(one) for one in versions]
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2))
    elif not versions:
        click.echo("There is no experiment on the topic." if name is None else f"There is no experiment {name}.")
    else:
        wide_console().print(_table(versions, running))


def _say_running(running: tuple[str, ...]) -> None:
    click.echo(f"Running: {', '.join(running) or 'no experiment'}.")


def _table(versions: list[Experiment], running: set[str]) -> Table:
    table = Table(title="experiments", title_justify="left")
    for column in ("version", "", "variants", "coverage", "holdout", "namespace", "metric", "promote"):
        table.add_column(column, overflow="fold")
    for one in versions:
        variants = ", ".join(
            f"{arm.name} {arm.weight:.0%} {arm.policy}{' (control)' if arm.name == one.control else ''}"
            for arm in one.variants
        )
        space = one.namespace
        where = "all users" if space is None else f"{space.name} {space.start:g} to {space.end:g}"
        state = "runs" if one.version in running else ""
        table.add_row(
            one.version, state, variants, f"{one.coverage:.0%}", f"{one.holdout:.0%}", where, one.metric, one.promote
        )
    return table
