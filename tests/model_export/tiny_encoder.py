"""A BERT with random weights, small enough to export and tune in a test, as a Hugging Face directory."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

NOUNS = ("phone", "charger", "kettle", "boots", "sandals", "grill", "speaker", "puzzle")
BRANDS = ("Alder", "Birch", "Cedar", "Dogwood")
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_tiny_encoder(directory: Path, seed: int = 0) -> Path:
    """Write the encoder to `directory` and return it; its words are NOUNS, BRANDS and what stands between them."""
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
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    BertModel(config).save_pretrained(directory)
    return directory


def texts() -> list[str]:
    """Return a text per noun and brand."""
    return [f"{brand} {noun}; category: {noun}; brand: {brand}" for noun in NOUNS for brand in BRANDS]
