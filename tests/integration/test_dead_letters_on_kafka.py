"""Dead letters are listed with what to do, and originals go back where they came from."""

from __future__ import annotations

import base64

import msgspec
import pytest
from click.testing import CliRunner

from contracts.ids import partition_of
from contracts.intake import Inbound, refuse
from pricetide import command_line
from streams.broker import committed_records, producing
from streams.dead_letters import REPLAYED_FROM, dead_letter
from streams.topics import create_topics

ORIGINALS = [
    ("bad_field", b"user-1", b'{"price": -1}'),
    ("not_json", b"user-2", b"\xff\x00{"),
    ("null_value", b"user-3", None),
    ("key_mismatch", None, b'{"user": "u"}'),
    ("too_large", b"user-4", b"x" * 5_000),
]


@pytest.fixture
def settings(deploy):
    """A deployment with one dead letter of each kind, the last one cut, and a record that is none."""
    made = deploy()
    create_topics(made)
    with producing(made) as producer:
        for offset, (code, key, value) in enumerate(ORIGINALS):
            record = Inbound(-1, 1, offset, None, None, key, value, 1_572_566_400_000)
            key, value, headers = dead_letter(record, refuse(code, "why"), made.topics.views, 1, 1_024)
            producer.send(made.topics.dead_letters, value, key, headers=headers, partition=1).get(timeout=30)
        producer.send(made.topics.dead_letters, b"foreign", b"k", partition=0).get(timeout=30)
    return made


def run(settings, flags, *arguments: str) -> str:
    outcome = CliRunner().invoke(command_line, ["dlq", *arguments, *flags(settings)], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_list_says_where_what_and_what_to_do(settings, flags):
    table = " ".join(run(settings, flags, "list").split())
    assert "2019-11-01 00:00:00" in table
    assert all(code in table for code, _, _ in ORIGINALS)
    assert "5000 (cut)" in table


def test_list_as_json_holds_the_original_bytes(settings, flags):
    lines = run(settings, flags, "list", "--json", "--code", "not_json").splitlines()
    letter = msgspec.json.decode(lines[0])
    assert len(lines) == 1
    assert base64.b64decode(letter["value"]) == b"\xff\x00{"
    assert (letter["source"], letter["place"]) == (f"{settings.topics.views}/1/1", "1/1")


def test_replay_only_says_what_it_would_do_until_told(settings, flags):
    assert "would replay 1 dead letters" in run(settings, flags, "replay", "--code", "bad_field")
    assert list(committed_records(settings, [settings.topics.views])) == []


def test_replay_puts_original_bytes_back_under_their_keys_and_skips_what_was_cut(settings, flags):
    codes = [argument for code, _, _ in ORIGINALS for argument in ("--code", code)]
    assert "replayed 4 dead letters; 1 were cut" in run(settings, flags, "replay", "--yes", *codes)
    back = {record.headers[1][1]: record for record in committed_records(settings, [settings.topics.views])}
    for offset, (_, key, value) in enumerate(ORIGINALS[:4]):
        record = back[b"1/%d" % offset]
        assert (record.key, record.value) == (key, value)
        assert record.partition == (1 if key is None else partition_of(key, 2))
        assert record.headers[1][0] == REPLAYED_FROM


def test_a_letter_is_put_back_once_unless_it_is_asked_for_again(settings, flags):
    codes = ("--code", "bad_field", "--code", "not_json")
    assert "replayed 1 dead letters" in run(settings, flags, "replay", "--yes", "--code", "bad_field")
    assert "would replay 1 dead letters; 1 were replayed before" in run(settings, flags, "replay", *codes)
    assert "replayed 1 dead letters; 1 were replayed before" in run(settings, flags, "replay", "--yes", *codes)
    assert "replayed 0 dead letters; 2 were replayed before" in run(settings, flags, "replay", "--yes", *codes)
    assert len(list(committed_records(settings, [settings.topics.views]))) == 2
    assert "replayed 2 dead letters\n" in run(settings, flags, "replay", "--yes", "--again", *codes)
    assert len(list(committed_records(settings, [settings.topics.views]))) == 4
    assert len(run(settings, flags, "list", "--json").splitlines()) == len(ORIGINALS), "a mark is no letter"


def test_replay_selects_by_source_position(settings, flags):
    place = f"{settings.topics.views}/1/0"
    assert "replayed 1 dead letters" in run(settings, flags, "replay", "--yes", "--offset", place)
    assert [one.value for one in committed_records(settings, [settings.topics.views])] == [b'{"price": -1}']


def test_replay_of_everything_must_be_asked_for_by_code(settings, flags):
    outcome = CliRunner().invoke(command_line, ["dlq", "replay", "--yes", *flags(settings)])
    assert outcome.exit_code == 2
    assert "say which" in outcome.output
