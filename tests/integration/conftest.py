"""A deployment of its own for every test: topics, group and data directory that nobody else uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from streams.settings import CONFIG_VARIABLE, Settings, load_settings

TOPICS = (
    "consents", "views", "clicks", "purchases", "price_updates", "decisions", "outcomes", "shadow_decisions", "dead_letters",
    "changelog", "catalogue", "policies",
)  # fmt: skip

Deploy = Callable[..., Settings]


@pytest.fixture
def deploy(kafka: str, unique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Return a function that gives settings with unique names; keywords are further settings by dotted name."""
    monkeypatch.setenv(CONFIG_VARIABLE, "")

    def settings(**flags: object) -> Settings:
        names = {f"topics.{topic}": unique + topic.replace("_", "-") for topic in TOPICS}
        given = {
            "kafka.bootstrap_servers": kafka,
            "group": unique + "group",
            "data_dir": tmp_path / "data",
            "topics.partitions": 2,
            "semantics.consent_default": True,
        }
        return load_settings(**{**names, **given, **flags})

    return settings


@pytest.fixture
def flags() -> Callable[[Settings], list[str]]:
    """Return a function that turns settings into command line flags."""

    def command_line_flags(settings: Settings) -> list[str]:
        names = [f"--set=topics.{topic}={getattr(settings.topics, topic)}" for topic in TOPICS]
        return [
            "--bootstrap-servers", settings.kafka.bootstrap_servers, "--group", settings.group,
            "--data-dir", str(settings.data_dir), "--partitions", str(settings.topics.partitions),
            "--consent-default", "granted", *names,
        ]  # fmt: skip

    return command_line_flags
