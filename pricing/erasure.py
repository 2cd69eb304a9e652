"""Erasure: what is left of a user who asked to be forgotten, and how it is kept. Pure.

A consent with `erase` is applied like any record: open offers go back to list price, the user's state and pending draws
go with the batch, and in their place stays an `Erasure` under a hash of the user id. It is the denial of consent, which must
outlive the state, or silence would turn it into the default; and it is the order to the partition's owner to take back what
was published of the user up to `version`. Not here: what a record of the input leads to (pricing.run, pricing.verdicts),
carrying the order out (streams.eraser).
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from contracts.errors import BadSettings, BrokenInvariant
from contracts.ids import user_hash
from features.state import UserState

SCHEMA = 1
PREFIX = b"\xff\xff\x01"
"""User ids are UTF-8, which never has 0xff: no user can collide with an erasure; pending draws have another prefix."""

OUTCOME = "erasure"
"""Of the applied record (contracts.decisions), which names no user."""


class Erasure(Struct, frozen=True, array_like=True, tag=SCHEMA, gc=False):
    """What is kept of an erased user. Rule: another layout is a new SCHEMA, the first element of the array."""

    version: int
    """The partition's count of applied records with the request: what the user did up to it is to be forgotten."""
    denied_ms: int
    """Event time of the request: since then the user has not agreed to personal prices."""
    done: bool = False
    """What was published has been taken back."""


def erasure_key(user: bytes) -> bytes:
    """Return the key under which the erasure of the user with record key `user` is kept."""
    return PREFIX + user_hash(user)


encode_erasure = msgspec.msgpack.Encoder().encode
"""Erasure -> bytes; equal ones give equal bytes."""
_decode = msgspec.msgpack.Decoder(Erasure).decode
_SCHEMA = bytes([SCHEMA])


def decode_erasure(value: bytes) -> Erasure:
    """Return the erasure that `value`, bytes of `encode_erasure`, holds.

    Raises:
        BadSettings: the bytes have a schema that this release does not know.
        BrokenInvariant: the bytes are no erasure.
    """
    try:
        return _decode(value)
    except msgspec.DecodeError as error:
        if value[1:2] > _SCHEMA:  # behind the length of the array
            raise BadSettings(
                f"A stored erasure has schema {value[1]}, this release reads {SCHEMA}: it was written by a newer "
                "pricetide; run that release, or one after it, on this data directory and changelog"
            ) from None
        raise BrokenInvariant(
            f"A stored erasure of {len(value)} bytes cannot be read ({error}): wipe the data directory to restore "
            "from the changelog, and report the bytes if that does not help"
        ) from error


def state_of_nobody(value: bytes | None) -> UserState:
    """Return the state of a user of whom no state is kept; `value` holds their erasure, None if there was none."""
    if value is None:
        return UserState()
    return UserState(consent=False, consent_ms=decode_erasure(value).denied_ms)
