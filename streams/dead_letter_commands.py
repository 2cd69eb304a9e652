"""`pricetide dlq list|replay`: look at dead letters, and put originals back once the cause is mended."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click
import msgspec
from kafka.errors import InvalidProducerEpochError, ProducerFencedError
from msgspec import Struct
from rich.table import Table

from contracts.errors import BadSettings, BrokerUnavailable
from contracts.ids import partition_of
from contracts.visible import visible
from streams.broker import SCHEMA_HEADER, committed_records, require_topics
from streams.console import wide_console
from streams.dead_letters import REPLAYED_FROM, DeadLetter, read_dead_letter, replay_mark, replayed_place
from streams.options import with_settings
from streams.settings import Settings
from streams.transactions import fencing, within

LIST_MAX = 100
LETTERS_PER_TRANSACTION = 100
"""A letter has at most a megabyte, and a transaction ends within its timeout."""


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
@click.option("--again", is_flag=True, help="Those, too, that were replayed before.")
@with_settings
def replay(settings: Settings, codes: tuple[str, ...], sources: tuple[str, ...], yes: bool, again: bool) -> None:
    """Put the original bytes of dead letters back on their source topics, under their original keys.

    They arrive anew, at the end. Each is put back once: its letter is marked in the same transaction, and passed over from then on
    unless --again is given. An event that has been applied is known by its id only while that is among the last of its user
    (semantics.recent_ids_max). Originals that were too large to keep whole are skipped.
    """
    if not codes and not sources:
        raise click.UsageError("say which: --code CODE or --offset TOPIC/PARTITION/OFFSET")
    done = _replay(settings, codes, sources, send=yes, again=again)
    asides = [
        (done.cut, "were cut and cannot be"),
        (done.before, "were replayed before (--again sends them once more)"),
    ]
    said = "".join(f"; {count} {what}" for count, what in asides if count)
    click.echo(f"{'replayed' if yes else 'would replay'} {done.sent} dead letters{said}")
    if not yes and done.sent:
        click.echo("Nothing was sent: add --yes.")


class _Replayed(Struct):
    """How many letters were put back, and how many not, and why."""

    sent: int = 0
    cut: int = 0
    before: int = 0


def _replay(settings: Settings, codes: tuple[str, ...], sources: tuple[str, ...], send: bool, again: bool) -> _Replayed:
    """Send the selected originals, and mark their letters."""
    counts = require_topics(settings, settings.topics.topology.sources)
    done = _Replayed()
    floor = fencing(settings, f"{settings.topics.dead_letters}-replay") if send else nullcontext()
    with floor as producer:  # from here on nobody else replays
        marked = set() if again else _marked(settings)
        chosen = _replayable(_dead_letters(settings, codes, sources), marked, counts, done)
        while letters := list(islice(chosen, LETTERS_PER_TRANSACTION)):
            done.sent += len(letters)
            if producer is not None:
                _put_back(settings, producer, letters, counts)
    return done


def _marked(settings: Settings) -> set[str]:
    """Return where the letters stand that were replayed."""
    records = committed_records(settings, [settings.topics.dead_letters])
    return {place for record in records if (place := replayed_place(record.headers)) is not None}


def _replayable(
    letters: Iterator[DeadLetter], marked: set[str], counts: dict[str, int], done: _Replayed
) -> Iterator[DeadLetter]:
    """Yield the letters that are to be put back; count the others."""
    for letter in letters:
        if letter.topic not in counts:
            raise BadSettings(
                f"Dead letter {letter.place} came from topic {letter.topic!r}, which the settings do not name: "
                "correct the names under `topics`"
            )
        if letter.truncated:
            done.cut += 1
        elif letter.place in marked:
            done.before += 1
        else:
            yield letter


def _put_back(settings: Settings, producer: Any, letters: list[DeadLetter], counts: dict[str, int]) -> None:  # noqa: ANN401 - kafka-python ships no types
    """Send the originals of `letters` and their marks, in one transaction.

    Raises:
        BrokerUnavailable: somebody else has begun to replay.
    """
    timeout_s = settings.kafka.request_timeout_ms / 1000
    try:
        producer.begin_transaction()
        sent = []
        for letter in letters:
            key, value, headers = replay_mark(letter.place)
            place = int(letter.place.partition("/")[0])
            sent.append(producer.send(**_original(letter, counts[letter.topic])))
            sent.append(producer.send(settings.topics.dead_letters, value, key, headers=headers, partition=place))
        for acknowledgement in sent:
            acknowledgement.get(timeout=timeout_s)
        within(timeout_s, producer.commit_transaction)
    except (ProducerFencedError, InvalidProducerEpochError):
        raise BrokerUnavailable(
            "Somebody else has begun to replay dead letters; what was not committed was not sent. Try again"
        ) from None


def _original(letter: DeadLetter, partitions: int) -> dict[str, Any]:
    """Return what to send. By key where there is one: that mends a record which had come on the wrong partition."""
    home = letter.partition if letter.key is None else partition_of(letter.key, partitions)
    headers = [SCHEMA_HEADER, (REPLAYED_FROM, letter.place.encode())]
    return {"topic": letter.topic, "key": letter.key, "value": letter.value, "partition": home, "headers": headers}
