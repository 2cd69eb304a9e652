"""The step as it is exported: the weights of a UserNetwork, laid out so that few and large operators do the work.

The same function as UserNetwork.history, token by token over rings; nothing is learned here. What makes it fast on a CPU:
tokens of all users as the rows of one matrix; queries, keys and values from one product, turned together; a step writes
its token into the ring before it attends, so the ring as it lies in the slab is all there is to attend to; keys and values
of each layer in a slab of their own, so that what is gathered is used as it comes; masks from a table; root mean squares
written in the form that onnxruntime fuses; what does not change (feature mask, score scaling, calibration) inside the
weights.

Ring: the keys and values of position p lie in slot p % W, keys already rotated. Slots are a set, so their order means
nothing. What a slot must be is finite: masked slots have probability 0, and 0 times NaN is NaN.

Several tokens at once cannot be written first: they would overwrite what the first of them still sees. So the graph has
two branches, chosen by the number of tokens. In a session for steps of one, onnxruntime knows it and keeps that branch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, silu
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from features.artifact import Architecture
from features.signals import SIGNAL_NAMES
from model_export.network import MASKED, LatticeRotary, UserNetwork

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Of a layer's number, queries (N, H, D), keys and values (N, G * D): what the tokens take, (N, H * D)."""


class StepGraph(nn.Module):
    """New tokens of many users and the slabs of their rings in; vectors, logits and the slabs out."""

    def __init__(self, network: UserNetwork) -> None:
        """Copy the weights of `network`, of its calibration as it is now."""
        super().__init__()
        shape = self.architecture = network.architecture
        rotary = cast(LatticeRotary, network.trunk.rotary_emb)
        half = shape.head_dim // 2
        sign = torch.cat((-torch.ones(half), torch.ones(half))).to(rotary.sine.dtype)
        final = network.trunk.norm
        inner, outer = cast(nn.Linear, network.purchase[0]), cast(nn.Linear, network.purchase[2])
        of_trunk, of_signals, offset = network.calibration
        head = network.signals
        self.eps = float(final.variance_epsilon)
        self.turn = _fixed(torch.cat((rotary.cosine, rotary.sine * sign), -1).float()[:, None])
        self.layers = nn.ModuleList(_Layer(cast(Qwen3DecoderLayer, layer), shape) for layer in network.trunk.layers)
        self.norm, self.ones = _fixed(final.weight), _fixed(torch.ones(shape.head_dim))
        shares = network.shares.weight * network.pointing
        self.heads = _fixed(torch.cat((network.head.weight, shares, inner.weight)))
        no_bias = torch.zeros_like(network.head.weight[:, 0])
        self.head_bias = _fixed(torch.cat((no_bias, network.shares.bias * network.pointing, inner.bias)))
        self.masks = _fixed(_step_masks(shape.window))
        self.read, self.read_kind = _reading(network)
        self.outer = _fixed(torch.cat((outer.weight * of_trunk, head.outer.weight * of_signals), 1))
        self.outer_bias = _fixed(outer.bias * of_trunk + head.outer.bias * of_signals + offset)

    def forward(
        self,
        rows: Tensor,
        kinds: Tensor,
        features: Tensor,
        signals: Tensor,
        position: Tensor,
        count: Tensor,
        slots: Tensor,
        items: Tensor,
        *slabs: Tensor,
    ) -> tuple[Tensor, ...]:
        """Step: new tokens behind those whose keys and values the rings hold.

        Args:
            rows: (B, K) int64 rows of `items`.
            kinds: (B, K) int64.
            features: (B, K, F) float32.
            signals: (B, K, S) float32; only the logits read them.
            position: (B,) int64, tokens that came before the first new one.
            count: (B,) int64, valid tokens, 1 to K; what comes back for the others means nothing.
            slots: (B,) int64, row of the slabs that holds the user's ring; no user twice.
            items: (N + 1, d) float32.
            slabs: keys and values of layer 0, of layer 1, ...: (S, W, G * D) float32 each. Row S - 1 is scratch, which takes the
                writes of tokens that are not kept.

        Returns:
            Vectors (B, K, v + R), purchase logits (B, K) at list price, and the slabs with the new keys and values. More than
            W new tokens are prefill: all see what they must, the last W are kept.
        """
        only_one = torch.arange(rows.shape[1]).max() == 0
        tokens = (rows, kinds, features, signals, position, count, slots, items, *slabs)
        done: tuple[Tensor, ...] = torch.cond(only_one, self._one, self._several, tokens)
        return done

    def _one(
        self, rows: Tensor, kinds: Tensor, features: Tensor, signals: Tensor, position: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """One token of each user: written into its slot, then attended to like the others there."""
        shape, (_, slots, items, *slabs) = self.architecture, others
        slot = torch.remainder(position, shape.window)
        mask = self.masks.index_select(0, torch.clamp(position, max=shape.window - 1))
        if shape.kv_heads > 1:
            mask = mask.repeat_interleave(shape.kv_heads, 0)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            for place, new in ((2 * layer, key), (2 * layer + 1, value)):
                slabs[place] = slabs[place].index_put((slots, slot), new)
            keys, values = (slabs[place].index_select(0, slots) for place in (2 * layer, 2 * layer + 1))
            return self._attended(query, keys, values, mask)

        only = rows[:, 0], kinds[:, 0], features[:, 0], signals[:, 0]
        vectors, logits = self._through(only, position, items, attend)
        new = rows.shape[1]  # which is 1; the branches must agree
        return vectors[:, None].expand(-1, new, -1).contiguous(), logits.expand(-1, new).contiguous(), *slabs

    def _several(
        self, rows: Tensor, kinds: Tensor, features: Tensor, signals: Tensor, position: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """Any number of tokens: attended to behind a copy of the ring, written in the end."""
        shape, (count, slots, items, *slabs) = self.architecture, others
        batch, new = rows.shape
        step = torch.arange(new)
        at = position[:, None] + step
        queries = shape.heads // shape.kv_heads
        mask = self._mask(position, at)[:, None, :, None].expand(-1, shape.kv_heads, -1, queries, -1)
        mask = mask.flatten(0, 1).flatten(1, 2)

        kept = (step < count[:, None]) & (step >= count[:, None] - shape.window)
        row, slot = torch.where(kept, slots[:, None], slabs[0].shape[0] - 1), torch.remainder(at, shape.window)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            seen = []
            for place, part in ((2 * layer, key), (2 * layer + 1, value)):
                record = part.reshape(batch, new, -1)
                seen.append(torch.cat((slabs[place].index_select(0, slots), record), 1))
                slabs[place] = slabs[place].index_put((row, slot), record)
            return self._attended(query, seen[0], seen[1], mask)

        read = features.reshape(batch * new, -1), signals.reshape(batch * new, -1)
        tokens = rows.reshape(-1), kinds.reshape(-1), *read
        vectors, logits = self._through(tokens, at.reshape(-1), items, attend)
        return vectors.reshape(batch, new, -1).contiguous(), logits.reshape(batch, new), *slabs

    def _through(self, tokens: tuple[Tensor, ...], at: Tensor, items: Tensor, attend: _Attend) -> tuple[Tensor, Tensor]:
        """Return vectors (N, v + R) and logits (N, 1) of N tokens, at positions `at` (N,); `attend` knows the rings."""
        shape, (rows, kinds, features, signals) = self.architecture, tokens
        turn = _split(self.turn.index_select(0, torch.remainder(at, shape.lattice)), [shape.head_dim] * 2)
        told = torch.addmm(embedding(kinds, self.read_kind), torch.cat((features, signals), -1), self.read)
        embedded, counted = _split(told, [shape.width, self.read.shape[1] - shape.width])
        x = embedding(rows, items) + embedded
        for number, layer in enumerate(cast(list[_Layer], self.layers)):
            mixed = attend(number, *self._projected(layer, x, turn))
            x = x + torch.matmul(mixed, layer.out)
            normed = _normed(x, layer.after, self.eps)
            x = x + torch.matmul(silu(torch.matmul(normed, layer.gate)) * torch.matmul(normed, layer.up), layer.down)
        read = linear(_normed(x, self.norm, self.eps), self.heads, self.head_bias)
        vector, inner = _split(read, [shape.floats, shape.width])
        return vector, linear(silu(torch.cat((inner, counted), -1)), self.outer, self.outer_bias)

    def _projected(self, layer: _Layer, x: Tensor, turn: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (N, H, D), keys and values (N, G * D) of tokens (N, d); queries and keys rotated."""
        shape = self.architecture
        width, turned = shape.head_dim, shape.heads + shape.kv_heads
        product = torch.matmul(_normed(x, layer.before, self.eps), layer.query_key_value)
        both, value = _split(product, [turned * width, shape.kv_heads * width])
        both = _normed(both.reshape(-1, turned, width), self.ones, self.eps) * layer.query_key_norm
        low, high = both.chunk(2, -1)
        both = both * turn[0] + torch.cat((high, low), -1) * turn[1]
        query, key = _split(both, [shape.heads, shape.kv_heads], 1)
        return query, key.flatten(1), value

    def _attended(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Return (B * T, H * D): what queries (B * T, H, D) take from keys and values (B, S, G * D).

        `mask` is one of (B * G, T * H / G, S): the queries that share keys lie side by side.
        """
        shape, batch = self.architecture, keys.shape[0]
        groups, width, heads = shape.kv_heads, shape.head_dim, shape.heads
        if groups == 1:
            asking = query.reshape(batch, -1, width)
        else:  # one group needs no transposition, and onnxruntime would copy for it
            asking = (
                query.reshape(batch, -1, groups, heads // groups, width).transpose(1, 2).flatten(0, 1).flatten(1, 2)
            )
            keys, values = (
                part.reshape(batch, -1, groups, width).transpose(1, 2).flatten(0, 1) for part in (keys, values)
            )
        shares = torch.softmax(torch.matmul(asking, keys.transpose(1, 2)) + mask, -1)
        mixed = torch.matmul(shares, values)
        if groups > 1:
            mixed = mixed.reshape(batch, groups, -1, heads // groups * width).transpose(1, 2)
        return mixed.reshape(-1, heads * width)

    def _mask(self, position: Tensor, at: Tensor) -> Tensor:
        """Return (B, K, W + K): 0 for the slots and new tokens that a new token attends to, MASKED for the others."""
        window, step = self.architecture.window, torch.arange(at.shape[1])
        newest = position[:, None] - 1
        held = newest - torch.remainder(newest - torch.arange(window), window)  # position in each slot, < 0: none yet
        from_ring = (held[:, None] >= 0) & (at[:, :, None] - held[:, None] < window)
        age = step[:, None] - step
        from_new = ((age >= 0) & (age < window)).expand(position.shape[0], -1, -1)
        return torch.where(torch.cat((from_ring, from_new), -1), 0.0, MASKED)


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
        self.gate, self.up = _fixed(mlp.gate_proj.weight.t()), _fixed(mlp.up_proj.weight.t())
        self.down = _fixed(mlp.down_proj.weight.t())
        self.before = _fixed(layer.input_layernorm.weight)
        self.after = _fixed(layer.post_attention_layernorm.weight)


def _reading(network: UserNetwork) -> tuple[Tensor, Tensor]:
    """Return weights (F + S, d + s) of features and signals, and rows (kinds, d + s): what of a token adds to the trunk's input
    (d), and what the signal head makes of it before its non-linearity (s); biases are in the rows.
    """
    head = network.signals
    rate = head.rate * head.seen
    counted = head.inner.weight * rate
    unread = counted.new_zeros(network.architecture.width, len(SIGNAL_NAMES))
    trunk = torch.cat((network.feature.weight * network.seen, unread), -1)
    signal_bias = head.inner.bias - linear(head.mean * rate, head.inner.weight)
    rows = torch.cat((network.kind.weight + network.feature.bias, head.kind.weight + signal_bias), -1)
    return _fixed(torch.cat((trunk, counted)).t()), _fixed(rows)


def _step_masks(window: int) -> Tensor:
    """Return (W, 1, W): what a token sees of the ring that it is written into, by its position; from W - 1 on, all."""
    place = torch.arange(window)
    return torch.where(place <= place[:, None, None], 0.0, MASKED)


def _fixed(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format), requires_grad=False)


def _split(x: Tensor, sizes: list[int], dim: int = -1) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = cast(Any, torch.split)(x, sizes, dim)  # torch's own has no types
    return parts


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x over its root mean square, times `weight`: Zhang and Sennrich 2019, in the form onnxruntime fuses."""
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight
