"""The digest of price updates (or of decisions): two runs published the same if and only if their digests are equal.

Canonical order: users ascending by the UTF-8 bytes of their id; a user's records by ascending (version, item), which is
the order in which they were published. With len(x) as 4 bytes, big endian:

    user digest = sha256 of, per record: len(key) key len(value) value
    digest      = sha256 of, per user:   len(user) user user digest

Decisions on records without a user (dead letters) stand under the byte 0xff and their partition, which no user id has.
So records stream in as they were published, partitions in any interleaving, and memory is bounded by the users, not by
the records. A user's records out of order, or one of them twice, are an error and not a different digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from contracts.errors import BadInput

UserDigest = tuple[bytes, bytes]
"""A user, or what stands for none, and the digest of all their records."""


class _Place(Struct, gc=False):
    """What orders a price update or a decision; other fields are ignored. Dead letters have no user, many records no item."""

    version: int
    user: str | None = None
    item: str = ""
    source: tuple[str, int, int] = ("", 0, 0)


_place = msgspec.json.Decoder(_Place).decode


class PublishedDigest:
    """Takes published records in order, and gives their digest."""

    def __init__(self) -> None:
        self.records = 0
        self._users: dict[bytes, tuple[int, str, hashlib._Hash]] = {}

    def add(self, key: bytes, value: bytes) -> None:
        """Take the next record.

        Raises:
            BadInput: it is no record of ours, or does not follow the user's last one.
        """
        try:
            place = _place(value)
        except msgspec.DecodeError as error:
            raise BadInput(
                f"A record that is neither a price update nor a decision ({error}): {value[:80]!r}"
            ) from None
        user = place.user.encode() if place.user else b"\xff%d" % place.source[1]
        known = self._users.get(user)
        if known is None:
            running = hashlib.sha256()
        else:
            version, item, running = known
            if (place.version, place.item) <= (version, item):
                raise BadInput(
                    f"User {place.user!r}: version {place.version} of item {place.item!r} comes after version {version} of "
                    f"{item!r}. A digest needs every record once, in the order of publication"
                )
        self._users[user] = (place.version, place.item, running)
        running.update(b"%b%b%b%b" % (len(key).to_bytes(4, "big"), key, len(value).to_bytes(4, "big"), value))
        self.records += 1

    def users(self) -> list[UserDigest]:
        """Return the digest of every user, in canonical order."""
        return [(user, self._users[user][2].digest()) for user in sorted(self._users)]

    def hexdigest(self) -> str:
        """Return the digest of what was taken, 64 hexadecimal characters."""
        return digest_of_users(self.users())


def digest_of_users(users: Iterable[UserDigest]) -> str:
    """Return the digest of all that `users` published, who come in canonical order, each once."""
    total = hashlib.sha256()
    for user, digest in users:
        total.update(len(user).to_bytes(4, "big") + user + digest)
    return total.hexdigest()
