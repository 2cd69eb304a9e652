"""A BERT or a T5 with random weights, small enough to export and tune in a test, as a Hugging Face directory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from tests.once import once

NOUNS = ("phone", "charger", "kettle", "boots", "sandals", "grill", "speaker", "puzzle")
BRANDS = ("Alder", "Birch", "Cedar", "Dogwood")
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_tiny_encoder(directory: Path, seed: int = 0) -> Path:
    """Write a BERT to `directory` and return it; its words are NOUNS, BRANDS and what stands between them."""
    words = _write_tokenizer(directory)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=words, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(directory)
    return directory


def exported_tiny_encoder() -> tuple[Path, Path]:
    """Return where such an encoder and its export lie, made once in a run of the tests: both for reading only."""
    from model_export.text_export import export_text_encoder

    def make(folder: Path) -> tuple[Path, Path]:
        torch.set_num_threads(1)
        source = write_tiny_encoder(folder / "source")
        export_text_encoder(str(source), folder / "encoder")
        return source, folder / "encoder"

    return once("tiny-encoder", make)


def write_tiny_t5(directory: Path) -> Path:
    """Write the encoder of a T5 to `directory` and return it."""
    words = _write_tokenizer(directory)
    torch.manual_seed(0)
    config = T5Config(vocab_size=words, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(directory)
    return directory


def declare(directory: Path, pooling: dict[str, object], *modules: str) -> Path:
    """Write down what stands behind the encoder's trunk as sentence-transformers does, and return `directory`."""
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    kinds = [f"sentence_transformers.models.{name}" for name in modules or ("Transformer", "Pooling")]
    listed = [{"path": "1_Pooling" if kind.endswith("Pooling") else "", "type": kind} for kind in kinds]
    (directory / "modules.json").write_text(json.dumps(listed))
    return directory


def _write_tokenizer(directory: Path) -> int:
    """Write the tokenizer, and return how many words it has."""
    words = (*_MARKS, *NOUNS, *BRANDS, ";", ":", "category", "brand", "a", "of", "in", "red")
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(directory)
    return len(words)


def texts() -> list[str]:
    """Return a text per noun and brand."""
    return [f"{brand} {noun}; category: {noun}; brand: {brand}" for noun in NOUNS for brand in BRANDS]
