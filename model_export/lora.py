"""Fine-tuning of a text encoder on behaviour: items met one after the other in a session are pulled together.

Pairs of neighbouring, different items of a session are positives, the other items of the batch negatives (in-batch softmax
in both directions, over cosines; van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding").
Two choices: low-rank adapters (Hu et al. 2021, "LoRA", by the library PEFT), merged into the weights at the end, or all
weights. The result is a Hugging Face directory like the one it came from. Not here: its export (text_export).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadInput
from model_export.baselines import sessions
from model_export.next_item import Task
from model_export.pooling import declarations, pooled_encoder, pooling_of
from model_export.text_export import load_encoder

if TYPE_CHECKING:
    from torch import Tensor, nn

HELD_OUT_SHARE = 10
"""One pair in so many, the last in time, is kept from training to tell whether it helped."""
HELD_OUT_BATCHES = 8
"""At most."""
_TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "sentence_bert_config.json",
)

Pair = tuple[str, str]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How to tune. Defaults suit a small encoder on a CPU."""

    full: bool = False
    """All weights instead of adapters."""
    steps: int = 200
    batch: int = 32
    rank: int = 8
    """Of the adapters."""
    learning_rate: float | None = None
    """None: 5e-4 with adapters, 2e-5 with all weights."""
    temperature: float = 0.05
    tokens_max: int = 48
    seed: int = 1

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 2e-5 if self.full else 5e-4


class Tuned(NamedTuple):
    """A tuned encoder."""

    model: nn.Module
    """A transformers model, adapters merged, in eval mode."""
    losses: list[float]
    """Of each step."""
    held_out_before: float
    """Mean loss on the held-out pairs, before and after; NaN where there are none."""
    held_out_after: float


def session_pairs(task: Task) -> NDArray[np.int64]:
    """Return (n, 2) candidates: neighbouring, different items of a session before the split, by time of the second."""
    session = sessions(task)
    neighbours = task.train[:-1] & task.train[1:] & (session[:-1] == session[1:]) & (task.item[:-1] != task.item[1:])
    place = np.flatnonzero(neighbours)
    place = place[np.argsort(task.time_ms[place + 1], kind="stable")]
    return np.stack((task.item[place], task.item[place + 1]), axis=1)


def with_adapters(model: Any, rank: int) -> Any:  # noqa: ANN401 - a transformers model of whatever class
    """Return `model` with low-rank adapters beside every linear layer but the pooler; only they are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", exclude_modules=r".*pooler.*"
    )
    return get_peft_model(model, config)


def contrastive_loss(left: Tensor, right: Tensor, temperature: float, same: Tensor) -> Tensor:
    """Return the mean in-batch loss, both directions.

    Args:
        left: (n, width) unit vectors.
        right: (n, width), row i the positive of row i.
        temperature: that cosines are divided by.
        same: (n, n) bool, true where right row j says the same as the positive of row i: no negative.
    """
    import torch
    from torch.nn.functional import cross_entropy

    scores = (left @ right.T / temperature).masked_fill(same & ~torch.eye(len(left), dtype=torch.bool), float("-inf"))
    target = torch.arange(len(left))
    return (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2


class _Batches:
    """Batches of pairs of texts, tokenised."""

    def __init__(self, directory: Path, pairs: Sequence[Pair], tuning: Tuning) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, local_files_only=True, padding_side="right")
        self._pairs = pairs
        self._tuning = tuning

    def loss(self, pooled: nn.Module, places: Sequence[int]) -> Tensor:
        """Return the loss of the pairs at `places`."""
        import torch

        left, right = zip(*(self._pairs[place] for place in places), strict=True)
        both = self._tokenizer(
            [*left, *right], padding=True, truncation=True, max_length=self._tuning.tokens_max, return_tensors="pt"
        )
        vectors = pooled(both["input_ids"], both["attention_mask"])
        same = torch.tensor([[a in (other, mine) for other in right] for a, mine in zip(left, right, strict=True)])
        same |= torch.tensor([[other == mine for other in right] for mine in right])
        half = len(places)
        return contrastive_loss(vectors[:half], vectors[half:], self._tuning.temperature, same)

    def mean_loss(self, pooled: nn.Module, places: Sequence[int]) -> float:
        """Return the mean loss over whole batches of `places`, in their order, without dropout; NaN if there is none."""
        import torch

        size = self._tuning.batch
        pooled.eval()
        with torch.inference_mode():
            whole = range(0, len(places) - size + 1, size)
            losses = [float(self.loss(pooled, places[start : start + size])) for start in whole]
        return float(np.mean(losses)) if losses else float("nan")


def tune(
    directory: Path, pairs: Sequence[Pair], tuning: Tuning, progress: Progress = lambda done, total: None
) -> Tuned:
    """Fine-tune the encoder in `directory` on pairs of texts, in order of time; equal arguments give equal weights.

    Raises:
        BadInput: fewer pairs than a batch, no encoder there, or one whose pooling is not known here.
    """
    import torch

    held_out = min(len(pairs) // HELD_OUT_SHARE, HELD_OUT_BATCHES * tuning.batch)
    learned = len(pairs) - held_out
    if learned < tuning.batch:
        raise BadInput(f"{len(pairs)} pairs of items are too few for batches of {tuning.batch}: use a longer log")
    torch.manual_seed(tuning.seed)
    random = np.random.default_rng(tuning.seed)
    pooling, model = pooling_of(directory), load_encoder(directory)
    trained = model if tuning.full else with_adapters(model, tuning.rank)
    pooled = pooled_encoder(trained, pooling.mode)
    batches = _Batches(directory, pairs, tuning)
    test = range(learned, len(pairs))
    before = batches.mean_loss(pooled, test)
    optimizer = torch.optim.AdamW([weight for weight in trained.parameters() if weight.requires_grad], lr=tuning.rate)
    losses: list[float] = []
    pooled.train()
    for step in range(1, tuning.steps + 1):
        loss = batches.loss(pooled, random.choice(learned, tuning.batch, replace=False).tolist())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
        progress(step, tuning.steps)
    after = batches.mean_loss(pooled, test)
    merged = trained if tuning.full else trained.merge_and_unload()
    return Tuned(merged.eval(), losses, before, after)


def save_encoder(tuned: Tuned, source: Path, directory: Path) -> None:
    """Write the tuned encoder to `directory`, with the tokenizer and the declared pooling of the one in `source`.

    Raises:
        BadInput: `directory` is `source`.
    """
    if directory.resolve() == source.resolve():
        raise BadInput(f"{directory} holds the encoder that was tuned: name another directory")
    directory.mkdir(parents=True, exist_ok=True)
    model: Any = tuned.model
    model.save_pretrained(directory)
    tokenizer = [file for pattern in _TOKENIZER_FILES for file in source.glob(pattern)]
    for file in (*tokenizer, *declarations(source)):
        copy = directory / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
