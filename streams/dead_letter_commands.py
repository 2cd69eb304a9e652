"""`pricetide dlq list|replay`: look at dead letters, and put originals back once the cause is mended."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click
import msgspec
from rich.table import Table

from contracts.errors import BadSettings
from contracts.ids import partition_of
from contracts.visible import visible
from streams.broker import SCHEMA_HEADER, committed_records, producing, require_topics
from streams.console import wide_console
from streams.dead_letters import REPLAYED_FROM, DeadLetter, read_dead_letter
from streams.options import with_settings
from streams.settings import Settings

LIST_MAX = 100
IN_FLIGHT_MAX = 1_000


@click.group()
def dlq() -> None:
    """Dead letters: records that could not be applied."""


def _dead_letters(settings: Settings, codes: tuple[str, ...], sources: tuple[str, ...]) -> Iterator[DeadLetter]:
    """Yield the selected dead letters that lie on the topic now; an empty selection selects everything."""
    for record in committed_records(settings, [settings.topics.dead_letters]):
        place = f"{record.partition}/{record.offset}"
        letter = read_dead_letter(record.key, record.value, record.headers, place)
        if letter is not None and (not codes or letter.code in codes) and (not sources or letter.source in sources):
            yield letter


_code = click.option("--code", "codes", multiple=True, help="Only this code, for example bad_field. Repeatable.")
_source = click.option(
    "--offset", "sources", multiple=True, metavar="TOPIC/PARTITION/OFFSET", help="Only this source record. Repeatable."
)


@dlq.command(name="list")
@_code
@_source
@click.option("--limit", type=click.IntRange(min=1), default=LIST_MAX, show_default=True, help="Most to print.")
@click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON; bytes in base64.")
@with_settings
def list_(settings: Settings, codes: tuple[str, ...], sources: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List dead letters: where the record stood, what is wrong with it, and what its producer must do."""
    letters = _dead_letters(settings, codes, sources)
    if as_json:
        for letter in islice(letters, limit):
            click.echo(msgspec.json.encode(_plain(letter)))
        return
    shown = list(islice(letters, limit + 1))
    table = Table(title=f"Dead letters at {settings.kafka.bootstrap_servers}", title_justify="left")
    for heading in ("arrived (UTC)", "source", "code", "message", "remedy", "bytes"):
        table.add_column(heading, overflow="fold", justify="right" if heading == "bytes" else "left")
    for letter in shown[:limit]:
        length = f"{letter.length} (cut)" if letter.truncated else str(letter.length)
        table.add_row(
            _time(letter.arrival_ms), letter.source, letter.code, visible(letter.message), letter.remedy, length
        )
    wide_console().print(table)
    if len(shown) > limit:
        click.echo(f"There are more: --limit {limit * 10}")


def _time(arrival_ms: int) -> str:
    try:
        return datetime.fromtimestamp(arrival_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(arrival_ms)


def _plain(letter: DeadLetter) -> dict[str, Any]:
    plain = msgspec.structs.asdict(letter) | {"source": letter.source}
    for name in ("key", "value"):
        content = plain[name]
        plain[name] = None if content is None else base64.b64encode(content).decode()
    return plain


@dlq.command()
@_code
@_source
@click.option("--yes", is_flag=True, help="Do it; without this, only say what would be replayed.")
@with_settings
def replay(settings: Settings, codes: tuple[str, ...], sources: tuple[str, ...], yes: bool) -> None:
    """Put the original bytes of dead letters back on their source topics, under their original keys.

    They arrive anew, at the end. An event that had been applied meanwhile is recognised by its id. Originals that were too
    large to keep whole are skipped.
    """
    if not codes and not sources:
        raise click.UsageError("say which: --code CODE or --offset TOPIC/PARTITION/OFFSET")
    done, cut = _replay(settings, codes, sources, send=yes)
    verb = "replayed" if yes else "would replay"
    click.echo(f"{verb} {done} dead letters" + (f"; {cut} were cut and cannot be" if cut else ""))
    if not yes and done:
        click.echo("Nothing was sent: add --yes.")


def _replay(settings: Settings, codes: tuple[str, ...], sources: tuple[str, ...], send: bool) -> tuple[int, int]:
    """Send the selected originals; return how many, and how many could not be."""
    counts = require_topics(settings, settings.topics.topology.sources)
    done, cut, sent = 0, 0, deque[Any]()
    timeout_s = settings.kafka.request_timeout_ms / 1000
    with producing(settings) as producer:
        for letter in _dead_letters(settings, codes, sources):
            if letter.truncated:
                cut += 1
                continue
            if letter.topic not in counts:
                raise BadSettings(
                    f"Dead letter {letter.place} came from topic {letter.topic!r}, which the settings do not name: "
                    "correct the names under `topics`"
                )
            done += 1
            if send:
                sent.append(producer.send(**_original(letter, counts[letter.topic])))
            if len(sent) > IN_FLIGHT_MAX:
                sent.popleft().get(timeout=timeout_s)
        for acknowledgement in sent:
            acknowledgement.get(timeout=timeout_s)
    return done, cut


def _original(letter: DeadLetter, partitions: int) -> dict[str, Any]:
    """Return what to send. By key where there is one: that mends a record which had come on the wrong partition."""
    home = letter.partition if letter.key is None else partition_of(letter.key, partitions)
    headers = [SCHEMA_HEADER, (REPLAYED_FROM, letter.place.encode())]
    return {"topic": letter.topic, "key": letter.key, "value": letter.value, "partition": home, "headers": headers}
