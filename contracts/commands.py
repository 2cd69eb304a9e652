"""The command line of this room: `pricetide schema`."""

from __future__ import annotations

from pathlib import Path

import click

from contracts.json_schemas import MESSAGES, drifted, schema_file, schema_text


@click.command()
@click.argument("name", required=False, type=click.Choice(sorted(MESSAGES)))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file in contracts/schemas has drifted.")
def schema(name: str | None, check: bool) -> None:
    """Print the JSON Schema of message NAME; without a name, write all of them to contracts/schemas."""
    if check:
        names = [changed for changed in drifted() if name in (None, changed)]
        if names:
            click.echo(f"drifted: {', '.join(names)}. Run: pricetide schema", err=True)
            raise SystemExit(1)
        click.echo("every schema equals its struct")
        return
    if name is not None:
        click.echo(schema_text(name), nl=False)
        return
    for changed in drifted():
        path = Path(str(schema_file(changed)))
        path.parent.mkdir(exist_ok=True)
        path.write_text(schema_text(changed), encoding="utf-8")
        click.echo(f"wrote {path}")
