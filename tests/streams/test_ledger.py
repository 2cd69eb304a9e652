"""The ledger agrees with group, log and settings before a partition is read; a fetch never goes back."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from contracts.errors import BadSettings
from streams.ledger import Ledger, PositionLedger, decode_ledger, encode_ledger, starting_point

EXPECTED = Ledger(epoch=3, partitions=4, sources=("views", "clicks"), positions=(), applied=0, watermark_ms=0)
STATE = replace(EXPECTED, positions=(100, 50), applied=150, watermark_ms=9)
BEGINNINGS, ENDS = (10, 0), (120, 50)


def start(ledger=STATE, expected=EXPECTED, group=(100, 50), beginnings=BEGINNINGS, ends=ENDS) -> Ledger:
    return starting_point(ledger, expected, group, beginnings, ends, "Partition 7")


def test_a_ledger_survives_its_bytes():
    assert decode_ledger(encode_ledger(STATE)) == STATE


def test_state_group_and_log_that_agree_go_on_where_the_state_ends():
    assert start() == STATE


def test_a_group_without_offsets_and_state_begins_where_each_log_begins():
    """The trap: aiokafka's seek_to_committed leaves a partition where it is when its committed offset is None or 0."""
    assert start(ledger=None, group=(None, None)) == replace(EXPECTED, positions=BEGINNINGS)


def test_a_state_has_the_lineage_that_it_began_with():
    begun = start(ledger=None, group=(None, None), expected=replace(EXPECTED, lineage="new"))
    assert begun.lineage == "new"
    assert start(ledger=replace(STATE, lineage="old"), expected=replace(EXPECTED, lineage="new")).lineage == "old"
    assert (
        start(ledger=replace(STATE, lineage="old"), expected=replace(EXPECTED, epoch=4, lineage="new")).lineage == "old"
    )


def test_a_ledger_of_an_earlier_release_is_read():
    assert decode_ledger(encode_ledger(STATE).replace(b',"lineage":""', b"")) == STATE


def test_a_committed_offset_of_zero_is_an_offset():
    state = replace(STATE, positions=(0, 0), applied=0)
    assert start(ledger=state, group=(0, 0), beginnings=(0, 0)) == state
    with pytest.raises(BadSettings, match="no state"):
        start(ledger=None, group=(0, None))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ledger": None}, "committed offsets .* but the changelog has no state. Restore the changelog"),
        ({"expected": replace(EXPECTED, partitions=8)}, r"built from .* with 4 partitions, the settings say .* with 8"),
        ({"expected": replace(EXPECTED, sources=("views", "taps"))}, "'clicks'.*'taps'"),
        ({"expected": replace(EXPECTED, epoch=2)}, "the state is of epoch 3, the settings say 2"),
        ({"ends": (99, 50)}, "views up to offset 100, the topic ends at 99: it was recreated. Raise semantics.epoch"),
        ({"beginnings": (101, 0)}, "next event of views is at offset 100, the topic begins at 101: retention"),
        ({"group": (0, 50)}, r"the group has committed \[0, 50\]: .* Run `pricetide offsets repair`"),
        ({"group": (None, None)}, "offsets repair"),
        (
            {"group": (100, None), "ends": (900, 900)},
            r"no offset of clicks any more, .*\. If the topic was recreated, raise semantics.epoch .*; "
            "if only its offsets were deleted, `pricetide offsets repair`",
        ),
        ({"group": (101, 50)}, "offsets repair"),
    ],
)
def test_what_does_not_agree_is_a_sentence_that_names_the_partition(changes, sentence):
    with pytest.raises(BadSettings, match="^Partition 7: .*" + sentence):
        start(**changes)


def test_a_raised_epoch_keeps_the_state_and_reads_the_new_topics_from_their_beginning():
    raised = replace(EXPECTED, epoch=4)
    assert start(expected=raised, ends=(5, 5)) == replace(STATE, epoch=4, positions=BEGINNINGS)


class Fetched(NamedTuple):
    offset: int


def records(*offsets: int) -> list[Fetched]:
    return [Fetched(offset) for offset in offsets]


def test_a_record_below_the_position_is_refused():
    positions = PositionLedger((5, 0))
    assert positions.accept(0, records(3, 4, 5, 6)) == records(5, 6)
    assert positions.accept(0, records(5, 6)) == []
    assert positions.positions == [7, 0]
    assert positions.dropped == 4


def test_a_hole_is_the_logs_affair():
    """Control records and compaction leave holes; nobody waits for what will never come."""
    positions = PositionLedger((5,))
    assert positions.accept(0, records(8, 9)) == records(8, 9)
    assert positions.positions == [10]
    assert positions.dropped == 0


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10)), max_size=12))
def test_whatever_fetches_come_offsets_pass_once_and_upwards(position, fetches):
    positions = PositionLedger((position,))
    passed = [
        one.offset for start, length in fetches for one in positions.accept(0, records(*range(start, start + length)))
    ]
    assert passed == sorted(set(passed))
    assert all(offset >= position for offset in passed)
