"""Stores that nobody has had open for long are removed, and no others."""

from __future__ import annotations

import os
from pathlib import Path

from rocksdict import Cache

from streams.stale_stores import STALE_AFTER_S, remove_stale
from streams.store import StateStore


def a_store(directory: Path, partition: int) -> float:
    """Make the store of a partition, and return when it was last written."""
    StateStore(directory / str(partition), Cache(1 << 20), 1 << 20).close()
    return max(path.stat().st_mtime for path in (directory / str(partition)).iterdir())


def test_a_store_is_removed_when_nobody_had_it_open_for_long_unless_it_is_held(tmp_path):
    for partition in (0, 1):
        written_s = a_store(tmp_path, partition)
    assert remove_stale(tmp_path, {0}, written_s + STALE_AFTER_S - 10) == []
    assert remove_stale(tmp_path, {0}, written_s + STALE_AFTER_S + 10) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_one_file_written_since_keeps_a_store(tmp_path):
    written_s = a_store(tmp_path, 3)
    os.utime(tmp_path / "3" / "LOG", (written_s + STALE_AFTER_S, written_s + STALE_AFTER_S))
    assert remove_stale(tmp_path, (), written_s + STALE_AFTER_S + 10) == []


def test_what_is_no_store_stays_and_a_missing_directory_is_none(tmp_path):
    (tmp_path / "notes").mkdir()
    os.utime(tmp_path / "notes", (0, 0))
    assert remove_stale(tmp_path, (), 4e9) == []
    assert remove_stale(tmp_path / "nowhere", (), 4e9) == []
