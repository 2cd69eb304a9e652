"""backtest.bandit_files and backtest.target_tables: what is read of a file, and what is refused with which sentence."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest

from backtest.bandit_files import Columns, read_bandit_log
from backtest.target_tables import feedback_from, read_target
from contracts.errors import BadInput

HEADER = "timestamp,item_id,position,click,propensity_score"
ROWS = (
    "2020-01-01 00:00:03,a,1,1,0.5",
    "2020-01-01 00:00:01,b,2,0,0.25",
    "2020-01-01 00:00:02,a,2,1,0.75",
    "2020-01-01 00:00:02,b,1,0,0.5",
)


def written(folder, *rows, header=HEADER, name="log.csv"):
    path = folder / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_rows_come_back_in_the_order_of_their_times(tmp_path):
    log = read_bandit_log(written(tmp_path, *ROWS))
    assert [log.actions[one] for one in log.action] == ["b", "a", "b", "a"]
    assert [log.positions[one] for one in log.position] == ["2", "2", "1", "1"]
    assert log.propensity.tolist() == [0.25, 0.75, 0.5, 0.5]
    assert np.diff(log.times_ms).tolist() == [1_000, 0, 1_000]


def test_csv_gzip_and_parquet_are_read_alike(tmp_path):
    path = written(tmp_path, *ROWS)
    with gzip.open(tmp_path / "log.csv.gz", "wt") as file:
        file.write(path.read_text())
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), tmp_path / "log.parquet")
    logs = [read_bandit_log(tmp_path / name) for name in ("log.csv", "log.csv.gz", "log.parquet")]
    assert [log.reward.tolist() for log in logs] == [[0.0, 1.0, 0.0, 1.0]] * 3
    assert [log.times_ms.tolist() for log in logs] == [logs[0].times_ms.tolist()] * 3


def test_columns_may_have_other_names(tmp_path):
    rows = ("7,x,0.2,3.5,u", "5,y,0.8,-1,v", "6,x,0.2,0,u")
    path = written(tmp_path, *rows, header="when,what,chance,earned,who")
    columns = Columns(time="when", action="what", propensity="chance", reward="earned", user="who")
    log = read_bandit_log(path, columns)
    assert log.reward.tolist() == [-1.0, 0.0, 3.5]
    assert (log.users == log.users[1]).tolist() == [False, True, True]
    assert log.positions == ("all",)


def test_a_row_without_a_propensity_is_counted_and_left_out(tmp_path):
    log = read_bandit_log(written(tmp_path, *ROWS, "2020-01-01 00:00:04,a,1,1,"))
    assert (log.unknown, len(log.reward)) == (1, 4)


def test_a_file_without_propensities_has_no_draw_that_could_be_judged(tmp_path):
    log = read_bandit_log(written(tmp_path, "a,1", "b,0", header="action,reward"))
    assert (log.unknown, len(log.reward)) == (2, 0)


def test_a_decision_that_comes_twice_is_counted_and_left_out(tmp_path):
    assert read_bandit_log(written(tmp_path, *ROWS, ROWS[0], ROWS[0])).duplicated == 2
    assert read_bandit_log(written(tmp_path, *ROWS, ROWS[0]), Columns(id="rows")).duplicated == 0
    by_id = written(tmp_path, "1,a,1,0.5", "1,b,0,0.5", "2,a,0,0.5", header="decision_id,action,reward,propensity")
    log = read_bandit_log(by_id)
    assert (log.duplicated, log.reward.tolist()) == (1, [1.0, 0.0])


def test_a_decision_that_comes_again_with_another_reward_or_another_number_of_its_row_is_a_repetition(tmp_path):
    rows = [f"{n},u{n % 90},{'ab'[n % 2]},{int(n % 5 == 0)},0.5" for n in range(400)]
    again = [row.replace(",0,0.5", ",1,0.5") for row in rows[:40]]
    header = "time,user,action,reward,propensity"
    log = read_bandit_log(written(tmp_path, *rows, *again, header=header))
    assert (log.duplicated, len(log.reward), int(log.reward.sum())) == (40, 400, 80)
    numbered = [f"{number},{row}" for number, row in enumerate([*rows, *again])]
    assert read_bandit_log(written(tmp_path, *numbered, header=f"row,{header}")).duplicated == 40
    users = [f"1,{n},a,0,0.5" for n in range(50)]
    assert read_bandit_log(written(tmp_path, *users, header=header)).duplicated == 0, "users are no numbers of rows"


def test_rows_that_nothing_tells_apart_are_no_repetitions(tmp_path):
    assert read_bandit_log(written(tmp_path, *["a,0,0.5"] * 9, header="action,reward,propensity")).duplicated == 0


def test_times_too_coarse_to_tell_decisions_apart_make_no_repetitions(tmp_path):
    rows = [f"{n // 50},{'ab'[n % 2]},{int(n % 7 == 0)},0.5" for n in range(400)]
    assert len(set(rows)) < 40
    assert read_bandit_log(written(tmp_path, *rows, header="time,action,reward,propensity")).duplicated == 0


def test_a_policy_whose_propensities_move_may_have_learned(tmp_path):
    assert not read_bandit_log(written(tmp_path, *ROWS)).adaptive
    assert read_bandit_log(written(tmp_path, *ROWS, "2020-01-01 00:00:05,a,2,0,0.7")).adaptive


BAD_LOGS = {
    "no such file": (None, "is missing: name a CSV or Parquet file"),
    "an empty file": ("", "is damaged or no table"),
    "no rows": (f"{HEADER}\n", "has no rows"),
    "a row too short": (f"{HEADER}\n1,2\n", "is damaged or no table .*Expected 5 columns"),
    "no action": ("reward,propensity\n1,0.5\n", "no column of the action that is called one of action, item_id"),
    "no reward": ("action,propensity\n1,0.5\n", "no column of the reward"),
    "a propensity of zero": ("action,reward,propensity\n1,0,0.5\n1,0,0\n", r"propensity of row 2 is 0, outside of \(0, 1\]"),
    "a propensity above one": ("action,reward,propensity\n1,0,1.01\n", r"propensity of row 1 is 1.01"),
    "a negative propensity": ("action,reward,propensity\n1,0,-1\n1,0,-1\n", r"\(2 rows are so\)"),
    "a propensity of words": ("action,reward,propensity\n1,0,half\n", "column 'propensity' holds string, no numbers"),
    "a reward that is missing": ("action,reward,propensity\n1,0,0.5\n1,,0.5\n", "reward of row 2 is nan, no finite number"),
    "an action that is missing": ("action,reward,propensity\n1,0,0.5\n,1,0.5\n", "1 rows have no 'action'"),
    "a time without end": ("time,action,reward,propensity\n1.5,1,0,0.5\ninf,1,0,0.5\n", "time of row 2 is inf, no time"),
    "one name twice": ("action,reward,reward,propensity\n1,0,1,0.5\n", "has 2 columns 'reward': rename all but the one"),
    "times that are none": ("time,action,reward,propensity\nnoon,1,0,0.5\n", "column 'time' holds string, no times"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), BAD_LOGS.values(), ids=BAD_LOGS)
def test_a_log_that_cannot_be_used_is_a_sentence(tmp_path, text, says):
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=says):
        read_bandit_log(path)


BAD_COLUMNS = {
    "actions that are lists": (
        "action",
        pyarrow.array([[1], [2]]),
        "'action' holds list<.*>, no names: write text or whole",
    ),
    "ids that are lists": ("decision_id", pyarrow.array([[1], [2]]), "'decision_id' holds list<.*>, no names"),
    "users that are no numbers": ("user", pyarrow.array([1.0, np.nan]), "1 rows have no 'user'"),
}


@pytest.mark.parametrize(("name", "column", "says"), BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_a_column_of_parquet_that_names_nothing_is_a_sentence(tmp_path, name, column, says):
    columns = {"action": pyarrow.array([1, 2]), "reward": [0.0, 1.0], "propensity": [0.5, 0.5]} | {name: column}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "log.parquet")
    with pytest.raises(BadInput, match=says):
        read_bandit_log(tmp_path / "log.parquet")


def test_every_kind_of_text_is_a_name_and_columns_of_any_kind_may_stand_beside(tmp_path):
    for kind in (pyarrow.large_string(), pyarrow.string_view(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())):
        columns = {"time": [1, 2], "action": pyarrow.array(["a", "b"]).cast(kind), "reward": [0.0, 1.0]}
        columns |= {
            "propensity": [0.5, 0.5],
            "context": [[0.1], [0.2]],
            "word": pyarrow.array(["x", "y"], pyarrow.string_view()),
        }
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "log.parquet")
        assert read_bandit_log(tmp_path / "log.parquet").actions == ("a", "b"), kind


def test_a_truncated_parquet_file_is_a_sentence(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"action": [1], "reward": [0.0]}), tmp_path / "whole.parquet")
    (tmp_path / "log.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    with pytest.raises(BadInput, match="damaged or no table"):
        read_bandit_log(tmp_path / "log.parquet")


def test_a_column_that_was_named_must_exist(tmp_path):
    with pytest.raises(BadInput, match="no column 'price' \\(--action\\); its columns are timestamp, item_id"):
        read_bandit_log(written(tmp_path, *ROWS), Columns(action="price"))


def test_a_target_is_read_from_csv_parquet_and_json_alike(tmp_path):
    rows = [("1", "a", 0.25), ("1", "b", 0.75), ("2", "a", 1.0)]
    written(tmp_path, *(f"{p},{a},{c}" for p, a, c in rows), header="position,item_id,probability", name="t.csv")
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    (tmp_path / "rows.json").write_text(
        json.dumps([{"position": int(p), "action": a, "probability": c} for p, a, c in rows])
    )
    (tmp_path / "t.json").write_text(json.dumps({"1": {"a": 0.25, "b": 0.75}, "2": {"a": 1.0}}))
    for name in ("t.csv", "t.parquet", "rows.json", "t.json"):
        assert read_target(tmp_path / name) == {"1": {"a": 0.25, "b": 0.75}, "2": {"a": 1.0}}
    (tmp_path / "flat.json").write_text('{"3": 0.5, "4": 0.5}')
    assert read_target(tmp_path / "flat.json") == {None: {"3": 0.5, "4": 0.5}}


BAD_TARGETS = {
    "no such file": (None, "is missing"),
    "other columns": ("a,b\n1,2\n", "needs the columns action and probability"),
    "no sum of 1": ("action,probability\na,0.5\nb,0.4\n", "probabilities sum to 0.9000, not to 1"),
    "a negative one": ("action,probability\na,1.5\nb,-0.5\n", "probability of action a is 1.5"),
    "an action twice": ("action,probability\na,0.5\na,0.5\n", "names action a twice"),
    "no rows": ("action,probability\n", "has no rows"),
    "words": ("action,probability\na,all\n", "probability 'all' is no number"),
}


@pytest.mark.parametrize(("text", "says"), BAD_TARGETS.values(), ids=BAD_TARGETS)
def test_a_target_that_cannot_be_used_is_a_sentence(tmp_path, text, says):
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadInput, match=says):
        read_target(tmp_path / "t.csv")


def test_a_json_target_that_is_none_is_a_sentence(tmp_path):
    for text, says in (("{", "is no JSON"), ("[]", "no target|has no rows"), ('{"a": "b"}', "is no target")):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(BadInput, match=says):
            read_target(tmp_path / "t.json")


def test_what_the_target_wants_and_the_log_never_drew_is_unsupported(tmp_path):
    (tmp_path / "t.json").write_text('{"a": 0.6, "b": 0.3, "c": 0.1}')
    rows = [f"{one},0,0.5" for one in "aabb"]
    _, found = feedback_from(
        written(tmp_path, *rows, header="action,reward,propensity"), Columns(), str(tmp_path / "t.json")
    )
    assert found.unsupported.tolist() == pytest.approx([0.1] * 4)
    assert found.target.tolist() == [0.6, 0.6, 0.3, 0.3]


def test_a_target_without_a_position_of_the_log_is_refused(tmp_path):
    (tmp_path / "t.json").write_text('{"1": {"a": 1.0}}')
    with pytest.raises(BadInput, match="no probabilities for position '2'"):
        feedback_from(written(tmp_path, *ROWS), Columns(), str(tmp_path / "t.json"))


def test_a_target_may_be_a_column_of_the_log(tmp_path):
    path = written(tmp_path, "a,1,0.5,0.9", "b,0,0.5,0.1", header="action,reward,propensity,new")
    _, found = feedback_from(path, Columns(), "column:new")
    assert (found.target.tolist(), found.expected_target) == ([0.9, 0.1], None)
    with pytest.raises(BadInput, match="has no column 'newer'"):
        feedback_from(path, Columns(), "column:newer")
    wrong = written(tmp_path, "a,1,0.5,1.9", header="action,reward,propensity,new")
    with pytest.raises(BadInput, match=r"is 1.9, outside of \[0, 1\]"):
        feedback_from(wrong, Columns(), "column:new")


def test_expected_rewards_never_see_their_own_row(tmp_path):
    rows = [f"{'ab'[n % 2]},{int(n % 5 == 0)},0.5" for n in range(60)]
    path = written(tmp_path, *rows, header="action,reward,propensity")
    _, before = feedback_from(path, Columns(), "uniform")
    rows[30] = "a,1000,0.5"
    _, after = feedback_from(written(tmp_path, *rows, header="action,reward,propensity"), Columns(), "uniform")
    same_fold = np.arange(60) % 3 == 30 % 3
    assert (before.expected_logged == after.expected_logged).tolist() == same_fold.tolist()
    assert (before.expected_target == after.expected_target).tolist() == same_fold.tolist()
