"""`pricetide model search`: the items of a catalogue whose texts are nearest to a search query. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table

from contracts.catalogue import CatalogueItem
from contracts.visible import visible
from model_export.bars import bar

TEXTS_AT_A_TIME = 256
"""Embedded and kept at a time: what an interruption loses."""


class Hit(NamedTuple):
    """An item that was found."""

    item: str
    title: str
    category: str
    brand: str
    cosine: float


@click.command("search")
@click.argument("text", type=click.Path(path_type=Path))
@click.argument("catalogue", type=click.Path(path_type=Path))
@click.argument("query", nargs=-1, required=True)
@click.option("--count", type=click.IntRange(1), default=10, show_default=True, help="Items wanted.")
@click.option("--cache", type=click.Path(path_type=Path), help="As of `model text`.  [default: TEXT/texts.sqlite]")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def search_command(
    text: Path, catalogue: Path, query: tuple[str, ...], count: int, cache: Path | None, as_json: bool
) -> None:
    """Rank the items of CATALOGUE, a log or a catalogue file, for a search QUERY in words.

    TEXT is what `pricetide model text` wrote. Items that it does not know are embedded first, once, and kept in its cache.
    """
    from features.text_search import open_text_search, parts_of
    from model_export.catalogues import items_of

    items = items_of(catalogue)
    search = open_text_search(text, cache)
    unknown = search.take(items)
    with bar("embed") as progress:
        for done, part in enumerate(parts_of(unknown, TEXTS_AT_A_TIME)):
            search.embed(part)
            progress(min((done + 1) * TEXTS_AT_A_TIME, len(unknown)), len(unknown))
    hits = [_hit(items[item], cosine) for item, cosine in search.nearest(" ".join(query), count)]
    if as_json:
        found = {"query": " ".join(query), "encoder": search.digest, "items": [hit._asdict() for hit in hits]}
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        Console(markup=False, emoji=False).print(_table(" ".join(query), search.digest, hits, len(search.index)))


def _hit(item: CatalogueItem, cosine: float) -> Hit:
    return Hit(item.item, item.title, item.category, item.brand, cosine)


def _table(query: str, digest: str, hits: list[Hit], items: int) -> Table:
    table = Table(title=f"nearest of {items:,} items to “{query}” (encoder {digest})", title_justify="left")
    for name in Hit._fields:
        table.add_column(name, justify="right" if name == "cosine" else "left")
    for hit in hits:
        table.add_row(*map(visible, hit[:-1]), f"{hit.cosine:.3f}")
    return table
