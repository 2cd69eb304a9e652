"""From the states of a text's tokens to one vector: as the encoder declares it, the way sentence-transformers writes it down.

`modules.json` lists what stands behind the trunk, `1_Pooling/config.json` says which states count. An encoder that declares
nothing gets the mean. What is declared and not known here is refused: another pooling gives vectors that nobody trained. The
L2 norm comes last, whether it is declared or not. Not here: the trunk and its export (text_export).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

import msgspec

from contracts.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor, nn

MODULES, POOLING = "modules.json", "1_Pooling"
_KNOWN_MODULES = {"Transformer", "Pooling", "Normalize"}

Mode = Literal["mean", "cls", "last"]
"""The mean over the tokens, the first token's state, or the last one's."""
_MODES: dict[str, Mode] = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}


_Told = TypeVar("_Told")


class _Module(msgspec.Struct):
    """An entry of modules.json."""

    type: str
    path: str = ""

    @property
    def kind(self) -> str:
        """Name of its class."""
        return self.type.rpartition(".")[2]


class Pooling(NamedTuple):
    """How an encoder's vectors are made of its tokens' states."""

    mode: Mode = "mean"
    declared: bool = False
    """Whether the encoder says so."""


def pooling_of(directory: Path) -> Pooling:
    """Return the pooling of the Hugging Face encoder in `directory`.

    Raises:
        BadInput: it declares another pooling or further modules, or its declaration cannot be read.
    """
    modules = _modules(directory)
    kinds = [module.kind for module in modules]
    unknown = sorted(set(kinds) - _KNOWN_MODULES)
    if unknown:
        raise BadInput(
            f"The encoder in {directory} has the modules {', '.join(kinds)} ({MODULES}), and {', '.join(unknown)} cannot be "
            "exported: take an encoder of Transformer, Pooling and Normalize alone"
        )
    config = _read(_config_of(directory, modules), dict[str, object])
    if config is None:
        return Pooling()
    chosen = [
        name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on
    ]
    if len(chosen) != 1 or chosen[0] not in _MODES:
        raise BadInput(
            f"The encoder in {directory} declares the pooling {' and '.join(chosen) or 'of nothing'}; exported can be one of "
            f"{', '.join(_MODES)}: take another encoder"
        )
    return Pooling(_MODES[chosen[0]], declared=True)


def declarations(directory: Path) -> list[Path]:
    """Return the files in `directory` that `pooling_of` reads, as far as they are there."""
    config = _config_of(directory, _modules(directory))
    return [file for file in (directory / MODULES, config) if file.is_file()]


def pooled_encoder(model: nn.Module, mode: Mode) -> nn.Module:
    """Return a module (ids, mask) -> (batch, width): the last hidden states pooled under the mask, at unit length.

    The mask's ones come first in every row: texts are padded on the right.
    """
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            return torch.nn.functional.normalize(_pooled(states, mask, mode), dim=-1)

    return Pooled().eval()


def _pooled(states: Tensor, mask: Tensor, mode: Mode) -> Tensor:
    if mode == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    if mode == "last":  # one row of `weights` is left: that of the last token
        weights = weights * (weights.cumsum(1) == weights.sum(1, keepdim=True))
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def _modules(directory: Path) -> list[_Module]:
    return _read(directory / MODULES, list[_Module]) or []


def _config_of(directory: Path, modules: list[_Module]) -> Path:
    paths = [module.path for module in modules if module.kind == "Pooling"]
    return directory / (paths[0] if paths else POOLING) / "config.json"


def _read(file: Path, kind: type[_Told]) -> _Told | None:
    """Return what JSON of sentence-transformers says, None if the file is not there."""
    if not file.is_file():
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} cannot be read ({error}): download the encoder again") from None
