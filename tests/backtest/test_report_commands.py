"""`pricetide backtest LOG --report`: what it says at the terminal, what it refuses, and what a log without shown offers gets."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from backtest.estimates import Settings
from backtest.habits import MADE_UP
from backtest.report.figures import read_figures
from backtest.report.study import Ask, files_of, write_report
from backtest.shop_run import Files as LogFiles
from backtest.shop_run import run_shop
from backtest.shoppers import generate_log
from backtest.street import street
from backtest.truth import Account
from backtest.what_if import Wanted
from contracts.errors import BadInput, PricetideError
from contracts.log import open_log
from contracts.policies import Policy, Rails, UniformRandom
from contracts.semantics import Topology
from features.artifact import Artifact, load_artifact, write_artifact
from pricetide import command_line
from tests.backtest.conftest import Reported, write_policies
from tests.features.models import parts


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, ["backtest", *map(str, arguments)])


@pytest.fixture(scope="module")
def not_shown(shop_log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The page on a log whose people saw other prices, and what the command said."""
    folder = tmp_path_factory.mktemp("not-shown")
    policies = [part for file in write_policies(folder) for part in ("--policy", file)]
    return folder / "out.html", run(shop_log, *policies, "--report", folder / "out.html")


def test_without_shown_offers_every_verdict_is_refuse_and_says_why(not_shown: tuple[Path, Result]) -> None:
    page, said = not_shown
    assert said.exit_code == 0, said.output
    assert "gentle: REFUSE (no logged propensities" in said.output
    assert "deep: REFUSE (no logged propensities" in said.output
    assert page.name in said.output
    text = page.read_text()
    assert "offers: not_shown" in text
    assert "It gives no value and no lift" in text


def test_without_shown_offers_there_are_prices_and_no_value(not_shown: tuple[Path, Result]) -> None:
    page, _ = not_shown
    figures = read_figures(files_of(page).figures_json)
    sections = {row.section for row in figures}
    assert {"prices", "multipliers", "paths", "rails", "dispersion", "parity", "tenure"} <= sections
    assert not sections & {
        "value",
        "estimators",
        "goals",
        "parts",
        "growth",
        "demand",
        "folds",
        "weights",
        "diagnostics",
    }
    assert not files_of(page).draws.exists()
    assert "lift over" not in page.read_text().lower().replace("no value and no lift", "")
    assert figures.names("prices", "policy") == ["as logged", "gentle", "deep"]


def test_without_a_policy_the_report_is_of_the_log_as_it_was(shop_log: Path, tmp_path: Path) -> None:
    said = run(shop_log, "--report", tmp_path / "out.html")
    assert said.exit_code == 0, said.output
    assert "Backtest: the log as it was" in (tmp_path / "out.html").read_text()


def test_a_report_interrupted_and_resumed_by_another_process_has_the_same_figures(
    shop_log: Path, not_shown: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backtest.report import study

    (gentle, _) = write_policies(tmp_path)
    arguments = [shop_log, "--report", tmp_path / "out.html", "--policy", gentle, "--resume", tmp_path / "kept"]
    with monkeypatch.context() as broken:
        broken.setattr(study, "PriceTally", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        broken_off = run(*arguments)
        assert broken_off.exit_code != 0
    kept = tmp_path / "kept.tables"
    assert kept.is_dir(), (broken_off.output, broken_off.exception)
    again = [sys.executable, "-c", "from pricetide import main; main()", "backtest", *map(str, arguments)]
    subprocess.run(again, check=True, capture_output=True)
    assert not kept.exists()
    found = read_figures(files_of(tmp_path / "out.html").figures_json)
    whole = read_figures(files_of(not_shown[0]).figures_json)
    for section in ("prices", "rails", "parity", "paths"):
        rows = [row for _, row in whole.where(section) if row.policy != "deep"]
        assert rows == [row for _, row in found.where(section)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--report", "out.txt"], "let it end in .html"),
        (["--report", "out.html", "--decisions", "d.parquet"], "leave other outputs to a run without it"),
        (["--report", "out.html", "--policy", "gentle.toml", "--policy", "gentle.toml"], "give each its own name"),
        (["--report", "out.html", "--policy", "unknown.toml"], "colour is unknown"),
        (["--report", "out.html", "--policy", "missing.toml"], "missing.toml cannot be read"),
    ],
)
def test_a_report_that_cannot_be_made_says_why(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_policies(tmp_path)
    Path("unknown.toml").write_text("name = 'a'\ncolour = 'red'\n[rule]\nkind = 'list_price'\n")
    said = run(reported.log, *arguments)
    assert said.exit_code != 0
    assert sentence in said.output + str(said.exception)
    assert said.exception is None or isinstance(said.exception, (PricetideError, SystemExit))
    assert not Path("out.html").exists()


def test_figures_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "figures.json").write_text('{"not": "figures"}')
    with pytest.raises(BadInput, match="holds no figures"):
        read_figures(tmp_path / "figures.json")


def test_two_artifacts_are_compared_on_the_same_events_and_can_be_counted_again(tmp_path: Path) -> None:
    generate_log(tmp_path / "log", users=40, events=800, seed=5, topology=Topology(partitions=1), file_format="jsonl")
    for name, seed in (("a", None), ("b", 77)):
        write_artifact(tmp_path / name, parts(items_seed=seed))
    page = tmp_path / "out.html"
    said = run(tmp_path / "log", "--model", tmp_path / "a", "--model", tmp_path / "b", "--report", page)
    assert said.exit_code == 0, (said.output, said.exception)
    figures = read_figures(files_of(page).figures_json)
    models = figures.names("quality", "policy")
    assert [name[0] for name in models] == ["a", "b"]
    rows = pq.read_table(files_of(page).predictions).to_pylist()
    counts, losses = [], []
    for model in models:
        found = {
            row.measure: row for _, row in figures.where("quality", policy=model) if "better than" not in row.segment
        }
        asked = [row for row in rows if row["model"] == model and row["question"] == "purchase propensity"]
        ranked = [row["rank"] for row in rows if row["model"] == model and row["question"] == "next item"]
        pairs = [
            (one["probability"] > other["probability"]) + 0.5 * (one["probability"] == other["probability"])
            for one in asked
            if one["bought"]
            for other in asked
            if not other["bought"]
        ]
        assert found["AUC"].value == pytest.approx(sum(pairs) / len(pairs))
        assert found["recall@20"].value == pytest.approx(sum(0 < rank <= 20 for rank in ranked) / len(ranked))
        assert found["MRR@20"].value == pytest.approx(sum(1 / rank for rank in ranked if 0 < rank <= 20) / len(ranked))
        counts.append((len(asked), len(ranked)))
        losses.append([-math.log(row["probability"] if row["bought"] else 1.0 - row["probability"]) for row in asked])
    assert counts[0] == counts[1]
    (_, more), *_ = figures.where("quality", policy=models[1], measure="log-loss saved")
    differences = [one - two for one, two in zip(*losses, strict=True)]
    assert more.value == pytest.approx(sum(differences) / len(differences))
    assert more.low < more.value < more.high


def test_one_artifact_named_twice_is_refused_before_any_replay(shop_log: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", parts())
    said = run(shop_log, "--model", tmp_path / "a", "--model", tmp_path / "a", "--report", tmp_path / "out.html")
    assert said.exit_code != 0
    assert "name each once" in said.output + str(said.exception)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("artifacts")
    for name, seed in (("a", None), ("b", 77)):
        write_artifact(folder / name, parts(items_seed=seed))
    return folder / "a", folder / "b"


def test_a_comparison_that_was_interrupted_goes_on_with_the_artifact_that_was_not_done(
    shop_log: Path, artifacts: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from backtest import run as replays
    from backtest.report import study

    page, watched, replayed = tmp_path / "out.html", [], []
    watch, run_job = study.watch, replays.run_job

    def watched_until_b(log: object, artifact: Artifact, *rest: object) -> object:
        watched.append(artifact.digest)
        if len(watched) == 2:
            raise KeyboardInterrupt
        return watch(log, artifact, *rest)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(study, "watch", watched_until_b)
    monkeypatch.setattr(replays, "run_job", lambda *job: (replayed.append(1), run_job(*job))[1])
    models = [part for one in artifacts for part in ("--model", one)]
    assert run(shop_log, *models, "--report", page, "--resume", tmp_path / "kept").exit_code != 0
    assert not page.exists()
    said = run(shop_log, *models, "--report", page, "--resume", tmp_path / "kept")
    assert said.exit_code == 0, (said.output, said.exception)
    a, b = (load_artifact(one).digest for one in artifacts)
    assert watched == [a, b, b]
    assert len(replayed) == 1, "the log was replayed again"
    assert not list(tmp_path.glob("kept*"))
    assert run(shop_log, *models, "--report", tmp_path / "whole.html").exit_code == 0
    ours, whole = (files_of(one).predictions.read_bytes() for one in (page, tmp_path / "whole.html"))
    assert ours == whole


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Account]:
    """A shop of simulated people, whose log is recorded, and beside it the truth; and what `simulate` says of it."""
    directory = tmp_path_factory.mktemp("simulated") / "log"
    rails = Rails(charm_endings=(), step_max_permille=200, margin_min_permille=0)
    policy = Policy(name="tries", number=1, seed=3, rule=UniformRandom(), rails=rails)
    return directory, run_shop(street(MADE_UP, 4.0, 2, 250), policy, 2, 1, LogFiles(directory, "jsonl")).account


@pytest.fixture(scope="module")
def simulated(scored: tuple[Path, Account]) -> Path:
    return scored[0]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_artifacts_are_compared_on_a_recorded_log_in_which_neither_was_in_force(
    simulated: Path, artifacts: tuple[Path, Path], tmp_path: Path
) -> None:
    assert open_log(simulated).recorded
    models = [part for one in artifacts for part in ("--model", one)]
    said = run(simulated, *models, "--report", tmp_path / "out.html")
    assert said.exit_code == 0, (said.output, said.exception)
    figures = read_figures(files_of(tmp_path / "out.html").figures_json)
    assert [name[0] for name in figures.names("quality", "policy")] == ["a", "b"]
    rows = pq.read_table(files_of(tmp_path / "out.html").predictions).to_pylist()
    asked = [[row for row in rows if row["model"].startswith(name) and row["probability"] is not None] for name in "ab"]
    assert len(asked[0]) > 20
    assert [(row["user"], row["bought"]) for row in asked[0]] == [(row["user"], row["bought"]) for row in asked[1]]
    assert [row["probability"] for row in asked[0]] != [row["probability"] for row in asked[1]]
    assert "in the order in which workers applied this log" in (tmp_path / "out.html").read_text()


def test_a_cut_before_the_first_event_is_named_with_the_time_of_that_event(simulated: Path, tmp_path: Path) -> None:
    said = run(simulated, "--report", tmp_path / "out.html", "--as-of", "2025-11-03T08:00:00")
    assert said.exit_code != 0
    words = said.output + str(said.exception)
    assert "leads to no price decision by 2025-11-03 08:00:00 UTC: its events are from 2025-11-03 09:" in words
    assert "name a later time with --as-of" in words
    assert not (tmp_path / "out.html").exists()


def test_the_page_and_simulate_agree_on_what_fixed_prices_earn_on_the_same_log(
    scored: tuple[Path, Account], tmp_path: Path
) -> None:
    directory, account = scored
    figures = write_report(Ask(Wanted(directory=directory), settings=Settings(resamples=50)), tmp_path / "out.html")
    assert account.whole.list_price < account.whole.best_fixed < account.whole.oracle
    for policy, value in (
        ("list price", account.whole.list_price),
        ("best fixed price, in hindsight", account.whole.best_fixed),
        ("oracle", account.whole.oracle),
    ):
        ((_, true),) = figures.where("truth", measure="true value", policy=policy)
        assert true.value == pytest.approx(value / account.draws / 100)
    ((_, note),) = figures.where("truth", measure="note")
    assert note.text.startswith(f"{account.best_fixed_permille / 10:g} % of list price truly earned most")
    assert f"<p>best fixed price, in hindsight: {note.text}.</p>" in (tmp_path / "out.html").read_text()


def test_the_truth_of_a_log_may_lie_elsewhere_and_that_of_another_log_is_refused(
    simulated: Path, tmp_path: Path
) -> None:
    shutil.copytree(simulated, tmp_path / "log")
    (tmp_path / "log" / "truth.jsonl").rename(tmp_path / "truth.jsonl")
    pages = [tmp_path / name for name in ("beside.html", "named.html", "without.html")]
    for log, page, more in (
        (simulated, pages[0], []),
        (tmp_path / "log", pages[1], ["--truth", tmp_path / "truth.jsonl"]),
        (tmp_path / "log", pages[2], []),
    ):
        said = run(log, "--report", page, *more)
        assert said.exit_code == 0, (said.output, said.exception)
    beside, named, without = (
        [row for _, row in read_figures(files_of(page).figures_json).where("truth")] for page in pages
    )
    assert beside == named
    held_against = {"logged policy", "list price", "best fixed price, in hindsight", "oracle"}
    assert {row.policy for row in named} == held_against, "so small a log tells no best uniform price"
    assert not without
    lines = (tmp_path / "truth.jsonl").read_text().splitlines()
    (tmp_path / "half.jsonl").write_text("\n".join(lines[: len(lines) // 2]))
    for name, sentence in (("half.jsonl", "it belongs to another log"), ("none.jsonl", "is no file")):
        said = run(tmp_path / "log", "--report", tmp_path / "no.html", "--truth", tmp_path / name)
        assert sentence in said.output + str(said.exception)
    assert "--planned is for a report" in run(simulated, "--planned", 9_000).output
    assert "--truth is for a report" in run(simulated, "--truth", tmp_path / "truth.jsonl").output


def test_a_log_that_is_judged_as_it_grows_is_judged_by_intervals_that_hold_at_every_look(
    simulated: Path, tmp_path: Path
) -> None:
    (tmp_path / "dear.toml").write_text("name = 'dear'\nrule = { kind = 'list_price' }\n")
    asked = (simulated, "--policy", tmp_path / "dear.toml")
    widths = []
    for planned, judge, words in (
        ((), "bootstrap", "are for a log of this length that is judged once"),
        (("--planned", 100_000), "anytime", "tightest at the 100,000 draws planned"),
    ):
        page = tmp_path / f"{judge}.html"
        said = run(*asked, "--report", page, *planned)
        assert words in said.output
        assert words in page.read_text()
        figures = read_figures(files_of(page).figures_json)
        ((_, judged_by),) = figures.where("verdict", measure="judged by")
        assert judged_by.text == judge
        ((_, lift),) = figures.where("value", measure="lift over logged policy", policy="dear")
        widths.append((lift.high or 0.0) - (lift.low or 0.0))
    assert widths[1] > 3 * widths[0], "the boundary is flat: a look long before the plan is wide"
    assert "The log is judged as it grows" in page.read_text()
