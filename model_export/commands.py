"""`pricetide model`: train, export and verify a user transformer; its other commands come from their own modules.

Says what to install where the libraries of this room are missing; imports them only when a command runs.
"""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import click

from contracts.errors import BadSettings
from model_export.bars import bar
from model_export.crossvalidate_commands import crossvalidate_command
from model_export.evaluate_commands import evaluate_command
from model_export.search_command import search_command
from model_export.text_commands import text_command, tune_text_command
from model_export.times import UTC_TIME, epoch_ms
from model_export.training_options import Told, training_options

NEEDED = ("torch", "transformers", "onnx", "onnxscript", "safetensors", "sklearn", "onnxruntime", "pyarrow")


class _Modelling(click.Group):
    """A group whose commands need the extra model-export, but for a search."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is asked for, if it can be run here."""
        name, command, rest = super().resolve_command(ctx, args)
        missing = [needed for needed in NEEDED if find_spec(needed) is None]
        if missing and command is not search_command:
            raise BadSettings(
                f"pricetide model {name} needs {', '.join(missing)}, not installed here: "
                "pip install 'pricetide[model-export]'"
            )
        return name, command, rest


@click.group(cls=_Modelling)
def model() -> None:
    """Train, export and check the user transformer (extra: model-export)."""


@model.command()
@click.argument("run", type=click.Path(path_type=Path))
@training_options
@click.option("--until", type=UTC_TIME, help="Learn from events before this, UTC.  [default: the whole log]")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
def train(run: Path, until: datetime | None, resume: bool, told: Told) -> None:
    """Train the user transformer on a log; leaves a run in RUN, for `model export`."""
    from model_export.training_run import Work, train_run

    work = Work(told.log, epoch_ms(until), told.validation, told.text)
    with bar("train") as progress:
        done = train_run(run, work, told.options(), resume=resume, tell=_tell, progress=progress)
    _tell(f"{done.epochs} epochs; price slope {done.slope_value:g} ({done.slope}); run in {run}")
    _tell(f"next: pricetide model export {run} ARTIFACT")


@model.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("artifact", type=click.Path(path_type=Path))
def export(run: Path, artifact: Path) -> None:
    """Write the artifact of the trained RUN, verify it, and only then put it in the place of ARTIFACT."""
    from model_export.runs import export_run

    _, digest = export_run(run, artifact)
    _tell(f"model {digest} in {artifact}, verified against torch in float64")


@model.command("verify")
@click.argument("artifact", type=click.Path(path_type=Path))
def verify_command(artifact: Path) -> None:
    """Prove that ARTIFACT is one model: torch in float64, its graph and its golden vectors agree."""
    from model_export.verify import TOLERANCE, verify

    found = verify(artifact)
    _tell(f"model {found.digest}: against torch in float64, differences at most (allowed {TOLERANCE:.0e})")
    for name, off in found._asdict().items():
        if name != "digest":
            _tell(f"  {name:8s} {off:.1e}")


model.add_command(text_command)
model.add_command(search_command)
model.add_command(tune_text_command)
model.add_command(evaluate_command)
model.add_command(crossvalidate_command)


def _tell(line: str) -> None:
    click.echo(line)
