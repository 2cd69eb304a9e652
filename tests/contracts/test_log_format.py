"""contracts.log: what is written is read again, rows become the records that Kafka would hold, damage is noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from contracts.catalogue import decode_item
from contracts.errors import BadInput
from contracts.events import decode_event
from contracts.ids import partition_of
from contracts.log import Addresses, Manifest, catalogue_records, open_log, policy_records, record_chunks, records
from contracts.log_files import ROWS_READ_MAX
from contracts.log_rows import AppliedRow, CatalogueRow, EventRow, PolicyRow
from contracts.log_writer import LogWriter
from contracts.policies import BUILTIN, encode_policy
from contracts.semantics import Semantics, Topology

NOW = 1_700_000_000_000
FORMATS = ["parquet", "jsonl"]
ROWS = [
    EventRow("consent", user="u1", granted=True, event_time_ms=NOW, arrival_ms=NOW),
    EventRow(
        "view", event_id="e1", user="u1", item="i", event_time_ms=NOW, price=100, currency="USD", query="größe",
        dwell_ms=0, arrival_ms=NOW,
    ),
    EventRow("click", event_id="e2", user="u2", item="i", event_time_ms=NOW, price=0, currency="USD", arrival_ms=NOW + 1),
    EventRow("view", key=b"u3", raw=b'{"type": "vi\xff', arrival_ms=NOW + 2),
    EventRow("view", event_id="e4", user="u1", item="i", event_time_ms=NOW, price=1, currency="USD", arrival_ms=NOW + 3),
    EventRow("purchase", event_id="e5", user="u1", item="i", event_time_ms=NOW, price=1, currency="USD", quantity=2,
             arrival_ms=NOW + 3),
    EventRow("view", partition=1, offset=9, key=b"u1", arrival_ms=NOW + 4),
]  # fmt: skip
ITEM = CatalogueRow(
    item="i", valid_from_ms=5, title="t", category="c", brand="", currency="USD", list_price=100, cost=60
)


def manifest(**topology):
    return Manifest(
        semantics=Semantics(consent_default=False),
        topology=Topology(partitions=3, **topology),
        source="a test",
        offers="not_shown",
    )


def written(directory: Path, file_format="parquet", rows=ROWS, **topology):
    with LogWriter(directory, manifest(**topology), file_format) as writer:
        writer.rows(rows)
        writer.catalogue([ITEM, CatalogueRow(key=b'["i",5]'), CatalogueRow(raw=b"broken", offset=7, key=b"k")])
        writer.policies([PolicyRow(record=encode_policy(BUILTIN).decode()), PolicyRow(record="{}", key=b"x")])
    return open_log(directory)


@pytest.mark.parametrize("file_format", FORMATS)
def test_rows_come_back_in_production_order(tmp_path, file_format):
    log = written(tmp_path, file_format)
    assert list(log.rows()) == ROWS
    assert not log.recorded


@pytest.mark.parametrize("file_format", FORMATS)
def test_rows_become_the_records_that_kafka_would_hold(tmp_path, file_format):
    found = list(records(written(tmp_path, file_format)))
    u1, u2, u3 = (partition_of(key, 3) for key in (b"u1", b"u2", b"u3"))
    assert [(r.source, r.partition, r.offset, r.key) for r in found] == [
        (0, u1, 0, b"u1"), (1, u1, 0, b"u1"), (2, u2, 0, b"u2"), (1, u3, int(u3 == u1), b"u3"),
        (1, u1, 1 + (u3 == u1), b"u1"), (3, u1, 0, b"u1"), (1, 1, 9, b"u1"),
    ]  # fmt: skip
    assert [r.arrival_ms for r in found] == [row.arrival_ms for row in ROWS]
    assert decode_event(found[1].value).query == "größe"
    assert json.loads(found[2].value)["price"] == 0, "a price of zero is for the worker to refuse, not for the log"
    assert found[3].value == b'{"type": "vi\xff'
    assert decode_event(found[5].value).quantity == 2
    assert found[6].value is None


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize(
    "topology", [{}, {"clicks": "views"}, dict.fromkeys(["consents", "views", "clicks", "purchases"], "all")]
)
def test_a_topic_streams_alone_as_it_does_among_all(tmp_path, file_format, topology):
    log = written(tmp_path, file_format, **topology)
    together = list(records(log))
    for source in range(len(log.manifest.topology.sources)):
        addresses = Addresses(log.manifest.topology)
        alone = [record for chunk in record_chunks(log, source, addresses) for record in chunk]
        assert alone == [record for record in together if record.source == source]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("topology", [{}, {"views": "consents"}])
def test_an_erasure_keeps_its_meaning_and_other_consents_their_bytes(tmp_path, file_format, topology):
    erasure = EventRow("consent", user="u2", granted=False, erase=True, event_time_ms=NOW, arrival_ms=NOW)
    log = written(tmp_path, file_format, [ROWS[0], erasure], **topology)
    plain, asked = records(log)
    assert plain.value == b'{"type":"consent","user":"u1","granted":true,"event_time_ms":%d}' % NOW
    assert decode_event(asked.value).erase


def test_the_manifest_counts_records_by_topic_and_partition(tmp_path):
    log = written(tmp_path)
    counted = Counter((record.source, record.partition) for record in records(log))
    for source, topic in enumerate(log.manifest.topology.sources):
        assert log.manifest.records[topic] == [counted[source, partition] for partition in range(3)]
    assert (log.manifest.first_ms, log.manifest.last_ms) == (NOW, NOW)


@pytest.mark.parametrize("file_format", FORMATS)
def test_catalogue_and_policies_keep_offsets_keys_removals_and_rubbish(tmp_path, file_format):
    log = written(tmp_path, file_format)
    item, removal, broken = catalogue_records(log)
    assert (item.offset, item.key) == (0, b'["i",5]')
    assert decode_item(item.value).cost == 60
    assert (removal.offset, removal.key, removal.value) == (1, b'["i",5]', None)
    assert (broken.offset, broken.key, broken.value) == (7, b"k", b"broken")
    policy, other = policy_records(log)
    assert (policy.offset, policy.key, policy.value) == (0, b"builtin/1", encode_policy(BUILTIN))
    assert (other.offset, other.key, other.value) == (1, b"x", b"{}")


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_applied_order_of_a_recorded_log_comes_back(tmp_path, file_format):
    rows = [AppliedRow(0, 1, 2, 0, 0, 4), AppliedRow(0, 2, 1, 0, 1, 4, "dead_letter:future")]
    with LogWriter(tmp_path, manifest(), file_format) as writer:
        writer.applied(rows)
    log = open_log(tmp_path)
    assert log.recorded
    assert [row for chunk in log.applied() for row in chunk] == rows


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_long_log_streams_in_chunks(tmp_path, file_format):
    many = [EventRow("view", user=f"u{n}", event_id=f"e{n}", arrival_ms=n) for n in range(2 * ROWS_READ_MAX + 5)]
    log = written(tmp_path, file_format, rows=many)
    sizes = [len(chunk) for chunk in log.events()]
    assert max(sizes) <= ROWS_READ_MAX
    assert sum(sizes) == len(many)
    assert list(log.rows()) == many


def test_json_lines_need_no_pyarrow(tmp_path):
    script = f"""
import sys
sys.modules["pyarrow"] = None
from pathlib import Path
from tests_log import written
log = written(Path({str(tmp_path)!r}), "jsonl")
from contracts.log import records
print(len(list(records(log))))
"""
    (tmp_path / "tests_log.py").write_text(Path(__file__).read_text())
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False,
        env={"PYTHONPATH": f"{tmp_path}:."},
    )  # fmt: skip
    assert done.stdout.strip() == str(len(ROWS)), done.stderr


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadInput, match=r"need pyarrow: pip install 'pricetide\[log\]'"):
        LogWriter(tmp_path, manifest())


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


DAMAGE = {
    "a table is missing": (lambda d: (d / "events.parquet").unlink(), "events.parquet is missing"),
    "a table was truncated": (lambda d: truncate(d / "events.parquet"), "sha256 differs"),
    "the manifest is missing": (lambda d: (d / "manifest.json").unlink(), "is no log, or its writer was interrupted"),
    "the manifest is no JSON": (lambda d: (d / "manifest.json").write_text("{"), "is no manifest"),
    "another format": (
        lambda d: (d / "manifest.json").write_text('{"format": 99}'),
        "has format 99, this pricetide reads 1",
    ),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_a_sentence(tmp_path, damage, says):
    written(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadInput, match=says):
        open_log(tmp_path)


def test_a_truncated_table_is_a_sentence_also_when_nobody_verified(tmp_path):
    written(tmp_path)
    truncate(tmp_path / "events.parquet")
    log = open_log(tmp_path, verify=False)
    with pytest.raises(BadInput, match=r"events\.parquet is damaged or no Parquet file"):
        list(log.events())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"type": "view", "price": "x"}', r"Expected `int \| null`, got `str`"),
        ('{"type": "view", "more": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion"),
    ],
    ids=["another type", "brackets within brackets"],
)
def test_a_broken_line_is_named(tmp_path, line, says):
    written(tmp_path, "jsonl")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(BadInput, match=rf"events\.jsonl, line 7: .*{says}"):
        list(open_log(tmp_path, verify=False).events())


def test_an_interrupted_writer_leaves_no_log(tmp_path):
    with pytest.raises(KeyboardInterrupt), LogWriter(tmp_path, manifest()) as writer:
        writer.rows(ROWS)
        raise KeyboardInterrupt
    with pytest.raises(BadInput, match="interrupted"):
        open_log(tmp_path)


def test_a_log_is_never_overwritten(tmp_path):
    written(tmp_path)
    with pytest.raises(BadInput, match="holds a log already"):
        LogWriter(tmp_path, manifest())


@pytest.mark.parametrize(
    ("row", "says"),
    [(EventRow("stare", user="u"), "type 'stare'"), (EventRow("view", user="u", partition=3), "on partition 3")],
)
def test_rows_that_belong_to_no_topic_are_refused_when_written(tmp_path, row, says):
    with pytest.raises(BadInput, match=says), LogWriter(tmp_path, manifest(), "jsonl") as writer:
        writer.rows([row])
