"""The step as it is exported: the weights of a UserNetwork, laid out so that few and large operators do the work.

The same function as UserNetwork.history, token by token over rings; nothing is learned here. What makes it fast on a CPU:
tokens of all users as the rows of one matrix; queries, keys and values from one product, turned together; the newest
tokens' scores beside those of the ring instead of a copy of the ring with them behind; root mean squares written in the
form that onnxruntime fuses; what does not change (feature mask, score scaling, calibration) inside the weights.

Ring: the keys and values of position p lie in slot p % W, keys already rotated. Slots are a set, so their order means
nothing. What a slot must be is finite: masked slots have probability 0, and 0 times NaN is NaN.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, silu
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from features.artifact import Architecture
from model_export.network import MASKED, LatticeRotary, UserNetwork


class StepGraph(nn.Module):
    """New tokens of many users and the slab of their rings in; vectors, logits and the slab out."""

    def __init__(self, network: UserNetwork) -> None:
        """Copy the weights of `network`, of its calibration as it is now."""
        super().__init__()
        shape = self.architecture = network.architecture
        rotary = cast(LatticeRotary, network.trunk.rotary_emb)
        half = shape.head_dim // 2
        sign = torch.cat((-torch.ones(half), torch.ones(half))).to(rotary.sine.dtype)
        final = network.trunk.norm
        inner, outer = cast(nn.Linear, network.purchase[0]), cast(nn.Linear, network.purchase[2])
        scale, offset = network.calibration
        self.eps = float(final.variance_epsilon)
        self.kind = _fixed(network.kind.weight)
        self.feature, self.feature_bias = _fixed(network.feature.weight * network.seen), _fixed(network.feature.bias)
        self.turn = _fixed(torch.cat((rotary.cosine, rotary.sine * sign), -1).float())
        self.layers = nn.ModuleList(_Layer(cast(Qwen3DecoderLayer, layer), shape) for layer in network.trunk.layers)
        self.norm, self.ones = _fixed(final.weight), _fixed(torch.ones(shape.head_dim))
        self.heads = _fixed(torch.cat((network.head.weight, inner.weight)).t())
        self.repeat = _fixed(network.repeat.weight.t())
        self.inner_bias = _fixed(inner.bias)
        self.outer, self.outer_bias = _fixed(outer.weight * scale), _fixed(outer.bias * scale + offset)

    def forward(
        self,
        rows: Tensor,
        kinds: Tensor,
        features: Tensor,
        position: Tensor,
        count: Tensor,
        slots: Tensor,
        items: Tensor,
        slab: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Step: new tokens behind those whose keys and values the rings hold.

        Args:
            rows: (B, K) int64 rows of `items`.
            kinds: (B, K) int64.
            features: (B, K, F) float32.
            position: (B,) int64, tokens that came before the first new one.
            count: (B,) int64, valid tokens, 1 to K; what comes back for the others means nothing.
            slots: (B,) int64, row of the slab that holds the user's ring; no user twice.
            items: (N + 1, d) float32.
            slab: (S, W, L * 2 * G * D) float32; row S - 1 is scratch, which takes the writes of tokens that are not kept.

        Returns:
            Vectors (B, K, v), purchase logits (B, K) at list price, and the slab with the new keys and values. More than
            W new tokens are prefill: all see what they must, the last W are kept.
        """
        shape = self.architecture
        batch, new = rows.shape
        at = position[:, None] + torch.arange(new)
        turn = _split(
            embedding(torch.remainder(at, shape.lattice).reshape(-1), self.turn)[:, None], [shape.head_dim] * 2
        )
        ring = _split(slab.index_select(0, slots), [shape.kv_heads * shape.head_dim] * (2 * shape.layers))
        mask = self._mask(position, at)
        item = embedding(rows, items).reshape(-1, shape.width)
        read = linear(features.reshape(-1, features.shape[-1]), self.feature, self.feature_bias)
        x = item + embedding(kinds, self.kind).reshape(-1, shape.width) + read
        records: list[Tensor] = []
        for number, layer in enumerate(cast(list[_Layer], self.layers)):
            query, key, value = self._projected(layer, x, turn)
            records += (key, value)
            old = ring[2 * number], ring[2 * number + 1]
            x = x + torch.matmul(self._attended(query, (key, value), old, mask), layer.out)
            gate, up = torch.matmul(_normed(x, layer.after, self.eps), layer.gate_up).chunk(2, -1)
            x = x + torch.matmul(silu(gate) * up, layer.down)
        vector, inner = _split(torch.matmul(_normed(x, self.norm, self.eps), self.heads), [shape.vector, shape.width])
        vector = vector + torch.matmul(item, self.repeat)
        logit = linear(silu(inner + self.inner_bias), self.outer, self.outer_bias)
        record = torch.cat(records, -1).reshape(batch, new, -1)
        return vector.reshape(batch, new, -1), logit.reshape(batch, new), self._written(slab, slots, at, count, record)

    def _projected(self, layer: _Layer, x: Tensor, turn: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (N, H * D), keys and values (N, G * D) of tokens (N, d); queries and keys rotated."""
        shape = self.architecture
        width, turned = shape.head_dim, shape.heads + shape.kv_heads
        product = torch.matmul(_normed(x, layer.before, self.eps), layer.query_key_value)
        both, value = _split(product, [turned * width, shape.kv_heads * width])
        both = _normed(both.reshape(-1, turned, width), self.ones, self.eps) * layer.query_key_norm
        low, high = both.chunk(2, -1)
        both = both * turn[0] + torch.cat((high, low), -1) * turn[1]
        query, key = _split(both, [shape.heads, shape.kv_heads], 1)
        return query.flatten(1), key.flatten(1), value

    def _attended(self, query: Tensor, new: tuple[Tensor, Tensor], old: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Return (N, H * D): what the tokens take from the ring, (B, W, G * D) each, and from one another."""
        shape = self.architecture
        batch, tokens, window = mask.shape[0], mask.shape[1], shape.window
        ring_key, ring_value = (self._by_group(part, batch, window) for part in old)
        new_key, new_value = (self._by_group(part, batch, tokens) for part in new)
        asking = self._by_group(query, batch, tokens).reshape(batch * shape.kv_heads, -1, shape.head_dim)
        scores = torch.cat(
            (torch.matmul(asking, ring_key.transpose(1, 2)), torch.matmul(asking, new_key.transpose(1, 2))), -1
        )
        queries = shape.heads // shape.kv_heads
        scores = scores.reshape(batch, shape.kv_heads, tokens, queries, -1) + mask[:, None, :, None]
        share = torch.softmax(scores, -1).reshape(batch * shape.kv_heads, tokens * queries, -1)
        from_ring, from_new = _split(share, [window, tokens])
        mixed = torch.matmul(from_ring, ring_value) + torch.matmul(from_new, new_value)
        if shape.kv_heads > 1:
            mixed = mixed.reshape(batch, shape.kv_heads, tokens, -1).transpose(1, 2)
        return mixed.reshape(-1, shape.heads * shape.head_dim)

    def _by_group(self, x: Tensor, batch: int, tokens: int) -> Tensor:
        """Return (B * G, T, ...) of B * T rows that hold G groups side by side; with one group that is how they lie."""
        groups = self.architecture.kv_heads
        if groups == 1:
            return x.reshape(batch, tokens, -1)
        return x.reshape(batch, tokens, groups, -1).transpose(1, 2).reshape(batch * groups, tokens, -1)

    def _mask(self, position: Tensor, at: Tensor) -> Tensor:
        """Return (B, K, W + K): 0 for the slots and new tokens that a new token attends to, MASKED for the others."""
        window, step = self.architecture.window, torch.arange(at.shape[1])
        newest = position[:, None] - 1
        held = newest - torch.remainder(newest - torch.arange(window), window)  # position in each slot, < 0: none yet
        from_ring = (held[:, None] >= 0) & (at[:, :, None] - held[:, None] < window)
        age = step[:, None] - step
        from_new = ((age >= 0) & (age < window)).expand(position.shape[0], -1, -1)
        return torch.where(torch.cat((from_ring, from_new), -1), 0.0, MASKED)

    def _written(self, slab: Tensor, slots: Tensor, at: Tensor, count: Tensor, record: Tensor) -> Tensor:
        """Return the slab with the last W valid records of each user in their slots, the others in the scratch row."""
        window, step = self.architecture.window, torch.arange(at.shape[1])
        kept = (step < count[:, None]) & (step >= count[:, None] - window)
        row = torch.where(kept, slots[:, None], slab.shape[0] - 1)
        return slab.index_put((row, torch.remainder(at, window)), record)


class _Layer(nn.Module):
    """The weights of one decoder layer, transposed and joined."""

    def __init__(self, layer: Qwen3DecoderLayer, shape: Architecture) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        joined = torch.cat((attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight))
        query = (attention.q_norm.weight * attention.scaling).expand(shape.heads, -1)
        self.query_key_value = _fixed(joined.t())
        self.query_key_norm = _fixed(torch.cat((query, attention.k_norm.weight.expand(shape.kv_heads, -1))))
        self.out = _fixed(attention.o_proj.weight.t())
        self.gate_up = _fixed(torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)).t())
        self.down = _fixed(mlp.down_proj.weight.t())
        self.before = _fixed(layer.input_layernorm.weight)
        self.after = _fixed(layer.post_attention_layernorm.weight)


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)


def _split(x: Tensor, sizes: list[int], dim: int = -1) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = cast(Any, torch.split)(x, sizes, dim)  # torch's own has no types
    return parts


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x over its root mean square, times `weight`: Zhang and Sennrich 2019, in the form onnxruntime fuses."""
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
