"""Training: two stages over the tokens of a log, every epoch a checkpoint, and then the head that reads signals.

The stage `choose` learns from what lies before the validation slice, validates after every epoch, stops early, and
chooses how much scores point at recent items. The stage `final` learns anew, from the slice, too, for as many epochs as
did best: what happened last tells most. The signal head takes seconds, and goes the same way (purchase_head). All
randomness of an epoch comes from (seed, stage, epoch), and the learning rate from the place in the epoch, so a run that was
interrupted and resumed equals one that was not, bit for bit, on one machine.

The network's calibration, `pointing` and `returning` are from the stage `choose`: the final network has no data left that it
did not see. Not here: the losses (objectives), the artifact (export), the test (evaluation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor, nn

from contracts.errors import BadInput
from features.artifact import Architecture
from model_export.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from model_export.dataset import Dataset
from model_export.examples import Batch, Examples, batches, examples_of
from model_export.item_tables import ItemDropout, ItemTables
from model_export.network import DEFAULT, UserNetwork
from model_export.objectives import NextItem, Purchase
from model_export.purchase_head import bought_share, choose_head, learn_head, slice_of
from model_export.validation import answers_of, next_item_metrics, propensity_figures

Share = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[int, Meta(gt=0)]
CHOOSE, FINAL = "choose", "final"
POINTINGS = (1.0, 1.2, 1.4, 1.7)
"""How much vectors may point at recent items, times what was learned. A network meets the transitions that it learned from
again and again, and trusts them more than those to come deserve."""
RETURNINGS = (0.0, 2.0, 4.0)
"""What is added to the scores of recent items themselves: rows of a few dozen floats cannot point at an item alone, but only at
it and those like it."""

Progress = Callable[[int, int | None], None]
Tell = Callable[[str], None]


class Options(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a training run is decided by, beside its data."""

    architecture: Architecture = DEFAULT
    seed: int = 1
    epochs: Positive = 6
    """At most, per stage."""
    patience: Positive = 2
    """Epochs without a better validation before the first stage stops."""
    refit: bool = True
    """Whether there is a second stage."""
    learning_rate: float = 2e-3
    """Of the network."""
    item_learning_rate: float = 5e-3
    """Of what stands per item and per category: most items are met a few times only."""
    tokens_per_batch: Positive = 1_024
    negatives: Positive = 8_192
    hide_ids: Share = 0.3
    hide_rows: Share = 0.05
    hide_floats: Share = 0.2
    purchase_share: float = 1.0
    """Weight of the purchase loss; that of the next item is 1."""
    randomised_prices: bool = False
    """The log's prices were randomised: learn the price slope."""


class Learner(nn.Module):
    """Everything with weights: the network, the items, the price slope."""

    def __init__(
        self, options: Options, dataset: Dataset, text: NDArray[np.float32], judged: NDArray[np.bool_]
    ) -> None:
        super().__init__()
        self.network = UserNetwork(options.architecture, sees_prices=not options.randomised_prices)
        self.tables = ItemTables(dataset.items, text, options.architecture)
        self.purchase = Purchase(dataset.tokens.bought[judged], learn_slope=options.randomised_prices)


class Trained(Struct):
    """What training gives."""

    learner: Any
    """A Learner."""
    metrics: dict[str, float]
    """On the validation slice, of the best epoch of the first stage."""
    epochs: int


class Training:
    """One run; `run` it, or resume it from the directory of an interrupted one."""

    def __init__(
        self,
        dataset: Dataset,
        text: NDArray[np.float32],
        options: Options,
        directory: Path,
        tell: Tell = lambda line: None,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Prepare.

        Args:
            dataset: tokens and items.
            text: (N, width) text vectors of the items.
            options: see there.
            directory: for the checkpoint.
            tell: called with a line per epoch.
            progress: called with tokens done in this epoch, and how many there are.
        """
        self._dataset = dataset
        self._text = text
        self._options = options
        self._directory = directory
        self._tell = tell
        self._progress = progress

    def run(self, *, resume: bool = False) -> Trained:
        """Train, from the last checkpoint if told so.

        Raises:
            BadInput: there is a checkpoint and `resume` is False, or one of other options or data; or nothing to learn from.
        """
        checkpoint = read_checkpoint(self._directory, self._identity(), resume=resume) or Checkpoint(stage=CHOOSE)
        if checkpoint.stage == CHOOSE:
            self._choose(checkpoint)
            checkpoint = replace(
                checkpoint,
                stage=FINAL if self._options.refit else CHOOSE,
                epoch=0,
                state={} if self._options.refit else checkpoint.best,
                optimizer={},
            )
        learner = self._final(checkpoint) if self._options.refit else self._learner(CHOOSE, checkpoint.best)
        learner.network.pointing.fill_(checkpoint.pointing)
        learner.network.returning.fill_(checkpoint.returning)
        metrics = checkpoint.metrics | self._head(learner, checkpoint)
        if self._options.randomised_prices:
            metrics = metrics | {"price_slope": float(learner.purchase.slope)}
        return Trained(learner=learner.eval(), metrics=metrics, epochs=checkpoint.best_epoch)

    def _identity(self) -> str:
        told = (self._options, self._dataset.log_digest, self._dataset.until_ms, self._dataset.validation_ms)
        return msgspec.json.encode((*told, float(self._text.sum()))).decode()

    def _choose(self, checkpoint: Checkpoint) -> None:
        """Run the first stage from `checkpoint` on; what it finds is written to it."""
        options = self._options
        examples = examples_of(self._dataset, self._dataset.validation_ms)
        learner = self._learner(CHOOSE, checkpoint.state)
        optimizer = self._optimizer(learner, checkpoint.optimizer)
        while checkpoint.epoch < options.epochs and checkpoint.epoch - checkpoint.best_epoch < options.patience:
            losses = self._epoch(CHOOSE, checkpoint.epoch, learner, optimizer, examples)
            answers = answers_of(learner.network.eval(), learner.tables.eval(), examples)
            metrics = next_item_metrics(answers) | propensity_figures(answers)
            checkpoint.epoch += 1
            if (score := _score(metrics)) > checkpoint.best_score:
                checkpoint.best, checkpoint.best_epoch, checkpoint.best_score = _copy(learner), checkpoint.epoch, score
                checkpoint.metrics, checkpoint.judged = metrics, torch.from_numpy(answers.logit_token)
                checkpoint.logits = torch.from_numpy(answers.logits)
            checkpoint.state, checkpoint.optimizer = _copy(learner), optimizer.state_dict()
            write_checkpoint(self._directory, self._identity(), checkpoint)
            self._tell(_line(checkpoint.epoch, losses, metrics))
        self._point(checkpoint, examples)

    def _point(self, checkpoint: Checkpoint, examples: Examples) -> None:
        """Choose how much scores of the best epoch point at recent items, first at those like them, then at them alone; the
        metrics become those of the choice.
        """
        learner = self._learner(CHOOSE, checkpoint.best).eval()
        for name, values in (("pointing", POINTINGS), ("returning", RETURNINGS)):
            found: dict[float, dict[str, float]] = {}
            for value in values:
                getattr(learner.network, name).fill_(value)
                found[value] = next_item_metrics(answers_of(learner.network, learner.tables, examples))
            best = max(values, key=lambda value: _score(found[value]))
            getattr(learner.network, name).fill_(best)
            setattr(checkpoint, name, best)
            checkpoint.metrics = checkpoint.metrics | found[best] | {name: best}

    def _final(self, checkpoint: Checkpoint) -> Learner:
        """Run the second stage from `checkpoint` on and return what it has learned."""
        examples = examples_of(self._dataset, self._dataset.until_ms)
        learner = self._learner(FINAL, checkpoint.state)
        optimizer = self._optimizer(learner, checkpoint.optimizer)
        while checkpoint.epoch < checkpoint.best_epoch:
            losses = self._epoch(FINAL, checkpoint.epoch, learner, optimizer, examples)
            checkpoint.epoch += 1
            checkpoint.state, checkpoint.optimizer = _copy(learner), optimizer.state_dict()
            write_checkpoint(self._directory, self._identity(), checkpoint)
            self._tell(_line(checkpoint.epoch, losses, {}))
        return learner

    def _learner(self, stage: str, state: dict[str, Tensor]) -> Learner:
        learn_ms = self._dataset.validation_ms if stage == CHOOSE else self._dataset.until_ms
        judged = examples_of(self._dataset, learn_ms).judged
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._options.seed)
            learner = Learner(self._options, self._dataset, self._text, judged)
        if state:
            learner.load_state_dict(state)
        return learner

    def _optimizer(self, learner: Learner, state: dict[str, Any]) -> torch.optim.Optimizer:
        per_item = [module.weight for module in learner.tables.modules() if isinstance(module, nn.Embedding)]
        names = {id(weight) for weight in per_item}
        rest = [weight for weight in learner.parameters() if weight.requires_grad and id(weight) not in names]
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": per_item}]
        optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        if state:
            optimizer.load_state_dict(state)
        return optimizer

    def _epoch(
        self, stage: str, epoch: int, learner: Learner, optimizer: torch.optim.Optimizer, examples: Examples
    ) -> tuple[float, float]:
        """Learn from all examples once; return the mean losses, of the next item and of purchases."""
        options = self._options
        random = np.random.default_rng((options.seed, stage == FINAL, epoch))
        learned = examples.follows & (examples.target.numpy() > 0)
        wanted = learned | examples.judged
        total, done = int(wanted.sum()), 0
        if not total:
            raise BadInput(
                "Nobody has two events before the validation slice, and no view there is old enough to tell whether it led to a "
                "purchase: use a longer log, or a smaller share for validation"
            )
        next_item = NextItem(_counted(examples, learned), _counted_items(examples), options.negatives)
        rates = (options.learning_rate, options.item_learning_rate)
        sums = np.zeros(3)
        learner.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(random.integers(1 << 62)))
            for batch in batches(examples, wanted, options.tokens_per_batch, random):
                share = _rate((epoch + done / total) / options.epochs)
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * share
                losses = self._losses(learner, examples, batch, learned, next_item, random)
                optimizer.zero_grad()
                torch.autograd.backward(losses[0] + options.purchase_share * losses[1])
                nn.utils.clip_grad_norm_(learner.network.parameters(), 1.0)
                optimizer.step()
                sums += losses[0].item(), losses[1].item(), 1.0
                done += int(wanted[batch.token[batch.valid].numpy()].sum())
                self._progress(done, total)
        return float(sums[0] / sums[2]), float(sums[1] / sums[2])

    def _losses(
        self,
        learner: Learner,
        examples: Examples,
        batch: Batch,
        learned: NDArray[np.bool_],
        next_item: NextItem,
        random: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        options, token = self._options, batch.token
        hidden = ItemDropout(options.hide_ids, options.hide_rows, options.hide_floats)
        features = examples.features[token]
        item = learner.tables.inputs(examples.row[token], hidden)
        vectors, logits = learner.network.history(item, examples.kind[token], features)
        vectors = learner.network.pointed(vectors, item)
        asked = batch.valid & torch.from_numpy(learned)[token]
        judged = batch.valid & torch.from_numpy(examples.judged)[token]
        targets = examples.target[token[asked]]
        guess = next_item.loss(vectors[asked], targets, learner.tables, random) if len(targets) else vectors.sum() * 0
        return guess, learner.purchase.loss(logits[judged], features[judged], examples.bought[token[judged]])

    def _head(self, learner: Learner, checkpoint: Checkpoint) -> dict[str, float]:
        """Learn the signal head, put it and the calibration into the network; return how good the propensity is."""
        options, until_ms = self._options, self._dataset.until_ms
        early = examples_of(self._dataset, self._dataset.validation_ms)
        part = slice_of(early, checkpoint.judged.numpy(), checkpoint.logits.numpy())
        told = (learner.purchase, options.seed, not options.randomised_prices)
        chosen = choose_head(early, part, *told, self._tell)
        head, mix = chosen.head, chosen.mix
        if options.refit:
            all_of_it = examples_of(self._dataset, until_ms)
            head = learn_head(all_of_it, *told, chosen.epochs)
            mix = mix.moved(bought_share(early), bought_share(all_of_it))
        learner.network.signals.load_state_dict(head.state_dict())
        learner.network.calibration.copy_(torch.tensor(mix))
        return chosen.metrics


def _score(metrics: dict[str, float]) -> float:
    """What early stopping looks at: NDCG@20 of all next events and of those without repeats, added."""
    return metrics.get("ndcg", 0.0) + metrics.get("ndcg_without_repeats", 0.0)


def _rate(done: float) -> float:
    """Return the share of the learning rate: a rise over the first tenth of the epochs, then half a cosine down."""
    rise = 0.1
    return done / rise + 0.01 if done < rise else 0.5 + 0.5 * math.cos(math.pi * (done - rise) / (1.0 - rise))


def _counted(examples: Examples, learned: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.bincount(examples.target.numpy()[learned], minlength=len(examples.known))


def _counted_items(examples: Examples) -> NDArray[np.int64]:
    met = examples.follows | examples.judged
    return np.bincount(examples.row.numpy()[met], minlength=len(examples.known)) + examples.known


def _copy(learner: Learner) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in learner.state_dict().items()}


def _line(epoch: int, losses: tuple[float, float], metrics: dict[str, float]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    return f"epoch {epoch}: losses {losses[0]:.4f} {losses[1]:.4f}" + (f"; {told}" if told else "")
