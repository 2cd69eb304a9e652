"""The artifact: what was written is read; anything broken is refused with a sentence that says what, where, what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.errors import BadArtifact, BadSettings
from features.artifact import Parts, artifact_digest, load_artifact, write_artifact
from features.graph import graph_opset
from tests.features.damage import DAMAGES
from tests.features.models import ITEMS, SMALL, artifact, parts

onnx = pytest.importorskip("onnx")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "model", parts())
    return tmp_path / "model"


def test_what_was_written_is_read(directory):
    read, wanted = load_artifact(directory), parts()
    assert read.graph == wanted.graph
    assert read.rows == {item: number for number, item in enumerate(ITEMS, 1)}
    assert np.array_equal(read.item_rows, wanted.item_rows)
    assert np.array_equal(read.candidates, wanted.candidates)
    assert np.array_equal(read.candidate_bias, wanted.candidate_bias)
    assert np.array_equal(read.repeat, wanted.repeat)
    assert read.manifest.returning == wanted.returning
    assert read.manifest.architecture == SMALL
    assert (read.manifest.metrics, read.manifest.slope) == ({"recall": 0.25}, "prior")


def test_the_digest_names_the_content_alone(directory, tmp_path):
    digest = write_artifact(tmp_path / "again", parts())
    assert digest == artifact_digest(directory) == load_artifact(directory).digest
    assert len(digest) == 16
    changed = write_artifact(tmp_path / "other", replace(parts(), metrics={"recall": 0.26}))
    assert changed != digest


@pytest.mark.parametrize("recent", [[], [3], [3, 0, 3, 7]], ids=["nobody's", "one", "one twice, one unknown"])
def test_the_nearest_items_are_ranked_by_score_and_leave_the_unknown_item_out(recent):
    vector = np.linspace(-1, 1, SMALL.vector + SMALL.recent, dtype=np.float32)
    made = artifact()
    own = vector[: SMALL.vector].astype(np.float64)
    for age, row in enumerate(recent):
        own += vector[SMALL.vector + age] * (made.repeat @ made.item_rows[row])
    scores = {
        item: made.candidates[row] @ own + made.candidate_bias[row] + (0.5 if row in recent else 0.0)
        for item, row in made.rows.items()
    }
    found = made.nearest(vector, recent, 5)
    assert [item for item, _ in found] == sorted(scores, key=scores.__getitem__, reverse=True)[:5]
    assert [score for _, score in found] == pytest.approx([scores[item] for item, _ in found], abs=1e-5)


def changed_manifest(**fields: object) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        file = directory / "manifest.json"
        manifest = msgspec.json.decode(file.read_bytes())
        for name, value in fields.items():
            place, _, inner = name.partition("__")
            if inner:
                manifest[place][inner] = value
            else:
                manifest[place] = value
        file.write_bytes(msgspec.json.encode(manifest))

    return damage


def changed_manifest_without(name: str) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        file = directory / "manifest.json"
        manifest = msgspec.json.decode(file.read_bytes())
        del manifest[name]
        file.write_bytes(msgspec.json.encode(manifest))

    return damage


def changed_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(change((directory / name).read_bytes()))

    return damage


def removed(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def flipped(value: bytes) -> bytes:
    return value[:200] + bytes([value[200] ^ 1]) + value[201:]


DAMAGED = {
    "no manifest": (removed("manifest.json"), r"manifest\.json cannot be read"),
    "a manifest that is no JSON": (changed_file("manifest.json", lambda _: b"{"), r"manifest\.json is no manifest"),
    "a manifest of a later format": (changed_manifest(format=2), r"no manifest of this release .*format"),
    "a manifest with an unknown field": (changed_manifest(mood="good"), r"no manifest of this release .*mood"),
    "another opset by the manifest": (changed_manifest(opset=21), r"opset is 21, this release reads 20"),
    "another tokenisation": (changed_manifest(tokenisation="0"), r"tokenisation is '0', this release reads '1'"),
    "other features": (changed_manifest(feature_names=["log_price"]), r"feature_names is"),
    "other signals": (changed_manifest(signal_names=["views, 30 d"]), r"signal_names is"),
    "signals of another version": (changed_manifest(signals="0"), r"signals is '0', this release reads '1'"),
    "other kinds of tokens": (changed_manifest(kinds=["view", "click"]), r"kinds is"),
    "another window by the manifest": (changed_manifest(architecture__window=4), r"of another window or size"),
    "other heads by the manifest": (changed_manifest(architecture__kv_heads=2), r"of another window or size"),
    "another width by the manifest": (changed_manifest(architecture__width=32), r"items\.npy is .*\(41, 32\)"),
    "more recent items by the manifest": (changed_manifest(architecture__recent=6), r"golden\.npz vectors is .*, 18\)"),
    "fewer items by the manifest": (changed_manifest(items=39), r"items\.json has 40 ids"),
    "a price slope that rises": (changed_manifest(slope_value=-1.5), r"no manifest of this release .*slope_value"),
    "no price slope": (changed_manifest(slope_value=0.0), r"no manifest of this release .*slope_value"),
    "less for what comes again": (changed_manifest(returning=-1.0), r"no manifest of this release .*returning"),
    "another kind of network": (changed_manifest(architecture__kind="gpt2"), r"no manifest of this release .*kind"),
    "a list of files that lacks one": (changed_manifest(files={}), r"lists the files \[\]"),
    "a missing file": (removed("golden.npz"), r"golden\.npz cannot be read"),
    "a truncated graph": (changed_file("encoder.onnx", lambda value: value[:-100]), r"encoder\.onnx has .* bytes"),
    "a flipped bit in the graph": (changed_file("encoder.onnx", flipped), r"encoder\.onnx has SHA-256"),
    "a flipped bit in the items": (changed_file("items.npy", flipped), r"items\.npy has SHA-256"),
    "a truncated table": (changed_file("candidates.npy", lambda value: value[:-4]), r"candidates\.npy has .* bytes"),
    "an empty file": (changed_file("weights.safetensors", lambda _: b""), r"weights\.safetensors has 0 bytes"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_artifact_is_refused_with_a_sentence(directory, case):
    damage, sentence = DAMAGED[case]
    damage(directory)
    refused(directory, sentence)


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_under_right_digests_is_refused_with_a_sentence(directory, case):
    damage, sentence = DAMAGES[case]
    damage(directory)
    refused(directory, sentence)


def test_damage_that_nobody_thought_of_is_refused_with_a_sentence(directory, monkeypatch):
    monkeypatch.setattr("features.artifact.golden_of", lambda *given: int("?"))
    refused(directory, r"It is damaged \(ValueError: invalid literal")


def test_a_missing_runtime_is_no_damage(directory, monkeypatch):
    def without(graph: bytes) -> None:
        raise BadSettings("onnxruntime is not installed")

    monkeypatch.setattr("features.artifact.open_session", without)
    with pytest.raises(BadSettings, match="is not installed") as caught:
        load_artifact(directory)
    assert not isinstance(caught.value, BadArtifact)


def graph_with(change: Callable[[object], None]) -> Parts:
    graph = onnx.load_from_string(parts().graph)
    change(graph)
    return replace(parts(), graph=graph.SerializeToString())


def of_opset(version: int) -> Parts:
    return graph_with(lambda graph: setattr(graph.opset_import[0], "version", version))


def renamed_input() -> Parts:
    def rename(graph):
        for value in graph.input:
            if value.name == "kinds":
                value.name = "types"
        for node in graph.node:
            node.input[:] = ["types" if name == "kinds" else name for name in node.input]
            for branch in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
                rename(branch)

    return graph_with(lambda model: rename(model.graph))


def shortened_table() -> Parts:
    """Return a graph that loads and fails as it runs: rows of kinds of tokens are gone."""

    def shorten(model):
        (table,) = (value for value in model.graph.initializer if value.name == "read_kind")
        table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[:2], table.name))

    return graph_with(shorten)


def golden(**fields: np.ndarray) -> Parts:
    return replace(parts(), golden=parts().golden._replace(**fields))


def items_with(value: float) -> np.ndarray:
    rows = parts().item_rows.copy()
    rows[3, 3] = value
    return rows


def lengthened() -> np.ndarray:
    """Return candidates of which one, that no golden user has among the highest, is ahead of all others."""
    candidates = parts().candidates.copy()
    best = {item for nearest in parts().golden_scores for item, _ in nearest}
    row = next(row for row, item in enumerate(ITEMS, 1) if item not in best)
    candidates[row] *= 100
    return candidates


INCONSISTENT = {
    "another opset in the graph": (lambda: of_opset(21), r"imports opset 21, this release runs 20"),
    "a graph that is none": (lambda: replace(parts(), graph=b"\x00\x01\x02"), r"encoder\.onnx cannot be read"),
    "an empty graph": (lambda: replace(parts(), graph=b""), r"encoder\.onnx cannot be read: it imports no operator"),
    "a graph cut short": (lambda: replace(parts(), graph=parts().graph[:-9]), r"encoder\.onnx cannot be read"),
    "a graph that does not load": (lambda: graph_with(lambda g: g.graph.ClearField("node")), r"cannot load the graph"),
    "a graph that fails as it runs": (shortened_table, r"encoder\.onnx stops at sound tokens"),
    "an input of another name": (renamed_input, r"has inputs .*types.*, wanted .*kinds"),
    "another window": (
        lambda: replace(parts(), architecture=msgspec.structs.replace(SMALL, window=9)),
        r"keys_0 is .*of another window or size",
    ),
    "wrong golden vectors": (lambda: golden(vectors=parts().golden.vectors + np.float32(1e-3)), r"off by 1\.0e-03"),
    "wrong golden logits": (lambda: golden(logits=parts().golden.logits * np.float32(1.01)), r"off by"),
    "golden values of another model": (lambda: replace(parts(), golden=parts(items_seed=9).golden), r"off by"),
    "golden values that are no numbers": (
        lambda: golden(vectors=parts().golden.vectors * np.float32(np.nan)),
        r"not finite",
    ),
    "too few golden tokens": (
        lambda: replace(parts(), golden=type(parts().golden)(*(array[:, :8] for array in parts().golden))),
        r"4 users with 8 tokens: wanted some, longer than the window",
    ),
    "golden signals of another list": (
        lambda: golden(signals=parts().golden.signals[..., 1:]),
        r"golden\.npz signals is float32 \(4, 16, 13\)",
    ),
    "other golden signals": (lambda: golden(signals=parts().golden.signals + np.float32(0.1)), r"off by"),
    "golden rows of no item": (lambda: golden(rows=parts().golden.rows + 40), r"rows are not all within 0\.\.40"),
    "golden rows in one line": (lambda: golden(rows=parts().golden.rows[0]), r"golden\.npz rows is int64"),
    "items in float64": (
        lambda: replace(parts(), item_rows=parts().item_rows.astype(np.float64)),
        r"items\.npy is float64 \(41, 16\), wanted float32",
    ),
    "an item too few": (lambda: replace(parts(), item_rows=parts().item_rows[1:]), r"items\.npy is .*\(40, 16\)"),
    "other weights of items": (lambda: replace(parts(), item_rows=items_with(3.0) * 2), r"golden tokens, .*off by"),
    "items that are no numbers": (lambda: replace(parts(), item_rows=items_with(np.inf)), r"items\.npy .*not finite"),
    "pickled items": (
        lambda: replace(parts(), item_rows=np.array([object()])),
        r"items\.npy",
    ),
    "candidates of another length": (
        lambda: replace(parts(), candidates=parts().candidates[:, 1:]),
        r"candidates\.npy is float32 \(41, 11\)",
    ),
    "a bias too many": (lambda: replace(parts(), candidate_bias=np.zeros(42, np.float32)), r"candidate_bias\.npy"),
    "other candidates": (
        lambda: replace(parts(), candidates=parts().candidates[::-1]),
        r"golden scores are off by .* export it again",
    ),
    "a candidate of another length": (lambda: replace(parts(), candidates=lengthened()), r"golden scores are off by"),
    "another bias": (
        lambda: replace(parts(), candidate_bias=parts().candidate_bias[::-1]),
        r"golden scores are off by",
    ),
    "items in another order": (lambda: replace(parts(), items=ITEMS[::-1]), r"golden scores are off by"),
    "another item": (lambda: replace(parts(), items=[f"new-{item}" for item in ITEMS]), r"golden scores are off by"),
    "other weights of what comes again": (lambda: replace(parts(), returning=0.75), r"golden scores are off by"),
    "another way of pointing": (lambda: replace(parts(), repeat=parts().repeat * 2), r"golden scores are off by"),
    "golden scores that are no numbers": (
        lambda: replace(parts(), golden_scores=[[(ITEMS[0], float("nan"))]] * 4),
        r"no manifest of this release .*golden_scores",
    ),
    "golden scores of fewer users": (lambda: replace(parts(), golden_scores=parts().golden_scores[:-1]), r"is damaged"),
    "an item twice": (lambda: replace(parts(), items=[*ITEMS[:-1], ITEMS[0]]), r"40 ids, 39 different"),
}


@pytest.mark.parametrize("case", INCONSISTENT)
def test_an_artifact_that_does_not_fit_together_is_refused_with_a_sentence(tmp_path, case):
    make, sentence = INCONSISTENT[case]
    write_unchecked(tmp_path, make())
    refused(tmp_path, sentence)


def test_an_artifact_of_an_earlier_release_has_no_golden_scores_and_is_taken(tmp_path):
    write_artifact(tmp_path, parts())
    changed_manifest_without("golden_scores")(tmp_path)
    assert load_artifact(tmp_path).manifest.golden_scores == ()


def test_golden_scores_are_those_of_the_nearest_items(directory):
    made = load_artifact(directory)
    golden = parts().golden
    for user, nearest in enumerate(made.manifest.golden_scores):
        found = made.nearest(golden.vectors[user, -1], golden.rows[user, -1 : -SMALL.recent - 1 : -1].tolist(), 5)
        assert [item for item, _ in nearest] == [item for item, _ in found]
        assert [score for _, score in nearest] == pytest.approx([score for _, score in found], abs=1e-4)


def write_unchecked(directory: Path, made: Parts) -> None:
    """Write it as a program would that does not ask NumPy to refuse pickles."""
    if made.item_rows.dtype != object:
        write_artifact(directory, made)
        return
    write_artifact(directory, parts())
    np.save(directory / "items.npy", made.item_rows, allow_pickle=True)
    content = (directory / "items.npy").read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = msgspec.json.decode((directory / "manifest.json").read_bytes())
    manifest["files"]["items.npy"] = entry
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))


def refused(directory: Path, sentence: str) -> None:
    with pytest.raises(BadArtifact, match=sentence) as caught:
        load_artifact(directory)
    assert str(directory) in str(caught.value)
    assert any(verb in str(caught.value) for verb in ("export", "copy", "train"))


def test_a_broken_artifact_is_a_setting_that_the_operator_can_change():
    assert issubclass(BadArtifact, BadSettings)
    assert BadArtifact.exit_code == 78


@pytest.mark.parametrize(
    "imports", [[("", 20)], [("ai.onnx", 17)], [("pkg.torch", 1), ("", 18)], [("com.microsoft", 1), ("", 300)]]
)
def test_the_opset_of_a_graph_is_read_as_onnx_reads_it(imports):
    made = onnx.helper.make_model(
        onnx.helper.make_graph([], "empty", [], []), opset_imports=[onnx.helper.make_opsetid(*pair) for pair in imports]
    )
    assert graph_opset(made.SerializeToString()) == dict(imports).get("", dict(imports).get("ai.onnx"))


def test_a_graph_cut_anywhere_is_no_graph_or_says_the_same_opset():
    whole = parts().graph
    said = 0
    for end in [*range(0, len(whole), 997), len(whole)]:
        try:
            said += graph_opset(whole[:end]) == 20
        except ValueError as error:
            assert str(error) in {"it is cut short", "it imports no operator set"}
    assert said >= 1
