"""What is deployed fits the code: settings exist, metrics exist, images are pinned. Needs no Docker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
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
CONSTRAINTS = ROOT / "deploy/constraints.txt"
NEVER_DEPLOYED = {"dev", "model-export"}
"""Extras that no image has."""


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
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE=(\S+)", dockerfile, flags=re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, flags=re.MULTILINE)) == {"${BASE}"}
    assert not [image for image in [*images, base] if not re.search(r":v?\d+\.\d+\.\d+", image)]


@pytest.mark.parametrize("service", sorted(set(compose()["services"]) - {"topics"}))
def test_what_runs_for_long_is_watched_and_started_again(service: str) -> None:
    run = compose()["services"][service]
    assert run["restart"] == "unless-stopped"
    assert run["healthcheck"]["test"][0] == "CMD"


def test_what_writes_keeps_it_in_a_volume_of_its_own() -> None:
    mounts = [mount.split(":") for service in compose()["services"].values() for mount in service.get("volumes", [])]
    named = [mount[0] for mount in mounts if not mount[0].startswith("./")]
    assert sorted(named) == sorted(compose()["volumes"])
    assert all((ROOT / mount[0]).exists() and mount[2] == "ro" for mount in mounts if mount[0].startswith("./"))


def test_grafana_finds_its_dashboards_where_compose_puts_them() -> None:
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/pricetide.yml").read_text())["providers"]
    mounts = compose()["services"]["grafana"]["volumes"]
    assert f"./deploy/grafana/dashboards:{provider[0]['options']['path']}:ro" in mounts


# -- what the image installs -------------------------------------------------------------------------------------------


def constraints() -> dict[str, str]:
    """Return the version of every package that deploy/constraints.txt pins; each line but a comment must be one."""
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    pins = [re.fullmatch(r"([a-z0-9-]+)==([^\s;]+)", line) for line in lines]
    assert all(pins), [line for line, pin in zip(lines, pins, strict=True) if not pin]
    return {pin[1]: pin[2] for pin in pins if pin}


def unmet(needed: Iterable[str], extras: Iterable[str] = ("",)) -> list[str]:
    """Return which requirements apply to the image's Python and are not met by the constraints."""
    environments = [{"extra": extra, "python_version": "3.11", "sys_platform": "linux"} for extra in extras]
    pins = constraints()
    out = []
    for text in needed:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate(environment) for environment in environments):
            name = re.sub(r"[-_.]+", "-", one.name).lower()
            met = name in pins and one.specifier.contains(pins[name], prereleases=True)
            out += [] if met or name == "pricetide" else [text]
    return out


def test_the_constraints_meet_every_requirement_that_an_image_can_have() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name not in NEVER_DEPLOYED}
    assert extras.keys() >= {"log", "encoder"}
    assert not unmet([*project["dependencies"], *(one for needed in extras.values() for one in needed)])


def test_what_the_constraints_pin_needs_nothing_that_they_do_not_pin() -> None:
    """Of the packages that are installed here at that version: others may need other things."""
    here = {name: found for name in constraints() if (found := version_here(name)) == constraints()[name]}
    assert here.keys() >= {"faust-streaming", "rocksdict"}, "pyproject.toml has no other version of these"
    missing = {name: unmet(requires(name) or ()) for name in here}
    assert not {name: needed for name, needed in missing.items() if needed}


def version_here(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def test_constraints_are_written_from_the_environment_of_the_tests() -> None:
    script = ROOT / "deploy/constraints.py"
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {f"rocksdict=={version('rocksdict')}", f"aiohttp=={version('aiohttp')}"} <= set(said)
    assert not [line for line in said if line.startswith(("torch==", "pytest==", "pricetide=="))]


def test_the_image_installs_by_the_constraints_under_the_python_that_they_are_for() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    (python,) = re.findall(r"^# Python (\d\.\d+)$", CONSTRAINTS.read_text(), flags=re.MULTILINE)
    assert f"ARG BASE=python:{python}." in dockerfile
    assert "pip wheel --no-cache-dir --constraint constraints.txt" in dockerfile
    assert "!deploy/constraints.txt" in (ROOT / ".dockerignore").read_text().splitlines()


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


def test_whatever_prometheus_scrapes_has_an_alert_for_when_it_is_down() -> None:
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    text = RULES.read_text()
    assert {job["job_name"] for job in jobs} == {"pricetide", "pricetide-learner", "pricetide-guard"}
    assert all(f'up{{job="{job["job_name"]}"}} == 0' in text for job in jobs)


def test_every_alert_says_what_to_do() -> None:
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
