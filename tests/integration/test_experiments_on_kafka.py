"""Experiments by command on a real broker: versions, ramps, what runs, promotion; and what is refused before it is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from contracts.errors import BadInput, BadReference
from contracts.policies import ListPrice, Policy, SessionIntent
from pricetide import command_line
from streams.policy_changes import apply_policy
from streams.policy_log import read_policy_log
from streams.settings import Settings
from streams.topics import create_topics

LIST = Policy(name="list", number=1, rule=ListPrice())
BOLD = Policy(name="bold", number=1, rule=SessionIntent(explore=0.5))


@pytest.fixture
def settings(deploy) -> Settings:
    made = deploy()
    create_topics(made)
    apply_policy(made, LIST)
    apply_policy(made, BOLD, activate=False)
    return made


@pytest.fixture
def run(settings, flags):
    def command(*words: str) -> Result:
        words = ("experiment", *map(str, words), *flags(settings))
        return CliRunner().invoke(command_line, words, catch_exceptions=False)

    return command


def file_of(directory: Path, coverage: float = 0.1, name: str = "spring", more: str = "") -> Path:
    path = directory / f"{name}-{coverage}.toml"
    path.write_text(
        f'name = "{name}"\ncontrol = "plain"\ncoverage = {coverage}\n{more}'
        '[[variants]]\nname = "plain"\nweight = 0.5\npolicy = "list@1"\n'
        '[[variants]]\nname = "bold"\nweight = 0.5\npolicy = "bold@1"\n',
        encoding="utf-8",
    )
    return path


def running(settings) -> list[str]:
    return [one.version for one in read_policy_log(settings).book.experiments.running]


def test_an_experiment_is_applied_ramped_up_shown_and_stopped(settings, run, tmp_path):
    first = run("apply", file_of(tmp_path))
    assert "Published spring@1" in first.output and "spring@1 runs" in first.output
    assert "nothing was published again" in run("apply", file_of(tmp_path)).output
    assert "Published spring@2" in run("apply", file_of(tmp_path, 0.5)).output
    assert running(settings) == ["spring@2"]
    shown = json.loads(run("show", "spring", "--json").output)
    assert [(one["number"], one["running"], one["coverage"]) for one in shown] == [(1, False, 0.1), (2, True, 0.5)]
    assert "bold 50% bold@1" in run("show").output
    assert "spring@2 was stopped" in run("stop", "spring").output
    assert running(settings) == []


def test_what_workers_would_refuse_is_not_published(settings, run, tmp_path):
    run("apply", file_of(tmp_path, 0.5))
    ends = read_policy_log(settings).book.seen
    with pytest.raises(BadReference, match="only adds users"):
        run("apply", file_of(tmp_path, 0.2))
    with pytest.raises(BadReference, match="one namespace"):
        run("apply", file_of(tmp_path, name="summer"))
    with pytest.raises(BadReference, match="names policy bold@2, which is not on the topic"):
        path = file_of(tmp_path, name="autumn")
        path.write_text(path.read_text().replace("bold@1", "bold@2"))
        run("apply", path)
    assert read_policy_log(settings).book.seen == ends


def test_two_experiments_in_one_namespace_run_at_once(settings, run, tmp_path):
    for name, start, end in (("spring", 0.0, 0.5), ("summer", 0.5, 1.0)):
        space = f'namespace = {{name = "prices", start = {start}, end = {end}}}\n'
        run("apply", file_of(tmp_path, name=name, more=space))
    assert running(settings) == ["spring@1", "summer@1"]
    assert "Running: summer@1" in run("stop", "spring").output


def test_an_experiment_can_be_published_and_started_later(settings, run, tmp_path):
    assert "Running: no experiment" in run("apply", file_of(tmp_path), "--no-start").output
    assert running(settings) == []
    assert "spring@1 runs" in run("apply", file_of(tmp_path)).output


def test_promotion_makes_the_variants_policy_current_and_ends_the_experiment(settings, run, tmp_path):
    run("apply", file_of(tmp_path))
    with pytest.raises(BadInput, match="no variant 'brave'"):
        run("promote", "spring", "--variant", "brave")
    told = run("promote", "spring", "--variant", "bold").output
    assert "bold@1 is current (offset" in told and "Running: no experiment" in told
    log = read_policy_log(settings)
    assert (log.book.current.version, log.before()) == ("bold@1", "list@1")
    with pytest.raises(BadInput, match="does not run"):
        run("promote", "spring", "--variant", "bold")


def test_a_variant_of_the_builtin_policy_can_be_promoted(settings, run, tmp_path):
    path = file_of(tmp_path)
    path.write_text(path.read_text().replace("bold@1", "builtin"))
    run("apply", path)
    assert "builtin is current (offset" in run("promote", "spring", "--variant", "bold").output
    assert read_policy_log(settings).book.current.version == "builtin"
    assert running(settings) == []


def test_the_history_of_policies_names_experiments(settings, run, flags, tmp_path):
    run("apply", file_of(tmp_path))
    told = CliRunner().invoke(command_line, ["policy", "history", *flags(settings)], catch_exceptions=False).output
    assert "experiment spring@1" in told
    assert "running: spring@1" in told
