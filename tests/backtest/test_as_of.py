"""What arrived later is not known to an earlier decision; and a check that finds a replay in which it is."""

from __future__ import annotations

from itertools import chain

import msgspec
import pytest

from backtest.perturb import Perturbation, perturb_log
from backtest.replay import How, Replay
from backtest.shoppers import generate_log
from backtest.what_if import time_of
from contracts.decisions import decode_decision
from contracts.errors import BadInput
from contracts.log import Addresses, open_log, records
from contracts.log_rows import AppliedRow, CatalogueRow, PolicyRow
from contracts.log_writer import LogWriter
from contracts.policies import CurrentPolicy, FixedPrice, Policy, encode_policy
from contracts.semantics import Topology

CHEAP = Policy(name="cheap", number=1, rule=FixedPrice(multiplier_permille=800))


def written(log, directory, rows, catalogue, policies, applied=()):
    with LogWriter(directory, log.manifest, "jsonl") as writer:
        writer.rows(rows)
        writer.catalogue(catalogue)
        writer.policies(policies)
        if applied:
            writer.applied(applied)
    return open_log(directory)


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """Late and repeated events, and in the middle a repriced catalogue and another policy arrive."""
    folder = tmp_path_factory.mktemp("late")
    generate_log(folder / "shop", 50, 900, 4, Topology(partitions=2), "jsonl")
    perturb_log(folder / "shop", folder / "late", 2, Perturbation(late=0.1, duplicates=0.02, consents=0.05), "jsonl")
    log = open_log(folder / "late")
    rows = list(log.rows())
    middle = rows[len(rows) // 2].arrival_ms
    items = list(chain.from_iterable(log.catalogue()))
    repriced = [
        msgspec.structs.replace(row, valid_from_ms=log.manifest.first_ms + 1, list_price=row.list_price + 300,
                                ceiling=None, offset=None, arrival_ms=middle) for row in items[:20]
    ]  # fmt: skip
    published = [CHEAP, CurrentPolicy(name="cheap", number=1)]
    policies = [PolicyRow(record=encode_policy(one).decode(), arrival_ms=middle) for one in published]
    return written(log, folder / "log", rows, items + repriced, [*chain.from_iterable(log.policies()), *policies])


def known_by(log, directory, time_ms):
    """Write what of `log` had arrived by then, at the positions that it has there."""
    addresses = Addresses(log.manifest.topology)
    rows = [
        msgspec.structs.replace(row, partition=partition, offset=offset)
        for row in log.rows()
        for _, partition, offset, _ in [addresses.of(row)]
    ]
    kept = [row for row in rows if row.arrival_ms <= time_ms]
    items, policies = (
        [row for row in chain.from_iterable(table) if (row.arrival_ms or 0) <= time_ms]
        for table in (log.catalogue(), log.policies())
    )
    return written(log, directory, kept, items, policies)


def decisions_of(log, **how):
    found = {}
    Replay(log, how=How(**how)).run(lambda partition, step: found.setdefault(partition, []).extend(step.decisions))
    return found


def leaks(log, directory, replayed):
    """Return how many decisions on records that had arrived at some time change when what arrived later is taken away."""
    arrivals = {(log.manifest.topology.sources[r.source], r.partition, r.offset): r.arrival_ms for r in records(log)}
    times = sorted(set(arrivals.values()))
    whole, changed = replayed(open_log(log.directory)), 0
    for number, time_ms in enumerate(times[len(times) // 4 :: len(times) // 4]):
        part = replayed(known_by(log, directory / str(number), time_ms))
        for partition, published in whole.items():
            source_of = [decode_decision(value).source for _, value in published]
            then = [
                pair
                for pair, source in zip(published, source_of, strict=True)
                if arrivals[source.topic, source.partition, source.offset] <= time_ms
            ]
            changed += len(set(then) ^ set(part.get(partition, [])))
    return changed


def test_in_the_order_of_arrival_no_later_arrival_changes_an_earlier_decision(late, tmp_path):
    assert leaks(late, tmp_path, lambda log: decisions_of(log, order="arrival")) == 0


def test_the_same_in_batches_of_another_size(late):
    assert decisions_of(late, order="arrival") == decisions_of(late, order="arrival", batch_max=3)


LEAKS = {
    "events by their own time, late ones before what had been decided": lambda log: decisions_of(log, order="merged"),
    "catalogue and policies that are there before they arrive": lambda log: decisions_of(early(log), order="arrival"),
}


def early(log):
    tables = {name: [list(rows) for rows in getattr(log, name)()] for name in ("catalogue", "policies")}
    for name, chunks in tables.items():
        there = [[msgspec.structs.replace(row, arrival_ms=None) for row in rows] for rows in chunks]
        setattr(log, name, lambda there=there: iter(there))
    return log


@pytest.mark.parametrize("leaking", LEAKS.values(), ids=LEAKS)
def test_a_planted_leak_is_caught_by_the_same_check(late, tmp_path, leaking):
    assert leaks(late, tmp_path, leaking) > 0


@pytest.mark.parametrize("order", ["merged", "arrival"])
def test_a_cut_gives_what_a_log_that_ends_there_gives(late, tmp_path, order):
    times = sorted(row.arrival_ms for row in late.rows())
    for number, time_ms in enumerate((times[len(times) // 3], times[2 * len(times) // 3])):
        part = known_by(late, tmp_path / str(number), time_ms)
        replay = Replay(late, how=How(order=order, as_of=time_ms))
        found = {}
        replay.run(lambda partition, step, found=found: found.setdefault(partition, []).extend(step.decisions))
        assert found == decisions_of(part, order=order)
        assert replay.unknown + replay.not_applied > 0


def test_an_event_of_a_later_time_is_not_known_at_the_cut(late, tmp_path):
    rows = list(late.rows())
    at = next(n for n, row in enumerate(rows) if row.type == "view" and n > 300)
    time_ms = rows[at].arrival_ms
    rows[at] = msgspec.structs.replace(rows[at], event_time_ms=time_ms + 1)
    log = written(
        late, tmp_path, rows, list(chain.from_iterable(late.catalogue())), list(chain.from_iterable(late.policies()))
    )
    sources = [decode_decision(v).event_time_ms for pairs in decisions_of(log, as_of=time_ms).values() for _, v in pairs
               if b'"record":"decision"' in v]  # fmt: skip
    assert sources
    assert max(sources) <= time_ms


def test_a_recorded_log_ends_where_the_first_record_was_not_known(late, tmp_path):
    applied, addresses = [], Addresses(late.manifest.topology)
    arrival_of, versions = {}, [0, 0]
    for row in late.rows():
        source, partition, offset, _ = addresses.of(row)
        versions[partition] += 1
        arrival_of[partition, versions[partition]] = row.arrival_ms
        applied.append(AppliedRow(partition, versions[partition], source, offset, 2, 60))
    tables = [list(chain.from_iterable(table)) for table in (late.catalogue(), late.policies())]
    log = written(late, tmp_path, list(late.rows()), *tables, applied)
    times = sorted(arrival_of.values())
    time_ms = times[len(times) // 2]
    whole, part = decisions_of(log), decisions_of(log, as_of=time_ms)
    for partition, published in part.items():
        assert published == whole[partition][: len(published)]
        last = max(decode_decision(value).version for _, value in published)
        assert all(arrival_of[partition, version] <= time_ms for version in range(1, last + 1))
        assert arrival_of[partition, last + 1] > time_ms


def test_a_recorded_log_ends_where_a_policy_was_not_known(late, tmp_path):
    addresses = Addresses(late.manifest.topology)
    rows = [(row, *addresses.of(row)[:3]) for row in late.rows()]
    first = [one for one in rows if one[2] == 0][:40]
    policies = [
        PolicyRow(record=encode_policy(CHEAP).decode(), arrival_ms=10),
        PolicyRow(key=b"x/1", arrival_ms=1 << 50),
    ]
    applied = [AppliedRow(0, n, one[1], one[3], 1 if n <= 25 else 2, 0) for n, one in enumerate(first, 1)]
    items = [CatalogueRow(key=b"nothing")]
    log = written(late, tmp_path, list(late.rows()), items, policies, applied)
    assert len(decisions_of(log)[0]) >= 40
    assert max(decode_decision(value).version for _, value in decisions_of(log, as_of=1 << 49)[0]) == 25


def test_a_cut_before_the_catalogue_is_a_sentence(late, tmp_path):
    items = [msgspec.structs.replace(row, arrival_ms=5_000) for row in chain.from_iterable(late.catalogue())]
    log = written(late, tmp_path, list(late.rows()), items, [])
    with pytest.raises(BadInput, match="nothing of the catalogue had arrived"):
        Replay(log, how=How(as_of=4_000))


def test_times_are_read_as_people_write_them():
    assert time_of("1970-01-01T00:00:05") == time_of("5000") == time_of("1970-01-01T01:00:05+01:00") == 5_000
    with pytest.raises(BadInput, match="'soon' is no time"):
        time_of("soon")
    for late in ("1574300000000000", "2100-01-02T00:00:00", "9" * 400):
        with pytest.raises(BadInput, match="after the year 2099, as no event can be"):
            time_of(late)
