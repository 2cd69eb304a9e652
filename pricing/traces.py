"""Traces: under which keys something was published of users who asked to be forgotten. Pure.

Outputs are keyed [user, ...] so that a key without a value takes a record back (contracts.prices, decisions, outcomes). A
worker does not know its users' keys: it finds them by reading what its partition has published. Not here: reading it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from contracts.errors import UNREADABLE
from pricing.erasure import Erasure, erasure_key


class _Versioned(Struct, gc=False):
    """What tells a record of before the erasure. Purchases that reward no draw, and dead letters, have no version, and count as
    before.
    """

    version: int = 0


_read_key = msgspec.json.Decoder(tuple[str, str]).decode
_read_version = msgspec.json.Decoder(_Versioned).decode


class Traces:
    """The keys to take back, by topic; bounded by what was published of these users."""

    def __init__(self, erasures: Mapping[bytes, Erasure]) -> None:
        """Begin with none.

        Args:
            erasures: by their keys (pricing.erasure.erasure_key).
        """
        self._erasures = erasures
        self.keys: defaultdict[str, dict[bytes, None]] = defaultdict(dict)

    def see(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Look at the next record of a topic, in its order; foreign ones are passed over.

        The last record of a key decides: one of after the erasure stays, and so it takes those before it back by itself.
        """
        erasure = self._erasure_of(key)
        if erasure is None or key is None:
            return
        if value is not None and version_of(value) <= erasure.version:
            self.keys[topic][key] = None
        else:
            self.keys[topic].pop(key, None)

    def _erasure_of(self, key: bytes | None) -> Erasure | None:
        try:
            user, _ = _read_key(key or b"")
        except UNREADABLE:
            return None
        return self._erasures.get(erasure_key(user.encode("utf-8", "surrogatepass")))


def version_of(value: bytes) -> int:
    """Return the `version` of a published record, 0 of one without."""
    try:
        return _read_version(value).version
    except UNREADABLE:
        return 0
