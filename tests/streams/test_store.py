"""The state store: atomic with its changelog offset, explicit in its options, honest about locks."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rocksdict import Cache

from contracts.errors import BadSettings
from pricing.erasure import erasure_key
from pricing.timers import key_of
from streams.ledger import LEDGER_KEY
from streams.store import OPEN_FILES_MAX, StateStore, is_of_the_disk

HEAD = b"\x01"
ANN = b"zq-Ann-7f3d2b"


def state(last_ms: int, sequence: int = 1, padding: int = 0) -> bytes:
    return HEAD + msgspec.msgpack.encode([sequence, last_ms, b"p" * padding])


@pytest.fixture
def store(tmp_path):
    opened = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    yield opened
    opened.close()


def test_values_and_the_changelog_offset_change_together_and_survive_reopening(tmp_path):
    store = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    assert store.changelog_offset == -1
    store.write([(b"ann", b"1"), (b"bob", b"2"), (LEDGER_KEY, b"{}")], 7)
    store.write([(b"ann", None), (b"bob", b"3")], 9)
    store.close()
    again = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    assert (again.get(b"ann"), again.get(b"bob"), again.ledger, again.changelog_offset) == (None, b"3", b"{}", 9)
    again.close()


def test_the_walk_over_users_finds_every_expired_one_and_no_reserved_key(store):
    store.write([(f"u{n:02d}".encode(), state(n)) for n in range(20)] + [(LEDGER_KEY, b"{}")], 1)
    found = {key for _ in range(4) for key, _ in store.expired(before_ms=10, limit=7)}
    assert found == {f"u{n:02d}".encode() for n in range(10)}
    assert store.users() == 20


def test_pending_draws_are_no_users_and_give_their_timers_in_the_order_of_resolution(store):
    timers = [(1_000, 300), (1_000, 7), (5, 256), (1 << 40, 1)]
    keys = [key_of(timer) for timer in timers]
    store.write([(key, b"a pending draw") for key in keys] + [(b"ann", state(0)), (LEDGER_KEY, b"{}")], 1)
    assert list(store.timers()) == sorted(timers)
    assert [key for key, _ in store.expired(before_ms=10, limit=100)] == [b"ann"]
    assert store.expired(before_ms=10, limit=100)
    assert store.users() == 1
    store.write([(keys[0], None)], 2)
    assert list(store.timers()) == sorted(timers[1:])


def test_what_an_expired_state_left_behind_is_not_found_again(store):
    store.write([(b"ann", state(0, sequence=0))], 1)
    assert store.expired(before_ms=10, limit=10) == []


async def test_a_store_that_erased_somebody_holds_them_in_no_file_when_it_is_purged(store, tmp_path):
    def files() -> list[str]:
        while True:
            try:
                return [path.name for path in (tmp_path / "0").iterdir() if ANN in path.read_bytes()]
            except FileNotFoundError:
                pass  # RocksDB flushes beside us: what a vanished log held is in a table that this listing may lack

    for n in range(0, 400, 100):
        store.write([(b"u%03d" % m, os.urandom(10_000)) for m in range(n, n + 100)] + [(ANN, b"of " + ANN)], n)
    store.write([(ANN, None)], 500)
    assert not store.to_purge, "an expired state is nobody's wish"
    assert files(), "what is deleted is still on disk"
    erasure = erasure_key(ANN)
    store.write([(erasure, b"an erasure")], 501)
    assert store.to_purge
    await store.purge()
    assert (files(), store.to_purge) == ([], False)
    assert (store.erasures(), store.changelog_offset) == ({erasure: b"an erasure"}, 501)
    assert len(store.get(b"u399")) == 10_000


async def test_an_erasure_during_a_purge_is_purged_by_the_next_one(store):
    store.write([(erasure_key(ANN), b"1"), *((b"u%03d" % n, os.urandom(10_000)) for n in range(300))], 1)
    purging = asyncio.create_task(store.purge())
    await asyncio.sleep(0)
    store.write([(erasure_key(b"bob"), b"2")], 2)
    await purging
    assert store.to_purge


async def test_a_purge_that_is_cut_off_is_asked_for_again_and_the_store_can_be_closed(tmp_path):
    store = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    store.write([(erasure_key(ANN), b"1"), *((b"u%03d" % n, os.urandom(10_000)) for n in range(300))], 1)
    purging = asyncio.create_task(store.purge())
    await asyncio.sleep(0.01)
    purging.cancel()
    await store.settle()
    store.close()
    again = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    assert again.to_purge
    again.close()


def test_pending_draws_are_read_in_pieces(store):
    keys = sorted(key_of((n, n)) for n in range(7))
    store.write([(key, b"d") for key in keys] + [(erasure_key(ANN), b"1"), (LEDGER_KEY, b"{}")], 1)
    found, last = [], b""
    while some := store.draws(last, 3):
        found += [key for key, _ in some]
        last = some[-1][0]
    assert found == keys


def test_wiping_leaves_nothing(store):
    store.write([(b"ann", b"1")], 7)
    store.wipe()
    assert (store.get(b"ann"), store.changelog_offset) == (None, -1)


def test_a_directory_that_another_process_holds_is_named(store, tmp_path):
    code = (
        "import sys; from pathlib import Path; from rocksdict import Cache; from streams.store import StateStore\n"
        "from contracts.errors import BadSettings\n"
        "try: StateStore(Path(sys.argv[1]), Cache(1 << 20), 1 << 20)\n"
        "except BadSettings as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "0")], capture_output=True, text=True, check=True)
    assert "is locked by another process: give each worker a --data-dir of its own" in done.stdout


def test_a_lock_file_that_cannot_be_opened_is_neither_locked_nor_damaged(tmp_path):
    (tmp_path / "0" / "LOCK").mkdir(parents=True)
    with pytest.raises(BadSettings, match=r"0 cannot be opened: IO error.* Is a directory. Mend the disk"):
        StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)


@pytest.fixture
def damaged(tmp_path) -> StateStore:
    """A store with a damaged block among its users, and one among its pending draws."""
    made = StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)
    noise = random.Random(1).randbytes
    made.write([(b"%03d" % n, HEAD + msgspec.msgpack.encode([1, 1, noise(400)])) for n in range(400)], 1)
    made.write([(key_of((n, n)), noise(400)) for n in range(400)], 2)
    made._db.flush(True)
    made.close()
    [table] = (tmp_path / "0").glob("*.sst")
    for quarters in (1, 3):
        _spoil(table, table.stat().st_size * quarters // 4)
    return StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)


def _spoil(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + 8] = b"\xff" * 8
    file.write_bytes(content)


@pytest.mark.parametrize(
    "walk",
    [
        lambda store: list(store.timers()),
        lambda store: store.draws(b"", 1_000),
        lambda store: store.expired(0, 1_000),
    ],
    ids=["timers", "draws", "users"],
)
def test_a_walk_that_meets_a_damaged_block_is_not_at_its_end(damaged, walk):
    """The trap: the iterator just stops, and half of the pending draws would never resolve."""
    with pytest.raises(Exception, match="Corruption") as stopped:
        walk(damaged)
    assert is_of_the_disk(stopped.value)


def test_a_damaged_store_is_not_taken_for_a_locked_one(damaged, tmp_path):
    damaged.close()
    [table] = (tmp_path / "0").glob("*.sst")
    _spoil(table, table.stat().st_size - 300)
    with pytest.raises(BadSettings, match=r"cannot be opened: Corruption.*checksum.* Remove .*/0, and start again"):
        StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)


def test_a_directory_that_is_no_database_says_what_to_do(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "CURRENT").write_text("nonsense\n")
    with pytest.raises(BadSettings, match=r"cannot be opened: .* Remove .*/0, .* it is rebuilt from the changelog"):
        StateStore(tmp_path / "0", Cache(1 << 20), 1 << 20)


def test_rocksdb_runs_with_the_options_that_were_set_and_not_with_defaults(tmp_path):
    """The trap: Faust's RocksDB has 192 MiB of memtables per partition and no limit of open files to speak of."""
    StateStore(tmp_path / "0", Cache(1 << 20), 3 << 20).close()
    (file,) = sorted((tmp_path / "0").glob("OPTIONS-*"))[-1:]
    held = dict(re.findall(r"^\s*(\w+)=(.*)$", file.read_text(), re.MULTILINE))
    assert held["write_buffer_size"] == str(3 << 20)
    assert held["max_open_files"] == str(OPEN_FILES_MAX)
    assert held["max_write_buffer_number"] == "3"
    assert held["compression"] == "kLZ4Compression"
    assert held["cache_index_and_filter_blocks"] == "true"
    assert held["max_total_wal_size"] == str(64 << 20)


def test_a_store_that_is_opened_again_takes_the_options_of_now(tmp_path):
    """The trap: rocksdict opens what exists with the options it finds there, and with a block cache of its own."""
    StateStore(tmp_path / "0", Cache(1 << 20), 3 << 20).close()
    StateStore(tmp_path / "0", Cache(1 << 20), 5 << 20).close()
    file = sorted((tmp_path / "0").glob("OPTIONS-*"))[-1]
    assert f"  write_buffer_size={5 << 20}\n" in file.read_text()


def test_all_partitions_of_a_worker_share_one_block_cache(tmp_path):
    """The trap: Faust makes a block cache of 2 GiB anew for every partition it opens."""
    for partition in range(3):
        store = StateStore(tmp_path / str(partition), Cache(1 << 20), 1 << 20)
        for n in range(0, 3_000, 100):
            store.write([(b"u%04d" % m, os.urandom(1_000)) for m in range(n, n + 100)], n)
        store.close()
    capacity = 4 << 20
    cache, used = Cache(capacity), []
    stores = [StateStore(tmp_path / str(partition), cache, 1 << 20) for partition in range(3)]
    for store in stores:
        assert all(store.get(b"u%04d" % n) for n in range(3_000))
        used.append(cache.get_usage())
    assert used[0] > 2 << 20, "what one partition reads is in the worker's cache"
    assert max(used) <= capacity, "and with three partitions there is no more of it"
    for store in stores:
        store.close()
