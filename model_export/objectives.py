"""The two objectives: which item comes next, and whether the token's item is bought; from the same trunk.

Next item: softmax over a sample, the items that come next in the batch and others drawn by popularity, every score
corrected by the log of how often the item is expected in the sample, so that the network learns log P(item) and not how it
was sampled (Bengio & Senecal 2008; Yi et al. 2019, "Sampling-Bias-Corrected Neural Modeling").

Purchase: cross-entropy in which a purchase, the rare outcome, weighs more; the weight's log is then taken off the logit,
which is the exact correction for weighted examples (King & Zeng 2001). A price p moves the logit by -slope * log(p / list),
slope > 0: monotone by construction.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from features.inputs import FEATURE_NAMES
from model_export.export import PRIOR_SLOPE
from model_export.item_tables import ItemTables

_RATIO = FEATURE_NAMES.index("log_price_over_list")
_POPULARITY_POWER = 0.75


class NextItem:
    """The sampled softmax over the items of a training set."""

    def __init__(self, target_counts: NDArray[np.int64], item_counts: NDArray[np.int64], negatives: int) -> None:
        """Prepare.

        Args:
            target_counts: (N + 1,) how often each row is a target.
            item_counts: (N + 1,) tokens of each row; 0 is never drawn.
            negatives: drawn per batch.
        """
        popularity = item_counts.astype(np.float64) ** _POPULARITY_POWER
        popularity[0] = 0.0
        self._drawn = popularity / popularity.sum()
        self._cumulated = np.cumsum(self._drawn)
        self._in_batch = target_counts / max(1, target_counts.sum())
        self._negatives = negatives

    def loss(self, vectors: Tensor, targets: Tensor, tables: ItemTables, random: np.random.Generator) -> Tensor:
        """Return the mean loss of vectors (M, v) whose next items are the rows `targets` (M,), all > 0."""
        places = np.searchsorted(self._cumulated, random.random(self._negatives), side="right")
        drawn = torch.from_numpy(np.minimum(places, len(self._drawn) - 1))
        sample = torch.unique(torch.cat((targets, drawn)))
        candidates, bias = tables.candidates(sample)
        rows = sample.numpy()  # NumPy takes a tensor of one number for that number
        expected = len(targets) * self._in_batch[rows] + self._negatives * self._drawn[rows]
        correction = torch.from_numpy(np.log(np.clip(expected, 1e-12, 1.0)).astype(np.float32))
        scores = vectors @ candidates.T + bias - correction
        return cross_entropy(scores, torch.searchsorted(sample, targets))


class Purchase(nn.Module):
    """The purchase objective, and the price slope if it is learned."""

    def __init__(self, bought: NDArray[np.bool_], *, learn_slope: bool) -> None:
        """Prepare.

        Args:
            bought: outcomes of the training examples; the square root of the odds against a purchase is its weight.
            learn_slope: whether prices were randomised, so that the log can tell it.
        """
        super().__init__()
        share = float(np.clip(bought.mean() if len(bought) else 0.5, 1e-6, 0.5))
        self.weight = math.sqrt((1.0 - share) / share)
        start = torch.tensor(math.log(math.expm1(PRIOR_SLOPE)))
        self.raw_slope = nn.Parameter(start, requires_grad=learn_slope)

    @property
    def slope(self) -> Tensor:
        """Fall of the logit per unit of log price; > 0."""
        return softplus(self.raw_slope)

    def loss(self, logits: Tensor, features: Tensor, bought: Tensor) -> Tensor:
        """Return the mean weighted loss of logits (M,) at list price, of tokens seen at the price in features (M, F)."""
        if not len(logits):
            return logits.sum()
        at_price = logits + math.log(self.weight) - self.slope * features[:, _RATIO]
        weight = torch.tensor(self.weight)
        return binary_cross_entropy_with_logits(at_price, bought.to(logits.dtype), pos_weight=weight)
