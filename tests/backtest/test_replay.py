"""backtest.replay: what happens to crashes, leftovers and damage."""

from __future__ import annotations

from itertools import chain

import msgspec
import pytest
from msgspec.structs import replace

from backtest.replay import Replay
from contracts.decisions import Applied, decode_decision
from contracts.errors import BadInput
from contracts.ids import partition_of
from contracts.log import Addresses, catalogue_records, open_log, policy_records
from contracts.log_rows import AppliedRow, CatalogueRow, EventRow, PolicyRow
from contracts.log_writer import LogWriter
from contracts.semantics import Semantics, Topology
from pricing.run import Run

NOW = 1_700_000_000_000


def replayed(log, batch_max=64):
    """Return per partition the published prices, decisions and dead letters."""
    out = {}

    def publish(partition, step):
        prices, decisions, dead = out.setdefault(partition, ([], [], []))
        prices += step.prices
        decisions += step.decisions
        dead += step.dead

    replay = Replay(log, batch_max)
    replay.run(publish)
    return out, replay


def rewritten(source, directory, *, rows=None, applied=(), catalogue=None, manifest=None):
    log = open_log(source)
    with LogWriter(directory, manifest or log.manifest, "jsonl") as writer:
        writer.rows(list(log.rows()) if rows is None else rows)
        writer.catalogue(list(chain.from_iterable(log.catalogue())) if catalogue is None else catalogue)
        writer.policies(list(chain.from_iterable(log.policies())))
        if applied:
            writer.applied(applied)
    return open_log(directory)


def test_an_event_that_crashes_the_engine_is_dead_lettered_and_the_rest_goes_on(shop_log, monkeypatch):
    log = open_log(shop_log)
    good, _ = replayed(log)
    victim = decode_decision(good[0][1][100][1]).source
    apply = Run.apply

    def crash(self, inbound, *args):
        if log.manifest.topology.sources[inbound.source] == victim.topic and inbound.offset == victim.offset:
            raise ZeroDivisionError("one over nothing")
        return apply(self, inbound, *args)

    monkeypatch.setattr(Run, "apply", crash)
    found, _ = replayed(log)
    crashed = [error for _, error in found[0][2] if error.code == "crashed"]
    assert [error.message for error in crashed] == ["ZeroDivisionError: one over nothing"]
    outcomes = [record for _, value in found[0][1] if isinstance(record := decode_decision(value), Applied)]
    assert [record.source for record in outcomes if record.outcome == "dead_letter:crashed"] == [victim]
    assert sum(len(decisions) for _, decisions, _ in found.values()) == sum(len(d) for _, d, _ in good.values())


def test_rubbish_on_the_reference_topics_is_passed_over(shop_log, tmp_path):
    good = open_log(shop_log)
    items = [
        *chain.from_iterable(good.catalogue()),
        CatalogueRow(key=b"k", raw=b"rubbish"),
        CatalogueRow(key=b"rubbish"),
        replace(next(chain.from_iterable(good.catalogue())), currency="EUR"),
    ]
    log = rewritten(shop_log, tmp_path, catalogue=items)
    found, replay = replayed(log)
    assert replay.refused_references == 3
    assert decode_decision(found[0][1][-1][1]).catalogue_seen == good.manifest.tables["catalogue"].rows + 3


def applied_order(log):
    """The order in which a worker would have applied one partition's views only."""
    addresses = Addresses(log.manifest.topology)
    places = [addresses.of(row)[:3] for row in log.rows()]
    seen = len(list(policy_records(log))), len(list(catalogue_records(log)))
    views = [offset for source, partition, offset in places if (source, partition) == (1, 0)]
    return [AppliedRow(0, version, 1, offset, *seen) for version, offset in enumerate(views, 1)]


def test_records_that_the_live_worker_never_applied_are_counted(shop_log, tmp_path):
    log = open_log(shop_log)
    order = applied_order(log)[:50]
    _, replay = replayed(rewritten(shop_log, tmp_path, applied=order))
    assert replay.not_applied == sum(map(sum, log.manifest.records.values())) - 50


BROKEN_ORDERS = {
    "it starts in the middle": (lambda order: order[5:], "version 6 follows 0"),
    "a version is missing": (lambda order: order[:5] + order[6:], "version 7 follows 5"),
    "a record is missing": (lambda order: [replace(order[0], offset=3)], "offset 3 was applied next, the log has offset 0"),
    "the log ends too early": (lambda order: [*order, replace(order[-1], version=len(order) + 1)], "the log has none"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "says"), BROKEN_ORDERS.values(), ids=BROKEN_ORDERS)
def test_a_recorded_order_that_does_not_fit_its_log_is_a_sentence(shop_log, tmp_path, damage, says):
    order = applied_order(open_log(shop_log))
    log = rewritten(shop_log, tmp_path, applied=damage(order))
    with pytest.raises(BadInput, match=says):
        replayed(log)


def test_a_log_shorter_than_its_manifest_is_a_sentence(shop_log, tmp_path):
    log = rewritten(shop_log, tmp_path)
    lines = (tmp_path / "events.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_text("".join(lines[:-20]))
    with pytest.raises(BadInput, match="ends before its manifest's count"):
        replayed(open_log(log.directory, verify=False))


def test_a_topic_that_runs_far_behind_is_not_read_into_memory(tmp_path, shop_log):
    """Two partitions, thousands of views, one late purchase on partition 0: views wait in their file, not in a buffer."""
    from backtest.feed import Feed
    from contracts.log_files import ROWS_READ_MAX

    users = [next(u for u in map(str, range(99)) if partition_of(u.encode(), 2) == partition) for partition in (0, 1)]
    rows = [
        EventRow("view", event_id=f"e{n}", user=users[n % 2], item="i", event_time_ms=NOW + n, price=1, currency="USD",
                 arrival_ms=NOW + n)
        for n in range(6 * ROWS_READ_MAX)
    ]  # fmt: skip
    rows.append(msgspec.structs.replace(rows[-1], type="purchase", event_id="p", event_time_ms=NOW + 10**6))
    manifest = msgspec.structs.replace(open_log(shop_log).manifest, topology=Topology(partitions=2))
    log = rewritten(shop_log, tmp_path, rows=rows, manifest=manifest)
    assert min(log.manifest.records["views"]) > 0
    feed = Feed(log, tmp_path / "work", range(2))
    assert feed.pull(2, 0) == []
    first = feed.pull(1, 0)
    waiting = [len(queue) for queues in feed._waiting for queue in queues.values()]
    assert len(first) + sum(waiting) <= ROWS_READ_MAX


def test_an_empty_log_gives_nothing(tmp_path):
    from contracts.log import Manifest

    manifest = Manifest(
        semantics=Semantics(consent_default=True), topology=Topology(partitions=2), source="", offers="not_shown"
    )
    with LogWriter(tmp_path, manifest, "jsonl") as writer:
        writer.policies([PolicyRow(key=b"p/1")])
    found, replay = replayed(open_log(tmp_path))
    assert found == {}
    assert replay.not_applied == 0


def test_a_batch_of_nothing_is_refused(shop_log):
    with pytest.raises(BadInput, match="use at least 1"):
        Replay(open_log(shop_log), 0)
