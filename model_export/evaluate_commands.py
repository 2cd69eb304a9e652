"""`pricetide model evaluate`: the quality of an artifact, beside the baselines, as tables and as a page."""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from model_export.bars import bar
from model_export.times import UTC_TIME, epoch_ms

if TYPE_CHECKING:
    from model_export.evaluation import Evaluation


@click.command("evaluate")
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option("--log", "directory", type=click.Path(path_type=Path), required=True, help="Directory of the log.")
@click.option(
    "--test-from",
    type=UTC_TIME,
    help="Start of the test, UTC.  [default: where the model's learning from this log ended, else the last sixth]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Markdown page; the diagram is written beside it.")
def evaluate_command(artifact: Path | None, directory: Path, test_from: datetime | None, out: Path | None) -> None:
    """Compare ARTIFACT with the baselines on a log it has not learned from; without ARTIFACT, the baselines alone."""
    from model_export.evaluation import USERS_RESIDENT, evaluate
    from model_export.quality_report import doubt_of, rich_table, sheets_of

    model = encoder = None
    if artifact is not None:
        from features.artifact import load_artifact
        from features.encoder import Encoder

        model = load_artifact(artifact)
        encoder = Encoder(model, USERS_RESIDENT)
    with bar("evaluate") as progress:
        evaluation = evaluate(directory, epoch_ms(test_from), model, encoder, progress)
    for sheet in sheets_of(evaluation):
        Console().print(rich_table(sheet))
    if isinstance(evaluation.propensity, str):
        click.echo(f"No propensity. {evaluation.propensity}")
    if doubt := doubt_of(evaluation):
        click.echo(f"The model may have learned from the test. {doubt}")
    if out is not None:
        _write(evaluation, out, artifact, directory, test_from)


def _write(
    evaluation: Evaluation, out: Path, artifact: Path | None, directory: Path, test_from: datetime | None
) -> None:
    from model_export.quality_report import markdown_of, reliability_svg

    diagram = out.with_name(f"{out.stem}-reliability.svg")
    words = ["pricetide", "model", "evaluate", *([artifact.name] if artifact is not None else [])]
    words += ["--log", directory.name, *(["--test-from", test_from.isoformat()] if test_from is not None else [])]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown_of(evaluation, shlex.join([*words, "--out", out.name]), diagram.name))
    if isinstance(evaluation.propensity, str):
        click.echo(f"{out} written")
        return
    diagram.write_text(reliability_svg(evaluation.propensity.methods))
    click.echo(f"{out} and {diagram.name} written")
