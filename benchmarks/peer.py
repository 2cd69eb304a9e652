"""What others do instead of a step: encode the last tokens of a user again, with the same weights. In two ways.

EveryVector is the ordinary one: the network as it was trained, exported over whole sequences, a vector for every token.
LastVector is cut down to what the newest token's vector needs: the last layer evaluates one query. Both give what a step gives,
the user vector and the logit of a purchase with its signals, and both take the items' vectors from a table as a step does: the
prototype's peer also projected each item from the 384 floats of its text, which these are spared. Over the last W tokens
either is another function than the step, over layers * (W - 1) + 1 tokens it is the same. Build time: needs torch. Nothing of
the product uses this.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from features.signals import SIGNAL_NAMES
from model_export.network import MASKED, UserNetwork
from model_export.onnx_graph import graph_bytes


class EveryVector(nn.Module):
    """The network over whole sequences, the first token at position 0."""

    def __init__(self, network: UserNetwork) -> None:
        super().__init__()
        self.network = deepcopy(network).float().eval()

    def forward(
        self, rows: Tensor, kinds: Tensor, features: Tensor, signals: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return vectors (B, T, v + R) and logits (B, T) of tokens (B, T)."""
        return self.network.history(embedding(rows, items), kinds, features, signals)


class LastVector(nn.Module):
    """The network over whole sequences, for the vector of the last token alone."""

    def __init__(self, network: UserNetwork) -> None:
        super().__init__()
        self.network = deepcopy(network).float().eval()

    def forward(
        self, rows: Tensor, kinds: Tensor, features: Tensor, signals: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return vectors (B, 1, v + R) and logits (B, 1) after tokens (B, T), the first at position 0."""
        trunk, window = self.network.trunk, self.network.architecture.window
        item = embedding(rows, items)
        at = torch.arange(rows.shape[1])
        age = at[:, None] - at
        mask = torch.where((age >= 0) & (age < window), 0.0, MASKED).expand(rows.shape[0], 1, -1, -1)
        x = self.network._embedded(item, kinds, features)
        rotation = trunk.rotary_emb(x, at.expand(rows.shape[0], -1))
        for layer in trunk.layers[:-1]:
            x = layer(x, attention_mask=mask, position_embeddings=rotation)
        x = _last_query(trunk.layers[-1], x, mask[:, :, -1:], rotation)
        vectors, logits = self.network._answers(trunk.norm(x))
        return vectors, self.network.calibrated(logits, kinds[:, -1:], features[:, -1:], signals[:, -1:])


def _last_query(
    layer: Any,  # noqa: ANN401 - what transformers gives has no types
    x: Tensor,
    mask: Tensor,
    rotation: tuple[Tensor, Tensor],
) -> Tensor:
    """Return (B, 1, d): what a decoder layer makes of the last token of (B, T, d)."""
    attention, last = layer.self_attn, x[:, -1:]
    normed = layer.input_layernorm(x)
    heads = (x.shape[0], -1, attention.q_proj.out_features // attention.head_dim, attention.head_dim)
    groups = (x.shape[0], -1, attention.k_proj.out_features // attention.head_dim, attention.head_dim)
    query = attention.q_norm(attention.q_proj(normed[:, -1:]).view(heads)).transpose(1, 2)
    key = attention.k_norm(attention.k_proj(normed).view(groups)).transpose(1, 2)
    value = attention.v_proj(normed).view(groups).transpose(1, 2)
    cosine, sine = rotation
    key = apply_rotary_pos_emb(key, key, cosine, sine)[0]
    query = apply_rotary_pos_emb(query, query, cosine[:, -1:], sine[:, -1:])[0]
    batch, count, _, width = query.shape
    side_by_side = query.reshape(batch, key.shape[1], -1, width) * attention.scaling
    scores = torch.matmul(side_by_side, key.transpose(-1, -2)) + mask
    mixed = torch.matmul(torch.softmax(scores, -1), value).reshape(batch, 1, count * width)
    last = last + attention.o_proj(mixed)
    answer: Tensor = last + layer.mlp(layer.post_attention_layernorm(last))
    return answer


def export_peer(peer: EveryVector | LastVector) -> bytes:
    """Return the ONNX graph of `peer`: rows, kinds, features, signals, items to vectors and logits."""
    users, tokens, items = (torch.export.Dim(name, max=1 << 20) for name in ("users", "tokens", "items"))
    example = (
        torch.ones(3, 5, dtype=torch.int64),
        torch.zeros(3, 5, dtype=torch.int64),
        torch.zeros(3, 5, peer.network.feature.in_features),
        torch.zeros(3, 5, len(SIGNAL_NAMES)),
        torch.zeros(9, peer.network.architecture.width),
    )
    both = {0: users, 1: tokens}
    names = ("rows", "kinds", "features", "signals", "items")
    return graph_bytes(peer.eval(), example, names, ("vectors", "logits"), (both, both, both, both, {0: items}))
