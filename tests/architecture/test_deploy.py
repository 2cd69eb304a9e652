"""What is deployed fits the code: settings exist, metrics exist, images are pinned. Needs no Docker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from contracts.semantics import Semantics
from streams.guard import GuardMetrics
from streams.learner_metrics import LearnerMetrics
from streams.metrics import Metrics
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
YAML = [ROOT / "docker-compose.yml", *sorted((ROOT / "deploy").rglob("*.yml"))]
DASHBOARD = ROOT / "deploy/grafana/dashboards/pricetide.json"
RULES = ROOT / "deploy/prometheus/rules.yml"


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


def variables(model: type[BaseModel], prefix: str) -> set[str]:
    """Return the environment variable of every field, groups included."""
    out = set()
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name}".upper()
        group = field.annotation
        out |= (
            variables(group, f"{variable}__")
            if isinstance(group, type) and issubclass(group, BaseModel)
            else {variable}
        )
    return out


def settings_variables() -> set[str]:
    semantics = {f"PRICETIDE_SEMANTICS__{name}".upper() for name in Semantics.__struct_fields__}
    return variables(Settings, "PRICETIDE_") | semantics


def series() -> set[str]:
    """Return the names of the time series that a worker, a learner or the guard exports."""
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + ending for family in families() for ending in endings[family.type]}


def families() -> list[Any]:
    """Return the metrics of a worker, of a learner and of the guard."""
    return [one for of in (Metrics, LearnerMetrics, GuardMetrics) for one in of().registry.collect()]


@pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
def test_every_yaml_file_parses(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_compose_sets_only_settings_that_exist() -> None:
    given = {name for service in compose()["services"].values() for name in service.get("environment", {})}
    ours = {name for name in given if name.startswith("PRICETIDE_")}
    assert ours
    assert ours <= settings_variables()


def test_the_image_sets_only_settings_that_exist() -> None:
    ours = set(re.findall(r"\b(PRICETIDE_\w+)=", (ROOT / "deploy/Dockerfile").read_text()))
    assert ours
    assert ours <= settings_variables()


def test_compose_starts_kafka_then_topics_then_a_worker() -> None:
    services = compose()["services"]
    assert "healthcheck" in services["kafka"]
    assert services["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert services["worker"]["depends_on"]["topics"]["condition"] == "service_completed_successfully"
    assert "/readyz" in str(services["worker"]["healthcheck"])


def test_compose_has_one_learner_beside_the_worker() -> None:
    learner = compose()["services"]["learner"]
    assert (learner["command"], learner["environment"]) == (["learn"], compose()["services"]["worker"]["environment"])
    assert "deploy" not in learner, "one writer per policy: a second one would fence it"


def test_a_worker_of_compose_can_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in compose()["services"]["worker"]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value)))
    settings = Settings()
    assert settings.kafka.bootstrap_servers == "kafka:19092"
    assert settings.engine_semantics.consent_default is False


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+)", (ROOT / "deploy/Dockerfile").read_text(), flags=re.MULTILINE)
    assert not [image for image in images if not re.search(r":v?\d+\.\d+", image)]


def test_the_tests_compose_and_the_local_broker_run_one_kafka() -> None:
    version = re.search(r"<kafka.version>(.*?)<", (ROOT / "deploy/kafka-local/pom.xml").read_text())
    assert version is not None
    image = f"apache/kafka:{version.group(1)}"
    assert compose()["services"]["kafka"]["image"] == image
    assert f'KAFKA_IMAGE = "{image}"' in (ROOT / "tests/conftest.py").read_text()


def test_alerts_and_dashboard_use_series_that_are_exported() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]
    used = {name for query in queries for name in re.findall(r"\bpricetide_\w+", query)}
    assert used <= series()


def test_the_dashboard_shows_every_metric() -> None:
    text = DASHBOARD.read_text()
    hidden = {"pricetide_restored_records", "pricetide_restore_seconds"}  # a figure of a benchmark, not of a day
    assert not {family.name for family in families() if family.name not in text} - hidden


def test_every_alert_says_what_to_do() -> None:
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
