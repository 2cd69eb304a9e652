"""The `pricetide` command line: finds the commands of the rooms by entry points and runs one.

It is not a home for commands: each room brings its own (`[project.entry-points."pricetide.commands"]`), and a command's
module is imported only when that command runs, so a data scientist's backtest never imports Faust.

Exit codes: 0 done; 1 the answer is no (a check failed); 2 wrong usage or input; 70 a bug; 75 try again later (broker
unreachable, fenced); 78 settings. Every error that somebody can mend is one sentence on stderr.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Any

import click

from contracts.errors import BadInput, PricetideError

GROUP = "pricetide.commands"

# onnxruntime reports to its maker, and leaves a file in the temporary directory, unless told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class Rooms(click.Group):
    """A click group whose commands are the entry points of the rooms, loaded on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command name, sorted."""
        return sorted(entry.name for entry in entry_points(group=GROUP))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None when no room brings one of that name.

        A group of one room may have commands of another: the entry points of `pricetide.commands.NAME`.
        """
        found: tuple[EntryPoint, ...] = tuple(entry_points(group=GROUP, name=cmd_name))
        command: click.Command | None = found[0].load() if found else None
        if isinstance(command, click.Group):
            for entry in entry_points(group=f"{GROUP}.{cmd_name}"):
                command.add_command(entry.load(), entry.name)
        return command


@click.command(cls=Rooms, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("pricetide"), prog_name="pricetide")
def command_line() -> None:
    """Real-time personalised prices from a stream of views, clicks and purchases."""


def main(argv: list[str] | None = None) -> Any:  # noqa: ANN401 - click decides
    """Run one command; errors of the tree, and of files that were named, become a sentence and their exit code."""
    try:
        return command_line.main(args=argv, prog_name="pricetide")
    except PricetideError as error:
        click.echo(f"pricetide: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"pricetide: {error.filename}: {error.strerror}. Correct the path, or its permissions", err=True)
        sys.exit(BadInput.exit_code)
