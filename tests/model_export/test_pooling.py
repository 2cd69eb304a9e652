"""What is made of a text's tokens is what the encoder declares: mean, first or last token; anything else is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoTokenizer, BartConfig, BartModel, BertModel, T5EncoderModel

from contracts.catalogue import CatalogueItem, encode_item
from contracts.errors import BadInput
from model_export.lora import Tuned, save_encoder
from model_export.pooling import pooled_encoder, pooling_of
from model_export.text_commands import text_command
from model_export.text_export import export_text_encoder, load_encoder, source_digest
from tests.model_export.tiny_encoder import declare, write_tiny_encoder, write_tiny_t5

SAID = ["phone", "a red phone of Alder", "boots; brand: Cedar; category: boots", ""]
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def states_of(directory, kind, one):
    """The last hidden states of one text, by transformers alone."""
    ids = AutoTokenizer.from_pretrained(directory)(one, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return kind.from_pretrained(directory).eval()(input_ids=ids).last_hidden_state[0].numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


POOLED = {"mean": lambda states: states.mean(0), "cls": lambda states: states[0], "last": lambda states: states[-1]}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    torch.set_num_threads(1)
    return write_tiny_encoder(tmp_path_factory.mktemp("source"))


@pytest.mark.parametrize("mode", POOLED)
def test_padded_texts_are_pooled_as_each_one_alone(source, mode):
    both = AutoTokenizer.from_pretrained(source)(SAID, padding=True, return_tensors="pt")
    with torch.inference_mode():
        vectors = pooled_encoder(load_encoder(source), mode)(both["input_ids"], both["attention_mask"]).numpy()
    expected = [unit(POOLED[mode](states_of(source, BertModel, one))) for one in SAID]
    assert np.abs(vectors - np.array(expected)).max() < 1e-5


def test_an_encoder_that_declares_its_first_token_is_exported_with_it(tmp_path):
    directory = declare(write_tiny_encoder(tmp_path / "source"), CLS, "Transformer", "Pooling", "Normalize")
    made = export_text_encoder(str(directory), tmp_path / "encoder")
    expected = np.array([unit(states_of(directory, BertModel, one)[0]) for one in SAID])
    assert np.abs(made.embed(SAID) - expected).max() < 1e-5
    assert (made.manifest.pooling, made.manifest.pooling_declared) == ("cls", True)


def test_the_encoder_of_a_t5_is_exported_and_nothing_declared_is_the_mean_and_said(tmp_path):
    directory = write_tiny_t5(tmp_path / "source")
    item = CatalogueItem(
        item="a", valid_from_ms=0, title="red phone", category="", brand="", currency="USD", list_price=1
    )
    (tmp_path / "catalogue.jsonl").write_bytes(encode_item(item) + b"\n")
    words = [str(directory), str(tmp_path / "catalogue.jsonl"), str(tmp_path / "out")]
    done = CliRunner().invoke(text_command, words, catch_exceptions=False)
    assert "pooling mean, for the encoder declares none" in done.output
    made = export_text_encoder(str(directory), tmp_path / "out" / "encoder")
    expected = np.array([unit(states_of(directory, T5EncoderModel, one).mean(0)) for one in SAID])
    assert np.abs(made.embed(SAID) - expected).max() < 1e-5
    assert (made.manifest.pooling, made.manifest.pooling_declared) == ("mean", False)


@pytest.mark.parametrize(
    ("pooling", "modules", "sentence"),
    [
        ({"pooling_mode_max_tokens": True}, (), r"declares the pooling max_tokens; .* take another encoder"),
        ({**CLS, "pooling_mode_mean_tokens": True}, (), r"cls_token and mean_tokens"),
        ({"pooling_mode_mean_tokens": False}, (), r"declares the pooling of nothing"),
        (CLS, ("Transformer", "Pooling", "Dense", "Normalize"), r"and Dense cannot be exported: take an encoder"),
    ],
    ids=["the maximum", "two at once", "none of them", "a layer behind it"],
)
def test_what_is_not_known_here_is_refused(tmp_path, pooling, modules, sentence):
    with pytest.raises(BadInput, match=sentence):
        pooling_of(declare(tmp_path, pooling, *modules))


@pytest.mark.parametrize("file", ["modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize(
    "written", [b'{"caf\xe9": 1}', b"[" * 100_000, b"[3]", b'"mean"'], ids=["bytes", "deep", "3", "text"]
)
def test_a_declaration_that_cannot_be_read_is_refused(tmp_path, file, written):
    declare(tmp_path, CLS)
    (tmp_path / file).write_bytes(written)
    with pytest.raises(BadInput, match=rf"{file} cannot be read .*: download the encoder again"):
        pooling_of(tmp_path)


def test_the_pooling_is_found_where_the_list_of_modules_says(tmp_path):
    declare(tmp_path, CLS)
    (tmp_path / "1_Pooling").rename(tmp_path / "pool")
    listed = json.loads((tmp_path / "modules.json").read_text())
    listed[1]["path"] = "pool"
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    assert pooling_of(tmp_path) == ("cls", True)


def test_another_pooling_is_another_source(source, tmp_path):
    bare = source_digest(write_tiny_encoder(tmp_path))
    assert bare == source_digest(source)
    first = source_digest(declare(tmp_path, CLS))
    assert len({bare, first, source_digest(declare(tmp_path, {"pooling_mode_lasttoken": True}))}) == 3


def test_a_tuned_encoder_declares_what_its_source_does(tmp_path):
    directory = declare(write_tiny_encoder(tmp_path / "source"), CLS)
    save_encoder(Tuned(load_encoder(directory), [], 0.0, 0.0), directory, tmp_path / "tuned")
    assert pooling_of(tmp_path / "tuned") == pooling_of(directory) == ("cls", True)


def test_an_encoder_that_fails_as_it_runs_is_refused_with_a_sentence(source, tmp_path, monkeypatch):
    def fails(*given, **more):
        raise TypeError("no such thing\nand a hundred lines of why")

    monkeypatch.setattr(BertModel, "forward", fails)
    with pytest.raises(BadInput, match=r"cannot be exported \(TypeError: no such thing\): take another one"):
        export_text_encoder(str(source), tmp_path / "encoder")


def test_a_decoder_is_no_encoder(tmp_path):
    config = BartConfig(vocab_size=8, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
                        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8, max_position_embeddings=8)  # fmt: skip
    BartModel(config).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="bart has a decoder, and no encoder of its own"):
        load_encoder(tmp_path)
