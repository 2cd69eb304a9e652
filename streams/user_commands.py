"""`pricetide users show`: what is known of one user, read from the changelog, so it works whether or not workers run.

Prints personal data: for operators and for answering a person's question about theirs. Changes nothing. Not here: what the
numbers mean (features), the vectors' arithmetic (features.encoder, features.text_search).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from kafka import TopicPartition
from msgspec import Struct
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import Progress
from rich.table import Table

from contracts.catalogue import Catalogue
from contracts.errors import REFUSED, BadInput
from contracts.ids import partition_of
from contracts.visible import visible
from features.encoder import Encoder
from features.profile import looking_up, profile_of
from features.state import UserState, decode_state
from features.text_search import open_text_search
from features.tokens import tokens
from features.windows import totals
from pricing.sentences import money
from streams.broker import chunks_until, committed_records, reading, require_topics
from streams.ledger import LEDGER_KEY, decode_ledger
from streams.models import open_encoder
from streams.options import with_settings
from streams.settings import Settings

RECENT_MAX = 8
NEAREST_MAX = 8


class Vector(Struct, frozen=True):
    """A user's vector, and the items nearest to it."""

    digest: str
    as_of_ms: int
    """Event time of the last token in it."""
    norm: float
    nearest: list[tuple[str, float]]
    """Item ids by falling score, scores as the model ranks next items."""


class Stored(NamedTuple):
    """What the changelog has of a user."""

    state: bytes | None
    """The last committed state, None if there is none."""
    watermark_ms: int
    """Highest event time that the user's partition has applied, whoever's; 0 before the first."""


class InWords(Struct, frozen=True):
    """The items whose texts are nearest to a user's profile."""

    digest: str
    """Of the text encoder."""
    nearest: list[tuple[str, float]]
    """Item ids by falling cosine."""
    unknown: int
    """Items of the catalogue that have no vector yet, and were left out."""


@click.group()
def users() -> None:
    """Look at what is known of a user."""


@users.command()
@click.argument("user")
@with_settings
def show(settings: Settings, user: str) -> None:
    """Print the state of USER: windows, recent items, profile, open offers.

    With --model also the items nearest to the vector; with --set encoder.text=DIR those nearest to the profile in words.
    """
    console = Console(markup=False, emoji=False)
    value, watermark_ms = stored_state(settings, user, console)
    if value is None:
        raise BadInput(
            f"No state of user {user!r} in {settings.topics.changelog}: check the id and topics.partitions "
            f"({settings.topics.partitions}); a user unseen for semantics.state_ttl_ms is forgotten"
        )
    state = decode_state(value)
    catalogue = _catalogue(settings)
    encoder = encoder_of_one(settings)
    vector = None if encoder is None else vector_of(user, state, encoder)
    profile = profile_of(state, state.last_ms, looking_up(catalogue), settings.engine_semantics.currency)
    in_words = None if settings.encoder.text is None else nearest_in_words(profile, catalogue, settings.encoder.text)
    partition = partition_of(user.encode(), settings.topics.partitions)
    console.print(page(user, partition, watermark_ms, state, catalogue, profile, vector, in_words, settings))


def stored_state(settings: Settings, user: str, console: Console) -> Stored:
    """Return what the changelog has of `user`; reads the user's partition of it."""
    topic = settings.topics.changelog
    require_topics(settings, [topic])
    place = TopicPartition(topic, partition_of(user.encode(), settings.topics.partitions))
    found: dict[bytes, bytes | None] = dict.fromkeys((user.encode(), LEDGER_KEY))
    with reading(settings) as consumer, Progress(console=console, transient=True) as progress:
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        ends = consumer.end_offsets([place])
        task = progress.add_task(f"reading {topic}/{place.partition}", total=ends[place] - consumer.position(place))
        for chunk in chunks_until(consumer, ends):
            for record in chunk.get(place, ()):
                if record.key in found:
                    found[record.key] = record.value
            progress.update(task, completed=consumer.position(place))
    ledger = found[LEDGER_KEY]
    return Stored(found[user.encode()], 0 if ledger is None else decode_ledger(ledger).watermark_ms)


def _catalogue(settings: Settings) -> Catalogue:
    catalogue = Catalogue(settings.engine_semantics.currency)
    for record in committed_records(settings, [settings.topics.catalogue]):
        try:
            catalogue.apply(record.offset, record.key, record.value)
        except REFUSED:
            continue  # a worker refuses it, too, and counts it
    return catalogue


def encoder_of_one(settings: Settings) -> Encoder | None:
    """Return the encoder of the model with room for one user, on the CPU wherever workers run it; None without a model.

    Raises:
        BadSettings: as streams.models.open_encoder.
    """
    if settings.encoder.model is None:
        return None
    alone = settings.encoder.model_copy(update={"users_max": 1, "provider": "cpu"})
    return open_encoder(alone, settings.engine_semantics, settings.encoder.model)


def vector_of(user: str, state: UserState, encoder: Encoder) -> Vector | None:
    """Return the vector after the user's last token, rebuilt from the stored history; None without a token."""
    vector = encoder.of_history(user.encode(), state.tokens, state.history)
    if vector is None:
        return None
    return Vector(
        digest=encoder.digest,
        as_of_ms=list(tokens(state.history))[-1].event_time_ms,
        norm=float(np.linalg.norm(vector)),
        nearest=encoder.nearest(vector, state.history, NEAREST_MAX),
    )


def nearest_in_words(profile: str, catalogue: Catalogue, directory: Path) -> InWords:
    """Return the items whose texts are nearest to a profile, among those that somebody has embedded before: none is here."""
    search = open_text_search(directory)
    unknown = search.take({item: catalogue.last(item) for item in catalogue})
    return InWords(search.digest, search.nearest(profile, NEAREST_MAX), len(unknown))


def page(
    user: str,
    partition: int,
    watermark_ms: int,
    state: UserState,
    catalogue: Catalogue,
    profile: str,
    vector: Vector | None,
    in_words: InWords | None,
    settings: Settings,
) -> RenderableType:
    """Return everything to be shown; the vector's age is counted to the partition's watermark, for what came since is unknown."""
    currency = settings.engine_semantics.currency
    parts: list[RenderableType] = [
        _summary(user, partition, state, settings),
        _windows(state, currency),
        Panel(visible(profile), title="profile", title_align="left"),
        _recent(state, catalogue, currency),
    ]
    if state.offers:
        parts.append(_offers(state, currency))
    if vector is not None:
        age = timedelta(seconds=max(0, watermark_ms - vector.as_of_ms) // 1000)
        how = (
            f"model {vector.digest}, length {vector.norm:.3f}, as of the event at {_when(vector.as_of_ms)}, {age} before the "
            "partition's newest"
        )
        parts.append(_nearest(f"nearest items to the vector ({how})", "score", vector.nearest, catalogue, state))
    if in_words is not None:
        how = f"encoder {in_words.digest}"
        if in_words.unknown:
            how += f"; {in_words.unknown:,} new items have no vector yet"
        title = f"in words: nearest items by text to the profile ({how})"
        parts.append(_nearest(title, "cosine", in_words.nearest, catalogue, state))
    return Group(*parts)


def _when(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time_ms else "never"


def _summary(user: str, partition: int, state: UserState, settings: Settings) -> Table:
    said = {None: "never said anything", True: "granted", False: "denied"}[state.consent]
    if state.consent is None:
        default = "granted" if settings.engine_semantics.consent_default else "denied"
        said += f", so {default} by default"
    table = Table(title=f"user {visible(user)}", title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("partition", str(partition))
    table.add_row("events and consents applied", f"{state.sequence:,}")
    table.add_row("last event", _when(state.last_ms))
    table.add_row("consent to personal prices", said + (f", {_when(state.consent_ms)}" if state.consent_ms else ""))
    table.add_row("this session", f"{state.session_events:,} events since {_when(state.session_start_ms)}")
    table.add_row("tokens", f"{state.history_events:,} kept of {state.tokens:,}")
    if state.implausible_ms:
        table.add_row("implausible traffic", f"last {_when(state.implausible_ms)}: nothing is learned for a day")
    return table


def _windows(state: UserState, currency: str) -> Table:
    table = Table(title="rolling windows, as of the last event", title_justify="left")
    for column in ("window", "views", "clicks", "purchases", "spend", "dwell"):
        table.add_column(column, justify="left" if column == "window" else "right")
    for name, total in zip(("1 hour", "24 hours", "30 days"), totals(state, state.last_ms), strict=True):
        table.add_row(
            name,
            f"{total.views:,}",
            f"{total.clicks:,}",
            f"{total.purchases:,}",
            money(total.spend, currency),
            f"{total.dwell_ms / 1000:,.0f} s",
        )
    return table


def _title(item: str, time_ms: int, catalogue: Catalogue) -> str:
    found = catalogue.at(item, time_ms)
    return visible(found[1].title) if found is not None else "(not in the catalogue)"


def _recent(state: UserState, catalogue: Catalogue, currency: str) -> Table:
    table = Table(title=f"last {RECENT_MAX} events, newest first", title_justify="left")
    for column in ("when", "event", "item", "title", "price"):
        table.add_column(column, justify="right" if column == "price" else "left")
    for token in list(tokens(state.history))[: -RECENT_MAX - 1 : -1]:
        title = _title(token.item, token.event_time_ms, catalogue)
        table.add_row(_when(token.event_time_ms), token.kind, visible(token.item), title, money(token.price, currency))
    return table


def _offers(state: UserState, currency: str) -> Table:
    table = Table(title="offers, newest last", title_justify="left")
    for column in ("item", "price", "list price", "until", ""):
        table.add_column(column, justify="right" if "price" in column else "left")
    for item, offer in state.offers.items():
        stands = offer.open and state.last_ms < offer.valid_until_ms
        prices = money(offer.price, currency), money(offer.list_price, currency)
        table.add_row(visible(item), *prices, _when(offer.valid_until_ms), "open" if stands else "ended")
    return table


def _nearest(
    title: str, measure: str, nearest: list[tuple[str, float]], catalogue: Catalogue, state: UserState
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("item")
    table.add_column("title")
    table.add_column(measure, justify="right")
    for item, score in nearest:
        table.add_row(visible(item), _title(item, state.last_ms, catalogue), f"{score:.3f}")
    return table
