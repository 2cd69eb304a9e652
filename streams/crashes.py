"""Crash counts: which events have crashed this worker, kept in the data directory as it exits.

An event that raises three times at the same position is a poison message that decoding did not catch: it is isolated to
the dead letters with its traceback, and the stream goes on. A SIGKILL writes nothing here and so never counts.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

logger = logging.getLogger(__name__)

FILE = "crashes.json"
TRACEBACK_CHARACTERS_MAX = 8_000


class CrashCounts:
    """Counts of crashes by source position, on disk."""

    def __init__(self, data_dir: Path, crashes_max: int) -> None:
        self._path = data_dir / FILE
        self._crashes_max = crashes_max
        self._counts: dict[str, tuple[int, str]] = {}
        if self._path.exists():
            self._counts = self._read()

    def _read(self) -> dict[str, tuple[int, str]]:
        """Return what the file says, nothing if a power cut has left it torn: three more crashes isolate an event again."""
        try:
            told = json.loads(self._path.read_text())
            return {key: (int(count), str(text)) for key, (count, text) in told.items()}
        except (ValueError, TypeError, AttributeError) as error:
            logger.warning("%s is damaged (%s): crashes are counted anew", self._path, error)
            return {}

    def add(self, topic: str, partition: int, offset: int, traceback: str) -> int:
        """Count one more crash of the event at this position, write, and return the count."""
        key = f"{topic}/{partition}/{offset}"
        count = self._counts.get(key, (0, ""))[0] + 1
        self._counts[key] = (count, traceback[-TRACEBACK_CHARACTERS_MAX:])
        self._write()
        return count

    def isolated(self, sources: tuple[str, ...], partition: int) -> dict[tuple[int, int], str]:
        """Return the isolated positions of `partition`: (source, offset) -> traceback."""
        found: dict[tuple[int, int], str] = {}
        for key, (count, traceback) in self._counts.items():
            topic, place, offset = key.rsplit("/", 2)
            if count >= self._crashes_max and int(place) == partition and topic in sources:
                found[sources.index(topic), int(offset)] = traceback
        return found

    def forget(self, sources: tuple[str, ...], partition: int, positions: tuple[int, ...]) -> None:
        """Drop the counts of positions that are committed."""
        done = [
            key
            for key in self._counts
            for topic, place, offset in [key.rsplit("/", 2)]
            if int(place) == partition and topic in sources and int(offset) < positions[sources.index(topic)]
        ]
        for key in done:
            del self._counts[key]
        if done:
            self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._counts))
        temporary.replace(self._path)
