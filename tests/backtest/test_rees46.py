"""backtest.rees46: what the import makes of rows, by stated rules; and the real file."""

from __future__ import annotations

import gzip
from collections import Counter
from itertools import chain

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from backtest import synthetic
from backtest.rees46 import COLUMNS, import_rees46, minor_units
from contracts.catalogue import VERSIONS_MAX
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_rows import CatalogueRow
from contracts.policies import PolicyBook
from contracts.semantics import Topology

HEADER = ",".join(COLUMNS)
TIME = "2019-11-01 00:00:{:02d} UTC"
START_MS = 1_572_566_400_000


def line(second=0, kind="view", item=1, price="10.00", user=7, code="a.b_c", brand="acme", session="s"):
    return f"{TIME.format(second)},{kind},{item},99,{code},{brand},{price},{user},{session}"


def imported(tmp_path, *lines, name="in.csv", file_format="jsonl"):
    source = tmp_path / name
    source.write_text("\n".join([HEADER, *lines]) + "\n")
    import_rees46(source, tmp_path / "log", Topology(partitions=2), file_format)
    return open_log(tmp_path / "log")


def events(log):
    return list(chain.from_iterable(log.events()))


def items(log):
    return list(chain.from_iterable(log.catalogue()))


@pytest.mark.parametrize(
    ("price", "cents"),
    [
        ("489.07", 48907), (489.07, 48907), ("0.29", 29), (0.29, 29), (1.15, 115), (1.005, 101), ("0.005", 1), ("0.0049", 0),
        ("2574.07", 257407), (0.0, 0), ("-3", -300), ("1e3", 100000), (float("nan"), None), (None, None), ("n/a", None),
    ],
)  # fmt: skip
def test_prices_become_cents_exactly_half_a_cent_up(price, cents):
    assert minor_units(price) == cents


def test_every_cent_up_to_a_thousand_dollars_survives_binary_floats():
    assert all(minor_units(float(f"{cents // 100}.{cents % 100:02d}")) == cents for cents in range(100_000))


def test_a_row_becomes_an_event_with_its_time_price_and_session(tmp_path):
    (event,) = events(imported(tmp_path, line(second=3, kind="cart", price="12.34")))
    assert (event.type, event.action, event.user, event.item) == ("click", "add_to_cart", "7", "1")
    assert (event.event_time_ms, event.arrival_ms) == (START_MS + 3_000,) * 2
    assert (event.price, event.currency, event.session) == (1234, "USD", "s")


def test_exact_duplicates_are_two_events(tmp_path):
    ids = [event.event_id for event in events(imported(tmp_path, line(), line(), line(price="11.00"), line()))]
    assert len(set(ids)) == 4
    assert [event_id.rpartition("-")[2] for event_id in ids] == ["0", "1", "0", "2"]


def test_csv_and_gzip_and_parquet_give_the_same_log(tmp_path):
    lines = [line(second=n, price=f"{n}.{n:02d}", user=n % 5, code="" if n % 3 else "x.y", brand="") for n in range(40)]
    text = "\n".join([HEADER, *lines]) + "\n"
    (tmp_path / "a.csv").write_text(text)
    with gzip.open(tmp_path / "b.csv.gz", "wt") as file:
        file.write(text)
    table = pyarrow.csv.read_csv(
        tmp_path / "a.csv",
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={"event_time": pyarrow.string()}, strings_can_be_null=True, null_values=[""]
        ),
    )
    times = [START_MS * 1000 + n * 1_000_000 for n in range(40)]
    table = table.set_column(0, "event_time", pyarrow.array(times, pyarrow.timestamp("us")))
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    (tmp_path / "d.PARQUET").write_bytes((tmp_path / "c.parquet").read_bytes())
    logs = []
    for name in ("a.csv", "b.csv.gz", "c.parquet", "d.PARQUET"):
        import_rees46(tmp_path / name, tmp_path / f"log-{name}", Topology(partitions=2))
        log = open_log(tmp_path / f"log-{name}")
        logs.append((list(log.rows()), items(log)))
    assert logs[0] == logs[1] == logs[2] == logs[3]
    assert len(logs[0][0]) == 45


def test_a_list_price_starts_at_the_first_sighting_with_a_price(tmp_path):
    log = imported(tmp_path, line(1, price="0.00"), line(2, price="5.00"), line(3, price="5.00"), line(4, price="6.00"))
    assert [(row.valid_from_ms, row.list_price) for row in items(log)] == [
        (START_MS + 2_000, 500),
        (START_MS + 4_000, 600),
    ]
    assert [event.price for event in events(log)] == [0, 500, 500, 600], "rows priced zero stay"


def test_an_item_has_a_bounded_number_of_versions(tmp_path):
    log = imported(tmp_path, *[line(n % 60, price=f"{n + 1}.00") for n in range(VERSIONS_MAX + 10)])
    assert len(items(log)) == VERSIONS_MAX


def test_an_item_is_described_by_its_row(tmp_path):
    log = imported(tmp_path, line(item=1), line(item=2, code="", brand=""))
    assert [(row.title, row.category, row.brand) for row in items(log)] == [
        ("acme b c 1", "a.b_c", "acme"),
        ("2", "99", ""),
    ]


def users_who(test):
    return [str(user) for user in range(2_000) if test(str(user))]


def test_every_user_speaks_at_their_first_event_and_some_withdraw_in_the_middle(tmp_path):
    denying, leaving = users_who(synthetic.denies)[0], users_who(synthetic.withdraws)[0]
    log = imported(
        tmp_path, line(0, user=denying), *[line(n, user=leaving) for n in range(1, 7)], line(9, user=denying)
    )
    spoken = [(row.user, row.granted, row.event_time_ms - START_MS) for row in chain.from_iterable(log.consents())]
    assert spoken == [(denying, False, 0), (leaving, True, 1_000), (leaving, False, 4_000)]


def test_a_user_with_a_single_event_never_withdraws(tmp_path):
    leaving = users_who(synthetic.withdraws)[0]
    assert len(list(chain.from_iterable(imported(tmp_path, line(user=leaving)).consents()))) == 1


def test_about_a_tenth_denies_and_a_thirtieth_withdraws():
    assert 8_500 < sum(synthetic.denies(str(user)) for user in range(100_000)) < 11_500
    assert 2_500 < sum(synthetic.withdraws(str(user)) for user in range(100_000)) < 3_500


def test_no_list_price_breaks_its_own_bounds():
    for price in [*range(1, 3_000), 99_999, 10_000_000_000]:
        row = synthetic.with_bounds(CatalogueRow(item=f"i{price}", list_price=price))
        assert row.cost is not None
        assert -(-row.cost * 1080 // 1000) <= price
        assert (row.floor or 0) <= price
        assert (row.map_price or 0) <= price
        assert row.ceiling is None or row.ceiling >= price


def test_the_log_brings_the_builtin_rule_as_a_policy_of_its_own(tmp_path):
    from contracts.log import policy_records

    book = PolicyBook()
    for record in policy_records(imported(tmp_path, line())):
        book.apply(record.offset, record.key, record.value)
    assert book.current.version == "session_intent@1"


def test_the_manifest_marks_what_is_synthetic(tmp_path):
    manifest = imported(tmp_path, line()).manifest
    rules = " ".join(manifest.synthetic)
    for word in ("Consents", "Withdrawals", "Cost", "Floor", "MAP", "Ceiling", "Event id", "first sighting"):
        assert word in rules
    assert "rees46.com" in manifest.source
    assert manifest.offers == "not_shown"


BAD_FILES = {
    "no such file": (None, "is missing: download"),
    "another table": ("a,b\n1,2\n", "lacks the columns event_time"),
    "a row too short": (f"{HEADER}\n1,2\n", "cannot be read as the REES46 log"),
    "an unknown event": (f"{HEADER}\n{line(kind='stare')}\n", "event_type 'stare' is none of view"),
    "no time": (f"{HEADER}\nyesterday,view,1,2,,,3.00,4,s\n", "event_time 'yesterday' is no time"),
    "an empty file": ("", "cannot be read"),
}


@pytest.mark.parametrize(("text", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_not_that_log_is_a_sentence(tmp_path, text, says):
    source = tmp_path / "in.csv"
    if text is not None:
        source.write_text(text)
    with pytest.raises(BadInput, match=says):
        import_rees46(source, tmp_path / "log", Topology(partitions=2), "jsonl")
    assert not (tmp_path / "log" / "manifest.json").exists()


def test_the_real_file_keeps_every_row(rees46_backtest):
    log = open_log(rees46_backtest.log, verify=False)
    seen: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for chunk in log.events():
        seen.update(row.event_id for row in chunk)
        kinds.update(row.type for row in chunk)
    assert kinds == {"view": 234_033, "click": 3_345, "purchase": 4_285}
    assert set(seen.values()) == {1}
    assert sum(not event_id.endswith("-0") for event_id in seen) == 95, "exact duplicates"
    assert rees46_backtest.imported.unpriced == 263
    assert rees46_backtest.imported.users == 47_461


def test_a_download_that_was_cut_is_a_sentence(tmp_path):
    lines = [HEADER, *(line(second % 60, item=second, session=f"s{second * 7919}") for second in range(5_000))]
    whole = gzip.compress("\n".join(lines).encode())
    for kept in (20, len(whole) // 2, len(whole) - 9):
        (tmp_path / "in.csv.gz").write_bytes(whole[:kept])
        with pytest.raises(BadInput, match=r"in\.csv\.gz cannot be read as the REES46 log: .*download it again"):
            import_rees46(tmp_path / "in.csv.gz", tmp_path / f"log{kept}", Topology(partitions=2))
