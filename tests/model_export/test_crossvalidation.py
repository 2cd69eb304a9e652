"""A cross-validation from a log to its page: what each fold trained on, going on after a kill, bad input, spread by hand.

The export of a fold's model takes long, so a model of the last item is asked in its place, whose figures must be those of the
baseline of that name; the export has its own tests (test_verify).
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from math import sqrt

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the extra model-export")

from backtest.shoppers import generate_log  # noqa: E402 - torch first, or there is nothing to test
from contracts.errors import BadInput  # noqa: E402
from contracts.log import open_log  # noqa: E402
from contracts.semantics import Topology  # noqa: E402
from model_export import crossvalidation, evaluation, training_run  # noqa: E402
from model_export.applied import catalogue_of  # noqa: E402
from model_export.baselines import families  # noqa: E402
from model_export.crossvalidate_commands import crossvalidate_command  # noqa: E402
from model_export.crossvalidation import CrossValidation, Plan  # noqa: E402
from model_export.evaluation import MODEL, ROLLING_BASELINE  # noqa: E402
from model_export.next_item import SLICES  # noqa: E402
from model_export.runs import read_run  # noqa: E402
from model_export.spreads import PROPENSITY, PURCHASES, RANKING, Figure, summary_of  # noqa: E402
from tests.model_export.last_item import LastItem  # noqa: E402

FOLDS = 2
WORDS = ("--folds", str(FOLDS), "--epochs", "1", "--validation", "0.2")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A log long enough for two folds in time."""
    directory = tmp_path_factory.mktemp("folds") / "log"
    generate_log(directory, 100, 3_000, 5, Topology(partitions=2), file_format="jsonl")
    return directory


@pytest.fixture(autouse=True, scope="module")
def cheap(shop):
    """A stand-in for the artifact, and the baselines without a choice of settings."""
    cheap = {name: choices for name, choices in families().items() if len(choices) == 1}
    items = list(catalogue_of(open_log(shop)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crossvalidation, "export_run", lambda run, artifact: (read_run(run)[0], LastItem.digest))
        patch.setattr(crossvalidation, "load_artifact", lambda artifact: LastItem(items))
        patch.setattr(crossvalidation, "Encoder", lambda artifact, users_max: artifact)
        patch.setattr(evaluation, "families", lambda: cheap)
        yield


class Watched(training_run.Training):
    """Training that remembers what it was given, and may be killed before it begins."""

    given: list = []  # noqa: RUF012 - of the class on purpose
    kill_at = 0

    def __init__(self, dataset, *rest) -> None:
        if len(self.given) + 1 == self.kill_at:
            raise KeyboardInterrupt
        self.given.append(dataset)
        super().__init__(dataset, *rest)


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(training_run, "Training", Watched)
    monkeypatch.setattr(Watched, "given", [])
    return Watched


def run(out, log, *words):
    return CliRunner().invoke(crossvalidate_command, [str(out), "--log", str(log), *WORDS, *words])


def found_in(out):
    return msgspec.json.decode((out / "crossvalidation.json").read_bytes(), type=CrossValidation)


def rows_of(log):
    """Return the rows of the log, each event once."""
    rows = map(msgspec.json.decode, (log / "events.jsonl").read_bytes().splitlines())
    return list({row["event_id"]: row for row in rows if "raw" not in row}.values())


def home_of(user):
    return int.from_bytes(blake2b(user.encode(), digest_size=16).digest(), "big") % FOLDS


def times(rows):
    return Counter(row["event_time_ms"] for row in rows)


@pytest.mark.parametrize("by", ["user", "time"])
def test_the_command_trains_each_fold_on_none_of_its_test_and_writes_tables_a_page_and_figures(
    shop, tmp_path, watched, by
):
    out = tmp_path / "cv"
    done = run(out, shop, "--by", by)
    assert done.exit_code == 0, done.output
    found, rows = found_in(out), rows_of(shop)
    for fold, dataset in zip(found.folds, watched.given, strict=True):
        if by == "user":
            tested = [row for row in rows if home_of(row["user"]) == fold.fold - 1]
            learned = [row for row in rows if home_of(row["user"]) != fold.fold - 1]
            assert fold.new_user_share == 1.0
        else:
            tested = [row for row in rows if fold.tested_from_ms <= row["event_time_ms"] < fold.tested_until_ms]
            learned = [row for row in rows if row["event_time_ms"] < fold.tested_from_ms]
        read = Counter(dataset.tokens.time_ms.tolist())
        assert read <= times(learned)
        assert not read & times(tested)
        assert 0.99 * len(learned) < len(dataset.tokens), "all but what a worker refuses"
        assert fold.learned_events == len(dataset.tokens)
        assert fold.tested_users == len({row["user"] for row in tested})
    page = (out / "crossvalidation.md").read_text()
    assert (
        f"`pricetide model crossvalidate cv --log log --by {by} --folds 2 --validation 0.2 --epochs 1 --seed 1`" in page
    )
    for text in (page, done.output):
        assert all(f"Next item, {SLICES[0]}: {metric}" in text for metric in RANKING)
        assert all(f"Purchase within 30 min: {metric}" in text for metric in PROPENSITY)
    assert str(tmp_path) not in page
    for fold in found.folds:
        ranked = {(one.slice, one.metric, one.method): one.value for one in fold.figures if one.slice != PURCHASES}
        assert all(ranked[name, metric, MODEL] == ranked[name, metric, "last item"] for name, metric, _ in ranked)
    for metric in PROPENSITY:
        methods = [one.method for one in found.summary if (one.slice, one.metric) == (PURCHASES, metric)]
        assert methods == [ROLLING_BASELINE, MODEL, f"{MODEL} less {ROLLING_BASELINE}"]


def test_a_killed_run_goes_on_with_the_folds_that_are_not_finished_and_finds_the_same(shop, tmp_path, watched):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(whole, shop, "--by", "user").exit_code == 0
    watched.given.clear()
    watched.kill_at = 2
    assert run(killed, shop, "--by", "user").exit_code == 1
    watched.kill_at = 0
    watched.given.clear()
    assert not (killed / "crossvalidation.json").exists()
    again = run(killed, shop, "--by", "user")
    assert isinstance(again.exception, BadInput)
    assert "go on with --resume, or use another directory" in str(again.exception)
    other = run(killed, shop, "--by", "user", "--seed", "2", "--resume")
    threads = run(killed, shop, "--by", "user", "--threads", "2", "--resume")
    for refused in (other, threads):
        assert "is of another cross-validation (its log, folds, threads or options)" in str(refused.exception)
    assert run(killed, shop, "--by", "user", "--resume").exit_code == 0
    assert len(watched.given) == 1, "the first fold is not trained again"
    assert (killed / "crossvalidation.json").read_bytes() == (whole / "crossvalidation.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--by", "user", "--folds", "1"], "--folds 1: a mean with a spread needs at least 2"),
        (["--by", "time", "--folds", "0"], "--folds 0: a mean with a spread needs at least 2"),
        (["--by", "user", "--folds", "400"], "The log has 100 users, and none of them falls into fold"),
        (["--by", "time", "--folds", "5000"], "5000 folds in time need 5001 parts of the log"),
        (["--by", "time", "--folds", "40"], "Fold 1 of 40 by time: .*use fewer --folds, or a longer log"),
        (["--by", "user", "--text", "nowhere"], "nowhere holds no vectors of items"),
    ],
)
def test_bad_input_is_refused_with_a_sentence_before_anything_is_trained(shop, tmp_path, watched, words, sentence):
    done = run(tmp_path / "cv", shop, *words)
    assert isinstance(done.exception, BadInput)
    with pytest.raises(BadInput, match=sentence):
        raise done.exception
    assert not watched.given
    assert not (tmp_path / "cv").exists()


def test_a_damaged_plan_is_named(shop, tmp_path):
    out = tmp_path / "cv"
    out.mkdir()
    (out / "plan.json").write_text("{}")
    done = run(out, shop, "--by", "user", "--resume")
    assert isinstance(done.exception, BadInput)
    assert "plan.json cannot be read" in str(done.exception)
    assert "use another directory" in str(done.exception)
    assert "delete" not in str(done.exception), "folds without a plan could be of anything"


@pytest.mark.parametrize("words", [[], ["--resume"]])
def test_folds_without_a_plan_are_not_gone_on_with(shop, tmp_path, watched, words):
    out = tmp_path / "cv"
    (out / "fold-1").mkdir(parents=True)
    done = run(out, shop, "--by", "user", *words)
    assert isinstance(done.exception, BadInput)
    assert "holds folds and no plan.json" in str(done.exception)
    assert not watched.given
    assert not (out / "plan.json").exists()


def fold_with(number, **values):
    figures = [Figure("all users", "log-loss", name.replace("_", " "), value) for name, value in values.items()]
    return msgspec.structs.replace(EMPTY, fold=number, figures=figures)


EMPTY = crossvalidation.Fold(
    fold=0, learned_events=0, learned_users=0, learned_until_ms=0, tested_events=0, tested_users=0, tested_from_ms=0,
    tested_until_ms=0, new_user_share=0.0, cold_share=0.0, examples=0, bought_share=0.0, model="", epochs=1, settings={},
    figures=[],
)  # fmt: skip


def test_the_spread_is_students_over_the_folds_and_the_difference_is_taken_fold_by_fold() -> None:
    model, near, far = [0.30, 0.40, 0.50], [0.35, 0.40, 0.60], [0.9, 0.9, 0.9]
    folds = [
        fold_with(n, far=a, near=b, the_model=c) for n, (a, b, c) in enumerate(zip(far, near, model, strict=True), 1)
    ]
    found = {one.method: one for one in summary_of(folds)}
    assert list(found) == ["far", "near", MODEL, f"{MODEL} less near"]
    t = 4.302653  # the 97.5 % point of Student's t with 2 degrees of freedom, from a table
    for name, values in ((MODEL, model), (f"{MODEL} less near", np.subtract(model, near))):
        error = np.std(values, ddof=1) / sqrt(3)
        one = found[name]
        assert (one.mean, one.standard_error) == pytest.approx((np.mean(values), error))
        assert (one.low, one.high) == pytest.approx((np.mean(values) - t * error, np.mean(values) + t * error))
    assert found["far"].standard_error == pytest.approx(0.0)


def test_a_slice_that_one_fold_alone_has_gets_no_spread() -> None:
    assert summary_of([fold_with(1, near=0.5, the_model=0.4), EMPTY]) == []


def test_a_plan_names_what_would_give_other_figures() -> None:
    assert set(Plan.__struct_fields__) == {
        "by",
        "folds",
        "log_digest",
        "source",
        "validation",
        "text",
        "threads",
        "options",
    }
