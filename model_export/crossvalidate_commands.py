"""`pricetide model crossvalidate`: the user transformer trained anew per fold, beside the baselines, as tables and as a page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from model_export.bars import bar
from model_export.training_options import Told, training_options

PAGE = "crossvalidation.md"


@click.command("crossvalidate")
@click.argument("out", type=click.Path(path_type=Path))
@training_options
@click.option("--by", type=click.Choice(["user", "time"]), required=True, help="New users, or later events.")
@click.option("--folds", type=int, default=5, show_default=True, help="At least 2; each trains a model.")
@click.option("--resume", is_flag=True, help="Go on with the folds that are not finished.")
def crossvalidate_command(out: Path, by: Literal["user", "time"], folds: int, resume: bool, told: Told) -> None:
    """Train and test a model per fold of a log; OUT gets the models, crossvalidation.json and crossvalidation.md."""
    from model_export.crossvalidation import FOUND, crossvalidate
    from model_export.crossvalidation_page import markdown_of, sheets_of
    from model_export.quality_report import rich_table
    from model_export.training_run import Work

    work = Work(told.log, None, told.validation, told.text)
    found = crossvalidate(out, work, by, folds, told.options(), resume=resume, tell=click.echo, stage=bar)
    for sheet in sheets_of(found):
        Console().print(rich_table(sheet))
    (out / PAGE).write_text(markdown_of(found, _command(out, by, folds, told)))
    click.echo(f"{out / PAGE} and {FOUND} written")


def _command(out: Path, by: str, folds: int, told: Told) -> str:
    """Return the command that gives the same again, whatever the directories are called."""
    words = ["pricetide", "model", "crossvalidate", out.name, "--log", told.log.name, "--by", by, "--folds", str(folds)]
    words += ["--validation", f"{told.validation:g}", "--epochs", str(told.epochs), "--seed", str(told.seed)]
    words += ["--text", told.text.name] if told.text is not None else []
    words += ["--threads", str(told.threads)] if told.threads != 1 else []
    words += ["--no-refit"] if told.no_refit else []
    words += ["--randomised-prices"] if told.randomised_prices else []
    return shlex.join(words)
