"""The exchange of a worker's model: with stand-ins, what is taken, refused and counted; with damaged files, that it lives on."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from contracts.errors import BadArtifact
from contracts.semantics import Semantics
from features.artifact import artifact_digest
from streams import models
from streams.demo import MODEL
from streams.metrics import Metrics
from streams.settings import EncoderSettings
from tests.features.damage import DAMAGES


class Shelf:
    """What lies at the path: a digest, or a sentence that refuses it."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self.refusal = ""
        self.opened: list[str] = []

    def open(self, settings: EncoderSettings, semantics: Semantics, path: Path) -> SimpleNamespace:
        self.opened.append(self.digest)
        if self.refusal:
            raise BadArtifact(self.refusal)
        return SimpleNamespace(digest=self.digest, residents=3, hits=5, rebuilt=7, release=lambda owner: None)


@pytest.fixture
def shelf(monkeypatch) -> Shelf:
    shelf = Shelf("one")
    monkeypatch.setattr(models, "open_encoder", shelf.open)
    monkeypatch.setattr(models, "artifact_digest", lambda path: shelf.digest)
    return shelf


def test_an_encoder_knows_how_long_it_has_been_at_work(monkeypatch):
    clock = SimpleNamespace(perf_counter=lambda: clock.now, now=100.0)

    def encode(self: models.Encoder, owner: object, asks: list) -> list:
        clock.now += 2.5
        return [owner, *asks]

    monkeypatch.setattr(models, "time", clock)
    monkeypatch.setattr(models.Encoder, "encode", encode)
    encoder = object.__new__(models.TimedEncoder)
    assert encoder.encode("owner", ["ask"]) == ["owner", "ask"]
    encoder.encode("owner", [])
    made = models.Models(EncoderSettings(), Semantics(consent_default=True), Metrics())
    assert made.seconds == 0.0
    made.current = encoder
    assert made.seconds == 5.0


def of(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"pricetide_{name}", labels)


async def turns(made: models.Models, steps: list[tuple[Callable[[], object], Callable[[], bool]]]) -> None:
    """Load, then follow; do `steps` one after another, each followed by polls until what it should lead to holds."""
    await made.load()
    following = asyncio.create_task(made.follow())
    async with asyncio.timeout(60):
        for step, holds in steps:
            step()
            while not holds():  # noqa: ASYNC110 - a poll sets no event
                await asyncio.sleep(0.02)
    following.cancel()


def test_another_artifact_at_the_path_takes_over(shelf):
    metrics = Metrics()
    made = models.Models(EncoderSettings(model=Path("m"), poll_ms=100), Semantics(consent_default=True), metrics)
    asyncio.run(turns(made, [(lambda: setattr(shelf, "digest", "two"), lambda: made.digest == "two")]))
    assert shelf.opened == ["one", "two"]
    assert of(metrics, "model_info", digest="one") is None
    assert of(metrics, "model_info", digest="two") == 1


def test_a_refused_artifact_changes_nothing_and_is_said_once_and_its_mend_is_taken(shelf, caplog):
    metrics = Metrics()
    made = models.Models(EncoderSettings(model=Path("m"), poll_ms=100), Semantics(consent_default=True), metrics)

    def broken() -> None:
        shelf.digest, shelf.refusal = "two", "encoder.onnx is cut short"

    asyncio.run(turns(made, [(broken, lambda: len(shelf.opened) > 3)]))  # looked at again and again
    assert made.digest == "one"
    assert of(metrics, "refused_models_total") == 1
    assert sum("encoder.onnx is cut short" in record.message for record in caplog.records) == 1
    shelf.refusal = ""
    asyncio.run(turns(made, [(lambda: None, lambda: made.digest == "two")]))


def test_a_broken_artifact_at_the_start_is_an_error(shelf):
    shelf.refusal = "encoder.onnx is cut short"
    made = models.Models(EncoderSettings(model=Path("m")), Semantics(consent_default=True), Metrics())
    with pytest.raises(BadArtifact, match="cut short"):
        asyncio.run(made.load())


def test_without_a_path_there_is_no_model_and_nothing_is_looked_at(shelf):
    made = models.Models(EncoderSettings(), Semantics(consent_default=True), Metrics())
    asyncio.run(made.load())
    asyncio.run(made.follow())  # ends at once
    assert made.current is None
    assert shelf.opened == []


def test_counters_go_on_over_an_exchange(shelf):
    metrics = Metrics()
    made = models.Models(EncoderSettings(model=Path("m"), poll_ms=100), Semantics(consent_default=True), metrics)
    made_two = (lambda: setattr(shelf, "digest", "two"), lambda: made.digest == "two")
    asyncio.run(turns(made, [(made.gauge, lambda: True), made_two]))
    made.gauge()
    made.gauge()
    assert of(metrics, "encoder_hits_total") == 10
    assert of(metrics, "encoder_rebuilt_tokens_total") == 14
    assert of(metrics, "encoder_resident_users") == 3


def following(path: Path) -> tuple[models.Models, Metrics]:
    metrics = Metrics()
    settings = EncoderSettings(model=path, poll_ms=100, users_max=64)
    return models.Models(settings, Semantics(consent_default=True), metrics), metrics


@pytest.fixture
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A copy of the demo's artifact with one of DAMAGES, and the sentence that refuses it."""
    pytest.importorskip("onnxruntime", reason="needs the extra encoder")
    damage, sentence = DAMAGES[request.param]
    shutil.copytree(MODEL, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    return tmp_path / "damaged", sentence


@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_damaged_files_at_the_start_end_a_worker_with_a_sentence(damaged):
    directory, sentence = damaged
    with pytest.raises(BadArtifact, match=sentence) as caught:
        asyncio.run(following(directory)[0].load())
    assert caught.value.exit_code == 78


def test_damaged_files_at_a_swap_are_refused_one_after_another_and_the_old_model_serves_on(tmp_path, caplog):
    pytest.importorskip("onnxruntime", reason="needs the extra encoder")
    current = tmp_path / "current"
    current.symlink_to(MODEL)
    made, metrics = following(current)

    def moved_to(case: str) -> None:
        directory = tmp_path / case
        shutil.copytree(MODEL, directory)
        DAMAGES[case][0](directory)
        (tmp_path / "link").symlink_to(directory)
        (tmp_path / "link").replace(current)

    async def swaps() -> bool:
        await made.load()
        watch = asyncio.create_task(made.follow())
        for number, case in enumerate(DAMAGES, 1):
            moved_to(case)
            for _ in range(400):
                if watch.done() or of(metrics, "refused_models_total") == number:
                    break
                await asyncio.sleep(0.05)
        alive = not watch.done()
        watch.cancel()
        return alive

    assert asyncio.run(swaps())
    assert made.digest == artifact_digest(MODEL)
    said = [record.message for record in caplog.records if "the new one is refused" in record.message]
    for message, (case, (_, sentence)) in zip(said, DAMAGES.items(), strict=True):
        assert re.search(sentence, message)
        assert str(tmp_path / case) in message
