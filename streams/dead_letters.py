"""Dead letters: the original record, untouched, and headers that say where it stood, what is wrong, and what to do.

Keyed [user, topic/partition/offset], so that a person can be erased: the user is the one that the original's key names, or
without a key its value; "" where neither does. Pure: making one for the worker's transaction, reading one back for people.
Not here: refusing records (contracts.intake), listing and replaying (streams.dead_letter_commands).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from contracts.errors import UNREADABLE, BadEvent
from contracts.intake import Inbound
from contracts.prices import SCHEMA_VERSION

TOPIC = "dlq-topic"
PARTITION = "dlq-partition"
OFFSET = "dlq-offset"
ARRIVAL_MS = "dlq-arrival-ms"
CODE = "dlq-code"
MESSAGE = "dlq-message"
REMEDY = "dlq-remedy"
DIGEST = "dlq-digest"
"""sha256 of the full original value, hexadecimal."""
TRUNCATED = "dlq-truncated"
"""Length of the original value, if it was cut."""
KEY = "dlq-key"
"""The original key, if there was one."""
KEY_TRUNCATED = "dlq-key-truncated"
"""Length of the original key, if it was cut."""
NULL = "dlq-null"
"""`1` if the original had no value; the dead letter's is empty then, because a null would read as a deletion."""
TRACEBACK = "dlq-traceback"
REPLAYED_FROM = "dlq-replayed-from"
"""On a record that `dlq replay` put back: where its dead letter stands."""
REPLAYED = "dlq-replayed"
"""On a record that is no letter but says of one that it was put back: where that stands."""
SCHEMA = "schema-version"

KEY_BYTES_MAX = 4_096
USER_BYTES_MAX = 512
"""A user id has at most 128 characters (contracts.events); a longer key names nobody."""
MESSAGE_CHARACTERS_MAX = 1_000
TRACEBACK_CHARACTERS_MAX = 8_000

Headers = list[tuple[str, bytes]]


class _Named(Struct, gc=False):
    user: str = ""


_read_named = msgspec.json.Decoder(_Named).decode
_to_json = msgspec.json.Encoder().encode


def _user_of(key: bytes | None, value: bytes) -> str:
    """Return whom a record that is no event is about, as far as it says; "" for nobody."""
    try:
        if key is None:
            return _read_named(value).user
        return key.decode() if len(key) <= USER_BYTES_MAX else ""
    except UNREADABLE:
        return ""


def _letter_key(user: str, topic: str, partition: int, offset: int) -> bytes:
    return _to_json((user, f"{topic}/{partition}/{offset}"))


def dead_letter(
    inbound: Inbound, error: BadEvent, topic: str, partition: int, bytes_max: int, *, traceback: str = ""
) -> tuple[bytes, bytes, Headers]:
    """Return (key, value, headers) of the dead letter of `inbound`.

    Args:
        inbound: the record as it came.
        error: why it cannot be applied.
        topic: the source topic's name.
        partition: of the source.
        bytes_max: most bytes of both keys and the value together; more is cut off, and the headers say so.
        traceback: of an event that crashed the engine.
    """
    value = inbound.value if inbound.value is not None else b""
    key = inbound.key[:KEY_BYTES_MAX] if inbound.key is not None else None
    user = _user_of(inbound.key, value)
    letter_key = _letter_key(user if len(user.encode()) <= USER_BYTES_MAX else "", topic, partition, inbound.offset)
    room = max(0, bytes_max - len(letter_key) - len(key or b""))
    headers: list[tuple[str, str]] = [
        (TOPIC, topic),
        (PARTITION, str(partition)),
        (OFFSET, str(inbound.offset)),
        (ARRIVAL_MS, str(inbound.arrival_ms)),
        (CODE, error.code),
        (MESSAGE, error.message[:MESSAGE_CHARACTERS_MAX]),
        (REMEDY, error.remedy),
        (DIGEST, hashlib.sha256(value).hexdigest()),
    ]
    if len(value) > room:
        headers.append((TRUNCATED, str(len(value))))
    if inbound.key is not None and len(inbound.key) > KEY_BYTES_MAX:
        headers.append((KEY_TRUNCATED, str(len(inbound.key))))
    if inbound.value is None:
        headers.append((NULL, "1"))
    if traceback:
        headers.append((TRACEBACK, traceback[-TRACEBACK_CHARACTERS_MAX:]))
    headers.append((SCHEMA, SCHEMA_VERSION))
    # an error may quote half a character of what it refused
    encoded = [(name, text.encode("utf-8", "backslashreplace")) for name, text in headers]
    return letter_key, value[:room], encoded if key is None else [*encoded, (KEY, key)]


def replay_mark(place: str) -> tuple[bytes, bytes, Headers]:
    """Return (key, value, headers) of the record that says that the letter at `place` of the topic was put back.

    A record of its own: the letter stays what it was, and stays to be read.
    """
    return _to_json(("", f"{REPLAYED}/{place}")), b"", [(REPLAYED, place.encode()), (SCHEMA, SCHEMA_VERSION.encode())]


def replayed_place(headers: Sequence[tuple[str, bytes]]) -> str | None:
    """Return where the letter stands that a record says was put back; None for any other record."""
    place = dict(headers).get(REPLAYED)
    return None if place is None else place.decode(errors="replace")


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter as read back. `partition` and `offset` are the source's, `place` is its own on the dead-letter topic."""

    topic: str
    partition: int
    offset: int
    arrival_ms: int
    code: str
    message: str
    remedy: str
    digest: str
    key: bytes | None
    value: bytes | None
    """Up to the cut, if it was cut."""
    length: int
    """Bytes of the original value."""
    truncated: bool
    """Key or value was cut: it cannot be replayed."""
    traceback: str
    place: str
    """`partition/offset` on the dead-letter topic."""

    @property
    def source(self) -> str:
        """Where the original stood: `topic/partition/offset`."""
        return f"{self.topic}/{self.partition}/{self.offset}"


def read_dead_letter(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]], place: str
) -> DeadLetter | None:
    """Return the dead letter that a record of the topic holds, or None for a record that is none of ours."""
    texts = {name: content.decode("utf-8", "replace") for name, content in headers if content is not None}
    try:
        return DeadLetter(
            topic=texts[TOPIC],
            partition=int(texts[PARTITION]),
            offset=int(texts[OFFSET]),
            arrival_ms=int(texts[ARRIVAL_MS]),
            code=texts[CODE],
            message=texts[MESSAGE],
            remedy=texts[REMEDY],
            digest=texts[DIGEST],
            key=_original_key(key, headers, texts),
            value=None if NULL in texts else value or b"",
            length=int(texts.get(TRUNCATED, len(value or b""))),
            truncated=TRUNCATED in texts or KEY_TRUNCATED in texts,
            traceback=texts.get(TRACEBACK, ""),
            place=place,
        )
    except (KeyError, ValueError):
        return None


def _original_key(key: bytes | None, headers: Sequence[tuple[str, bytes]], texts: dict[str, str]) -> bytes | None:
    """Return the key of the original; letters of earlier releases have it as their own."""
    try:
        _, place = msgspec.json.decode(key or b"", type=tuple[str, str])
    except UNREADABLE:
        return key
    if place != f"{texts[TOPIC]}/{texts[PARTITION]}/{texts[OFFSET]}":
        return key
    return dict(headers).get(KEY)
