"""Crash counts: three at one position isolate an event; they live in the data directory and end with their event."""

from __future__ import annotations

import pytest

from streams.crashes import FILE, TRACEBACK_CHARACTERS_MAX, CrashCounts

SOURCES = ("consents", "views")


def test_the_third_crash_at_one_position_isolates_it_also_across_restarts(tmp_path):
    for count in (1, 2, 3):
        assert CrashCounts(tmp_path, 3).isolated(SOURCES, 0) == {}
        assert CrashCounts(tmp_path, 3).add("views", 0, 17, f"traceback {count}") == count
    assert CrashCounts(tmp_path, 3).isolated(SOURCES, 0) == {(1, 17): "traceback 3"}


def test_crashes_at_different_positions_do_not_add_up(tmp_path):
    counts = CrashCounts(tmp_path, 3)
    for offset in (1, 2, 3):
        counts.add("views", 0, offset, "")
    assert counts.isolated(SOURCES, 0) == {}


def test_another_partition_and_another_topic_are_not_isolated(tmp_path):
    counts = CrashCounts(tmp_path, 1)
    counts.add("views", 1, 5, "")
    counts.add("clicks", 0, 5, "")
    assert counts.isolated(SOURCES, 0) == {}
    assert counts.isolated(SOURCES, 1) == {(1, 5): ""}


def test_a_sigkill_never_counts_because_only_an_exit_writes(tmp_path):
    counts = CrashCounts(tmp_path, 3)
    counts.isolated(SOURCES, 0)
    counts.forget(SOURCES, 0, (9, 9))
    assert list(tmp_path.iterdir()) == []


def test_a_count_ends_when_its_position_is_committed(tmp_path):
    counts = CrashCounts(tmp_path, 1)
    counts.add("views", 0, 17, "")
    counts.add("views", 0, 18, "")
    counts.forget(SOURCES, 0, (0, 18))
    assert CrashCounts(tmp_path, 1).isolated(SOURCES, 0) == {(1, 18): ""}


def test_a_traceback_is_kept_by_its_end(tmp_path):
    counts = CrashCounts(tmp_path, 1)
    counts.add("views", 0, 1, "x" * TRACEBACK_CHARACTERS_MAX + "the error")
    (text,) = counts.isolated(SOURCES, 0).values()
    assert text.endswith("the error")
    assert len(text) == TRACEBACK_CHARACTERS_MAX


def test_a_topic_name_may_hold_dots_and_dashes(tmp_path):
    counts = CrashCounts(tmp_path, 1)
    counts.add("shop.eu-views_1", 12, 5, "t")
    assert counts.isolated(("shop.eu-views_1",), 12) == {(0, 5): "t"}


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"views/0/1": 3}', '{"views/0/1": ["x", ""]}', "\0\0\0"])
def test_a_torn_file_does_not_keep_a_worker_from_starting(tmp_path, torn):
    (tmp_path / FILE).write_text(torn)
    counts = CrashCounts(tmp_path, 2)
    assert counts.isolated(SOURCES, 0) == {}
    assert counts.add("views", 0, 17, "") == 1
    assert CrashCounts(tmp_path, 2).add("views", 0, 17, "") == 2
