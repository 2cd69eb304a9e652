"""What the network knows of items, as weights: input rows and candidates, each a sum of text, id and category.

An item with little behaviour leans on its text and category: in training, ids are dropped now and then, and rows are
replaced by row 0, the item that the model has not seen. Exported as plain tables (model_export.export.Model), so a worker
needs no text encoder to read a token. Not here: the text vectors themselves (model_export.text, model_export.dataset).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding

from features.artifact import Architecture
from features.inputs import UNKNOWN_ITEM
from model_export.dataset import Items

UNKNOWN_BIAS = -1e4
"""Of row 0 among the candidates: what is not known is never proposed."""
_SPREAD = 0.1


class ItemDropout(NamedTuple):
    """What is hidden from the network in training, as shares."""

    ids: float
    """Of tokens whose item shows text and category only."""
    rows: float
    """Of tokens whose item is shown as one that the model has not seen."""
    floats: float
    """Of the floats of an input row."""


class _Sum(nn.Module):
    """text -> width, plus a vector per id, plus a vector per category."""

    def __init__(self, items: int, categories: int, text_width: int, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(text_width, width, bias=False)
        self.id = nn.Embedding(items + 1, width)
        self.category = nn.Embedding(categories, width)
        for weight in (self.text.weight, self.id.weight, self.category.weight):
            nn.init.normal_(weight, 0.0, _SPREAD)


class ItemTables(nn.Module):
    """Input rows (N + 1, width) and candidates (N + 1, vector) of the items.

    A candidate is the item's input row, and behind it vector - width floats of its own: the first part can point at items
    that a user has met, the second at those that follow them. Candidate bias: one per item and one per category.
    """

    def __init__(self, items: Items, text: NDArray[np.float32], architecture: Architecture) -> None:
        super().__init__()
        sizes = (len(items.ids), items.category_count, text.shape[1])
        self.rows_in = _Sum(*sizes, architecture.width)
        own = architecture.vector - architecture.width
        self.rows_out = _Sum(*sizes, own) if own else None
        self.bias = nn.Embedding(len(items.ids) + 1, 1)
        self.category_bias = nn.Embedding(items.category_count, 1)
        nn.init.zeros_(self.bias.weight)
        nn.init.zeros_(self.category_bias.weight)
        self.text: Tensor
        self.category: Tensor
        nothing = np.zeros((1, text.shape[1]), np.float32)
        self.register_buffer("text", torch.from_numpy(np.concatenate((nothing, text))), persistent=False)
        self.register_buffer("category", torch.from_numpy(np.append(0, items.categories)), persistent=False)

    def inputs(self, rows: Tensor, hidden: ItemDropout | None = None) -> Tensor:
        """Return the input rows of `rows`, (..., width); `hidden` in training."""
        if hidden is None:
            return self._sum(self.rows_in, rows, None)
        unseen = torch.rand(rows.shape) < hidden.rows
        shown = (torch.rand(rows.shape) >= hidden.ids)[..., None]
        summed = self._sum(self.rows_in, torch.where(unseen, UNKNOWN_ITEM, rows), shown)
        return dropout(summed, hidden.floats) if hidden.floats else summed

    def candidates(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors (n, vector) and biases (n,) of the items `rows`."""
        vectors = self._sum(self.rows_in, rows, None)
        if self.rows_out is not None:
            vectors = torch.cat((vectors, self._sum(self.rows_out, rows, None)), -1)
        bias = self.bias(rows) + self.category_bias(embedding(rows, self.category[:, None])[..., 0])
        return vectors, bias[..., 0]

    def tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return input rows, candidates and candidate bias of all items, as an artifact has them."""
        with torch.inference_mode():
            everything = torch.arange(len(self.category))
            rows = self.inputs(everything).numpy()
            candidates, bias = (part.numpy() for part in self.candidates(everything))
        candidates[UNKNOWN_ITEM], bias[UNKNOWN_ITEM] = 0.0, UNKNOWN_BIAS
        return rows, candidates, bias

    def _sum(self, parts: _Sum, rows: Tensor, shown: Tensor | None) -> Tensor:
        ids = parts.id(rows)
        ids = ids if shown is None else ids * shown
        whole: Tensor = ids + parts.text(embedding(rows, self.text)) + parts.category(self.category[rows])
        return whole
