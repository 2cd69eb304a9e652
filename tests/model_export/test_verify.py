"""`pricetide model`: what it writes is one model, and what is not one is refused with a sentence and an exit code."""

from __future__ import annotations

import shutil
from io import BytesIO

import numpy as np
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the extra model-export")
torch.set_num_threads(1)

import onnx  # noqa: E402 - torch first, or there is nothing to test
from safetensors.torch import load, save  # noqa: E402

import pricetide  # noqa: E402
from contracts.errors import BadArtifact, BadInput  # noqa: E402
from contracts.log import open_log  # noqa: E402
from features.artifact import Parts, load_artifact, write_artifact  # noqa: E402
from features.graph import Golden  # noqa: E402
from model_export import commands  # noqa: E402
from model_export.dataset import log_digest  # noqa: E402
from model_export.runs import export_run, read_run  # noqa: E402
from model_export.verify import TOLERANCE, verify  # noqa: E402


def rewritten(artifact, directory, **other):
    """Write an artifact with valid digests, some of its parts exchanged."""
    whole = load_artifact(artifact)
    with np.load(artifact / "golden.npz") as arrays:
        golden = Golden(**{name: arrays[name] for name in Golden._fields})
    facts = whole.manifest
    parts = {
        "architecture": facts.architecture,
        "graph": whole.graph,
        "items": list(whole.rows),
        "item_rows": whole.item_rows,
        "candidates": whole.candidates,
        "candidate_bias": whole.candidate_bias,
        "repeat": whole.repeat,
        "golden": golden,
        "golden_scores": facts.golden_scores,
        "weights": (artifact / "weights.safetensors").read_bytes(),
        "slope": facts.slope,
        "slope_value": facts.slope_value,
        "returning": facts.returning,
        "text_encoder": facts.text_encoder,
        "trained_on": facts.trained_on,
        "metrics": facts.metrics,
        "versions": facts.versions,
    }
    write_artifact(directory, Parts(**(parts | other)))
    return directory


def test_a_trained_model_is_one_model(trained_artifact):
    found = verify(trained_artifact)
    assert max(found.golden, found.steps, found.chunks, found.far) <= TOLERANCE


def test_the_artifact_says_what_it_was_made_of(trained_artifact, trained_run, shop_log):
    manifest = load_artifact(trained_artifact).manifest
    assert manifest.trained_on == log_digest(open_log(shop_log))
    run = read_run(trained_run)[0]
    assert manifest.metrics == {**run.metrics, "until_ms": run.until_ms}
    assert manifest.slope == "prior"
    assert {"torch", "transformers", "onnx"} <= manifest.versions.keys()


def test_the_graph_tells_nothing_of_the_machine_that_made_it(trained_artifact):
    assert b".py" not in (trained_artifact / "encoder.onnx").read_bytes()


def test_weights_of_another_training_are_refused(trained_artifact, tmp_path):
    weights = load((trained_artifact / "weights.safetensors").read_bytes())
    weights["head.weight"] = weights["head.weight"] + 1e-3
    with pytest.raises(BadArtifact, match="not one model"):
        verify(rewritten(trained_artifact, tmp_path / "other", weights=save(weights)))


def test_weights_of_another_architecture_are_refused(trained_artifact, tmp_path):
    weights = load((trained_artifact / "weights.safetensors").read_bytes())
    del weights["head.weight"]
    with pytest.raises(BadArtifact, match="does not fit its architecture"):
        verify(rewritten(trained_artifact, tmp_path / "other", weights=save(weights)))


def test_golden_vectors_that_are_a_little_off_are_refused_though_a_worker_would_take_them(trained_artifact, tmp_path):
    with np.load(BytesIO((trained_artifact / "golden.npz").read_bytes())) as arrays:
        golden = Golden(**{name: arrays[name] for name in Golden._fields})
    other = rewritten(
        trained_artifact, tmp_path / "other", golden=golden._replace(vectors=golden.vectors + np.float32(5e-5))
    )
    load_artifact(other)
    with pytest.raises(BadArtifact, match="golden vectors"):
        verify(other)


@pytest.mark.parametrize("changed", ["repeat", "returning"])
def test_next_items_scored_by_other_numbers_than_the_weights_have_are_refused(trained_artifact, tmp_path, changed):
    whole = load_artifact(trained_artifact)
    now = {"repeat": whole.repeat * np.float32(1.5), "returning": whole.manifest.returning + 1.0}[changed]
    with pytest.raises(BadArtifact, match="golden scores are off by"):
        load_artifact(rewritten(trained_artifact, tmp_path / "other", **{changed: now}))
    without = rewritten(trained_artifact, tmp_path / "without", golden_scores=(), **{changed: now})
    load_artifact(without)
    with pytest.raises(BadArtifact, match=r"not one model.*repeat"):
        verify(without)


def test_random_candidates_under_right_digests_are_refused(trained_artifact, tmp_path):
    random = np.random.default_rng(0).standard_normal(load_artifact(trained_artifact).candidates.shape, np.float32)
    with pytest.raises(BadArtifact, match="golden scores are off by"):
        verify(rewritten(trained_artifact, tmp_path / "other", candidates=random))


def test_an_artifact_of_an_earlier_release_is_not_proved(trained_artifact, tmp_path):
    with pytest.raises(BadArtifact, match=r"has no golden scores, .* export the model again"):
        verify(rewritten(trained_artifact, tmp_path / "other", golden_scores=()))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [(lambda table: table[:2048], "stops at sound tokens"), (lambda table: np.roll(table, 1, 0), "at position")],
    ids=["too short", "turned at a place that no golden token has"],
)
def test_a_graph_that_is_right_for_golden_positions_alone_is_refused(trained_artifact, tmp_path, change, sentence):
    graph = onnx.load_from_string((trained_artifact / "encoder.onnx").read_bytes())
    (table,) = (value for value in graph.graph.initializer if value.name == "turn")
    whole = onnx.numpy_helper.to_array(table)
    wrong = np.concatenate((whole[:1024], change(whole)[1024:]))
    table.CopyFrom(onnx.numpy_helper.from_array(wrong, table.name))
    other = rewritten(trained_artifact, tmp_path / "other", graph=graph.SerializeToString())
    load_artifact(other)
    with pytest.raises(BadArtifact, match=sentence):
        verify(other)


def test_the_command_exports_the_same_bytes_again_and_verify_says_so_until_one_is_damaged(
    trained_run, trained_artifact, tmp_path, capsys
):
    artifact = tmp_path / "artifact"
    done = CliRunner().invoke(commands.model, ["export", str(trained_run), str(artifact)], catch_exceptions=False)
    assert "verified against torch" in done.output
    assert load_artifact(artifact).digest == load_artifact(trained_artifact).digest, "two exports are the same bytes"
    until_ms = load_artifact(artifact).manifest.metrics["until_ms"]
    assert until_ms == read_run(trained_run)[0].until_ms  # evaluate refuses a test on what was learned
    done = CliRunner().invoke(commands.model, ["verify", str(artifact)], catch_exceptions=False)
    assert "steps" in done.output
    (artifact / "items.npy").write_bytes((artifact / "items.npy").read_bytes()[:-4])
    with pytest.raises(SystemExit) as ended:
        pricetide.main(["model", "verify", str(artifact)])
    assert ended.value.code == 78
    assert "items.npy has" in capsys.readouterr().err


def test_an_export_that_is_not_proved_leaves_the_artifact_that_was_there(
    trained_run, trained_artifact, tmp_path, monkeypatch
):
    place = shutil.copytree(trained_artifact, tmp_path / "artifact")
    before = load_artifact(place).digest

    def refuses(directory):
        assert load_artifact(directory).manifest.trained_on == "another log", "whole, beside the one that is served"
        assert load_artifact(place).digest == before
        raise BadArtifact("not one model")

    def writes_another(directory, *of):  # half a minute less than an export, which is not what this is about
        return load_artifact(rewritten(trained_artifact, directory, trained_on="another log")).digest

    monkeypatch.setattr("model_export.runs.write_model", writes_another)
    monkeypatch.setattr("model_export.runs.verify", refuses)
    with pytest.raises(BadArtifact, match="not one model"):
        export_run(trained_run, place)
    assert load_artifact(place).digest == before
    assert [file.name for file in tmp_path.iterdir()] == ["artifact"]


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no finished run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("model.safetensors", lambda old: b"nothing"),
        ("run.json", lambda old: old.replace(b'"trained_on": "', b'"trained_on": "\xe9')),
        ("run.json", lambda old: b"[" * 100_000),
        ("items.json", lambda old: old[:3] + b"\xe9" + old[4:]),
    ],
    ids=["no weights", "a byte that is no UTF-8", "brackets", "an item with a byte that is no UTF-8"],
)
def test_a_damaged_run_is_refused(trained_run, tmp_path, file, harm):
    broken = shutil.copytree(trained_run, tmp_path / "run")
    (broken / file).write_bytes(harm((broken / file).read_bytes()))
    with pytest.raises(BadInput, match="no finished run"):
        read_run(broken)


def test_missing_libraries_are_named_with_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(commands, "NEEDED", ("torch", "a_library_that_nobody_has"))
    with pytest.raises(SystemExit) as ended:
        pricetide.main(["model", "verify", "."])
    assert ended.value.code == 78
    assert "needs a_library_that_nobody_has" in (told := capsys.readouterr().err)
    assert "pip install 'pricetide[model-export]'" in told
