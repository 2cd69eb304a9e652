"""The shared flags become Settings, over environment and file."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from contracts.errors import BadSettings
from streams.options import with_settings
from streams.settings import CONFIG_VARIABLE, Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, "")


def settings_of(*arguments: str) -> Settings:
    held: list[Settings] = []

    @click.command()
    @click.option("--limit", type=int, default=3)
    @with_settings
    def command(settings: Settings, limit: int) -> None:
        assert limit == 3
        held.append(settings)

    CliRunner().invoke(command, list(arguments), catch_exceptions=False)
    return held[0]


def test_flags_reach_the_settings_they_name():
    settings = settings_of(
        "--bootstrap-servers", "a:1,b:2", "--group", "g", "--data-dir", "/tmp/x", "--partitions", "7", "--port", "0",
        "--consent-default", "granted", "--set", "topics.views=v", "--set", "semantics.epoch=3",
        "--set", "web_state=true",
    )  # fmt: skip
    assert settings.kafka.bootstrap_servers == "a:1,b:2"
    assert (settings.group, settings.data_dir, settings.port) == ("g", Path("/tmp/x"), 0)
    assert (settings.topics.partitions, settings.topics.views) == (7, "v")
    assert settings.engine_semantics.consent_default is True
    assert settings.engine_semantics.epoch == 3
    assert settings.web_state is True


def test_consent_denied_is_a_value_and_not_a_missing_one():
    assert settings_of("--consent-default", "denied").engine_semantics.consent_default is False


def test_without_the_flag_consent_has_no_value_and_the_error_says_what_to_set():
    with pytest.raises(BadSettings, match=r"set semantics\.consent_default to true or false"):
        _ = settings_of().engine_semantics


def test_a_flag_beats_the_environment_and_the_environment_beats_the_file(monkeypatch, tmp_path):
    file = tmp_path / "pricetide.toml"
    file.write_text('group = "file"\n[topics]\npartitions = 2\n[kafka]\nbootstrap_servers = "file:1"\n')
    monkeypatch.setenv("PRICETIDE_GROUP", "environment")
    monkeypatch.setenv("PRICETIDE_TOPICS__PARTITIONS", "3")
    settings = settings_of("--config", str(file), "--partitions", "5")
    assert (settings.topics.partitions, settings.group, settings.kafka.bootstrap_servers) == (
        5,
        "environment",
        "file:1",
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "views"), "is not NAME=VALUE"),
        (("--set", "=x"), "is not NAME=VALUE"),
        (("--set", "topics.vieuws=x"), "topics.vieuws"),
        (("--set", "nonsense=x"), "nonsense"),
        (("--partitions", "0"), "topics.partitions"),
        (("--config", "/does/not/exist.toml"), "no settings file"),
    ],
)
def test_wrong_flags_are_refused_by_name(arguments, sentence):
    with pytest.raises(BadSettings, match=sentence.replace(".", r"\.")):
        settings_of(*arguments)
