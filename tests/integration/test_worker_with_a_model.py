"""Workers with a user transformer: live equals replay with the model in the path, and an artifact exchanged under way."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from deployment import COMMAND, Deployment, WorkerProcess, as_arguments, difference, expected

from backtest.perturb import Perturbation, perturb_log
from backtest.shoppers import generate_log
from contracts.decisions import Decision, decode_decision
from contracts.log import open_log
from features.artifact import artifact_digest, write_artifact
from features.text_search import ENCODER_DIRECTORY
from streams.metrics import STEPS
from streams.web import NEAREST_MAX

LIMIT_S = 120
USERS = 300


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> list[Path]:
    """Two models of random weights that know most of the generated items, and not all; other items' vectors are other prices."""
    from tests.features.models import DEFAULT, GENERATED, parts

    made = [tmp_path_factory.mktemp("models") / name for name in ("one", "two")]
    for seed, directory in enumerate(made, 1):
        write_artifact(directory, parts(DEFAULT, seed, GENERATED))
    return made


def point(link: Path, to: Path) -> None:
    """Move a link as a deployment does, so that it is never missing."""
    fresh = link.with_suffix(".new")
    fresh.symlink_to(to)
    fresh.replace(link)


def a_log(deployment: Deployment, directory: Path, events: int, seed: int) -> Path:
    generate_log(directory / "plain", USERS, events, seed, deployment.topology)
    perturb_log(directory / "plain", directory / "log", seed, Perturbation(late=0.05, duplicates=0.03, consents=0.03))
    return directory / "log"


def step_seconds(port: int) -> dict[str, float]:
    """Return what a worker says of the seconds in each step of its path."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        found = re.findall(r'^pricetide_step_seconds_total\{step="(\w+)"\} (\S+)$', page.read().decode(), re.MULTILINE)
    assert {step for step, _ in found} == set(STEPS)
    return {step: float(seconds) for step, seconds in found}


def decisions_of(published) -> list[Decision]:
    records = [decode_decision(value) for pairs in published.decisions for _, value in pairs]
    return [record for record in records if isinstance(record, Decision)]


@pytest.mark.parametrize(("batch_max", "users_max"), [(7, 64), (4_096, 1_000)])
def test_prices_with_a_model_equal_the_backtest_in_any_batches_and_with_any_memory(
    kafka, unique, tmp_path, artifacts, batch_max, users_max, free_port
):
    flags = {"batch_max": batch_max, "encoder__model": artifacts[0], "encoder__users_max": users_max}
    with Deployment(kafka, unique, tmp_path, partitions=3, **flags) as deployment:
        log = a_log(deployment, tmp_path, 5_000, 22)
        deployment.create().produce(log)
        ports = {name: free_port() for name in ("first", "second")}
        for name, port in ports.items():
            deployment.worker(name, port=port)
        deployment.wait_until_applied(LIMIT_S)
        published = deployment.published()
        assert difference(expected(log, 64, artifacts[:1]), published) == ""
        clocks = [step_seconds(port) for port in ports.values()]
        assert all(any(clock[step] > 0 for clock in clocks) for step in STEPS), clocks
        decisions = decisions_of(published)
        assert {decision.model for decision in decisions} == {artifact_digest(artifacts[0])}
        assert len({decision.preference for decision in decisions}) > len(decisions) / 2


def test_a_model_exchanged_under_way_is_on_the_prices_it_made_and_a_broken_one_changes_nothing(
    kafka, unique, tmp_path, artifacts
):
    link = tmp_path / "current"
    point(link, artifacts[0])
    shutil.copytree(artifacts[1], tmp_path / "broken")
    with (tmp_path / "broken" / "encoder.onnx").open("r+b") as graph:
        graph.truncate(100_000)
    flags = {"batch_max": 100, "encoder__model": link, "encoder__poll_ms": 100}
    with Deployment(kafka, unique, tmp_path, partitions=2, **flags) as deployment:
        log = a_log(deployment, tmp_path, 6_000, 34)
        deployment.create()
        workers = [deployment.worker(name) for name in ("first", "second")]
        for worker in workers:
            worker.wait_until_said("restored")
        producing = threading.Thread(target=deployment.produce, args=(log, 20))  # time for both on a slow machine
        producing.start()
        deployment.wait_until_begun()
        point(link, tmp_path / "broken")
        for worker in workers:
            worker.wait_until_said("the new one is refused")
        point(link, artifacts[1])
        for worker in workers:
            worker.wait_until_said(f"model {artifact_digest(artifacts[1])} takes over")
        producing.join()
        deployment.wait_until_applied(LIMIT_S)
        published = deployment.published()
        wanted = expected(deployment.record(tmp_path / "recorded"), 13, artifacts)
        assert difference(wanted, published) == ""
        made = {decision.model for decision in decisions_of(published)}
        assert made == {artifact_digest(artifact) for artifact in artifacts}


@pytest.mark.parametrize(
    ("file", "sentence"), [("encoder.onnx", "encoder.onnx has 1000 bytes"), (None, "manifest.json cannot be read")]
)
def test_a_worker_refuses_to_start_with_a_broken_model(kafka, unique, tmp_path, artifacts, file, sentence):
    broken = tmp_path / "broken"
    if file is not None:
        shutil.copytree(artifacts[0], broken)
        with (broken / file).open("r+b") as content:
            content.truncate(1_000)
    with Deployment(kafka, unique, tmp_path, partitions=1, encoder__model=broken) as deployment:
        worker: WorkerProcess = deployment.create().worker()
        assert worker.wait() == 78
        assert sentence in worker.said()


def test_a_worker_refuses_a_model_that_needs_more_history_than_the_state_keeps(kafka, unique, tmp_path, artifacts):
    flags = {"encoder__model": artifacts[0], "semantics__history_events_max": 64}
    with Deployment(kafka, unique, tmp_path, partitions=1, **flags) as deployment:
        worker = deployment.create().worker()
        assert worker.wait() == 78
        assert "set semantics.history_events_max to" in worker.said()


def page(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=30) as answer:
        return json.load(answer)


def test_users_show_and_the_pages_say_what_is_nearest_and_no_price_hangs_on_words(
    kafka, unique, tmp_path, artifacts, free_port
):
    from tests.model_export.tiny_encoder import exported_tiny_encoder

    text, port = tmp_path / "text", free_port()
    shutil.copytree(exported_tiny_encoder()[1], text / ENCODER_DIRECTORY)
    flags = {"encoder__model": artifacts[0], "encoder__text": text, "encoder__texts_per_second": 5_000}
    flags |= {"encoder__poll_ms": 100, "web_state": True}
    with Deployment(kafka, unique, tmp_path, partitions=2, **flags) as deployment:
        log = a_log(deployment, tmp_path, 1_000, 3)
        deployment.create().produce(log)
        deployment.worker(port=port)
        deployment.wait_until_applied(LIMIT_S)
        assert difference(expected(log, 64, artifacts[:1]), deployment.published()) == "", "as without a text encoder"
        user = next(row.user for row in open_log(log).rows() if row.type == "purchase" and row.raw is None)
        arguments = as_arguments(deployment.flags)
        shown = subprocess.run([COMMAND, "users", "show", user, *arguments], capture_output=True, text=True, check=True)
        assert f"user {user}" in shown.stdout
        assert artifact_digest(artifacts[0]) in shown.stdout
        assert "in words: nearest items" in " ".join(shown.stdout.split())
        profile = page(port, f"users/{quote(user)}")["profile"]
        assert profile["text"].startswith("In the last")
        assert len(profile["nearest"]) == NEAREST_MAX
        assert len(page(port, "items/search?q=red+boots")["nearest"]) == NEAREST_MAX
        nobody = subprocess.run(
            [COMMAND, "users", "show", "nobody", *arguments], capture_output=True, text=True, check=False
        )
        assert nobody.returncode == 2
        assert "No state of user 'nobody'" in nobody.stderr
