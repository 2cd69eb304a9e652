"""The options of every command that trains: `pricetide model train` once, `model crossvalidate` fold by fold."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from model_export.training import Options

_OPTIONS = (
    click.option("--log", type=click.Path(path_type=Path), required=True, help="Directory of the log."),
    click.option(
        "--validation",
        type=click.FloatRange(0, 0.5, min_open=True),
        default=0.1,
        show_default=True,
        help="Share of the time, at its end, to validate with.",
    ),
    click.option("--text", type=click.Path(path_type=Path), help="Vectors of `model text`.  [default: hashed titles]"),
    click.option("--epochs", type=click.IntRange(1), default=6, show_default=True, help="At most."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True),
    click.option(
        "--threads", type=click.IntRange(1), default=1, show_default=True, help="Equal runs need equal threads."
    ),
    click.option("--no-refit", is_flag=True, help="Keep what was validated; do not learn from the validation slice."),
    click.option(
        "--randomised-prices", is_flag=True, help="The log's prices were drawn at random: learn the price slope."
    ),
)


class Told(NamedTuple):
    """What was given, by the names of the options."""

    log: Path
    validation: float
    text: Path | None
    epochs: int
    seed: int
    threads: int
    no_refit: bool
    randomised_prices: bool

    def options(self) -> Options:
        """Return the options of training, and let torch have its threads."""
        import torch

        from model_export.training import Options

        torch.set_num_threads(self.threads)
        return Options(
            seed=self.seed,
            epochs=self.epochs,
            refit=not self.no_refit,
            randomised_prices=self.randomised_prices,
        )


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options, which it gets as its keyword `told`, a Told."""

    @wraps(command)
    def with_told(**given: Any) -> None:  # noqa: ANN401 - whatever click makes of the options of any command
        told = Told(**{name: given.pop(name) for name in Told._fields})
        command(told=told, **given)

    return reduce(lambda one, option: option(one), reversed(_OPTIONS), with_told)
