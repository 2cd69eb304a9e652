"""The user transformer: a Hugging Face Qwen3 trunk over the tokens of a user, and the same weights as a step over a ring.

Two ways to the same numbers. `history` is the recompute over whole sequences, for training and as the reference of every
parity test. `forward` is the exported graph: new tokens of many users, the slab of their rings in, the slab out. The trunk
is transformers' own; three seams make it step: a cache that hands out the ring (`_Ring`), rotary positions on a lattice
(`LatticeRotary`), and an attention function without copies of the keys (`_grouped_attention`).

Ring: the keys and values of position p lie in slot p % W, keys already rotated. Slots are a set, so their order means
nothing. What a slot must be is finite: masked slots have probability 0, and 0 times NaN is NaN.

Not here: what a token's features are (features.inputs), training (training), files (export).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import embedding
from transformers import AttentionInterface, AttentionMaskInterface, Qwen3Config, Qwen3Model
from transformers.cache_utils import Cache
from transformers.masking_utils import eager_mask

from features.artifact import Architecture
from features.inputs import FEATURE_NAMES
from features.tokens import KINDS

ATTENTION = "pricetide_grouped"
MASKED = -1e9
"""Added to the score of what must not be attended to: exp() of it is exactly 0, and unlike -inf it never makes a NaN."""
_LAYER = "sliding_attention"


DEFAULT = Architecture(
    kind="qwen3", width=64, layers=2, heads=4, kv_heads=1, head_dim=16, window=64, lattice=4096, vector=64
)


def _grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend with the queries of one key head side by side; transformers' eager one repeats the ring per query head.

    Args:
        module: unused, part of the interface.
        query: (B, H, T, D).
        key: (B, G, S, D), G key heads, H a multiple of G.
        value: (B, G, S, D).
        attention_mask: (B, 1, T, S), 0 or MASKED.
        scaling: of the scores.
        dropout: of the probabilities.
    """
    batch, heads, tokens, width = query.shape
    groups = key.shape[1]
    side_by_side = query.reshape(batch, groups, heads // groups * tokens, width) * scaling
    scores = torch.matmul(side_by_side, key.transpose(-1, -2)).reshape(batch, heads, tokens, -1) + attention_mask
    shares = torch.softmax(scores, -1)
    if dropout:
        shares = drop(shares, p=dropout)
    mixed = torch.matmul(shares.reshape(batch, groups, heads // groups * tokens, -1), value)
    return mixed.reshape(batch, heads, tokens, width).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, cast(Any, _grouped_attention))
AttentionMaskInterface.register(ATTENTION, eager_mask)


class LatticeRotary(nn.Module):
    """Rotary positions whose frequencies are multiples of 2 pi / M: exact for positions without bound, one table look-up.

    Plain rotary positions lose the parity budget after some ten thousand events, because a float32 angle grows with the
    position. Here an angle depends on position % M alone. M must be at least the window.
    """

    def __init__(self, head_dim: int, lattice: int, theta: float = 10_000.0) -> None:
        super().__init__()
        frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        cycles = torch.clamp(torch.round(frequency * lattice / (2 * math.pi)), min=1)
        angle = torch.arange(lattice, dtype=torch.float64)[:, None] * cycles * (2 * math.pi / lattice)
        angle = torch.cat((angle, angle), -1)
        self.lattice = lattice
        self.cosine: Tensor
        self.sine: Tensor
        self.register_buffer("cosine", angle.cos(), persistent=False)
        self.register_buffer("sine", angle.sin(), persistent=False)

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine, (B, T, head_dim) in the type of `x`, of the positions (B, T)."""
        at = torch.remainder(position_ids, self.lattice)
        return embedding(at, self.cosine.to(x.dtype)), embedding(at, self.sine.to(x.dtype))


class _Ring:
    """What attention asks of a cache: `update` keeps the new keys and values, and returns those of the ring before them."""

    is_compileable = False

    def __init__(self, rings: Tensor) -> None:
        self._rings = rings  # (B, W, L, 2, G, D)
        self.new: list[Tensor] = []

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.new.append(torch.stack((key, value), 1))
        old = self._rings[:, :, layer_idx].permute(2, 0, 3, 1, 4)  # (2, B, G, W, D)
        return torch.cat((old[0], key), 2), torch.cat((old[1], value), 2)

    def records(self) -> Tensor:
        """Return what the slab keeps of each new token, (B, K, L * 2 * G * D)."""
        stacked = torch.stack(self.new, 1)  # (B, L, 2, G, K, D)
        return stacked.permute(0, 4, 1, 2, 3, 5).flatten(2)


def _trunk(architecture: Architecture) -> Qwen3Model:
    width = architecture.width
    config = Qwen3Config(
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 8 * 8,  # SwiGLU with the cost of the usual 4 * width
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads,
        head_dim=architecture.head_dim,
        vocab_size=1,
        pad_token_id=None,
        max_position_embeddings=architecture.lattice,
        use_sliding_window=True,
        sliding_window=architecture.window,
        max_window_layers=0,
        layer_types=[_LAYER] * architecture.layers,
    )
    config._attn_implementation = ATTENTION
    trunk = Qwen3Model(config)
    trunk.rotary_emb = cast(Any, LatticeRotary(architecture.head_dim, architecture.lattice))
    del trunk.embed_tokens  # tokens come as vectors
    return trunk


class UserNetwork(nn.Module):
    """Tokens of users to vectors and purchase logits; `items`, the table of input vectors, is given and not a part.

    vector = head(h) + repeat(items[row]): the second path lets a vector point at its own item, which comes next in many
    sessions, without spending the trunk on it. logit = scale * purchase(h) + offset, at list price: a price p adds
    -slope * log(p / list), which the artifact states and pricing applies. `scale` and `offset` are the calibration.
    `seen` is 0 for features that the trunk must not see: where the slope is learned, a trunk that sees the price could
    explain it away.
    """

    def __init__(self, architecture: Architecture, *, sees_prices: bool = True) -> None:
        super().__init__()
        width = architecture.width
        self.architecture = architecture
        self.kind = nn.Embedding(len(KINDS), width)
        self.feature = nn.Linear(len(FEATURE_NAMES), width)
        self.trunk = _trunk(architecture)
        self.head = nn.Linear(width, architecture.vector, bias=False)
        self.repeat = nn.Linear(width, architecture.vector, bias=False)
        self.purchase = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        seen = [sees_prices or "price" not in name for name in FEATURE_NAMES]
        self.seen: Tensor
        self.calibration: Tensor
        self.register_buffer("seen", torch.tensor(seen, dtype=torch.float32))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def _embedded(self, item: Tensor, kinds: Tensor, features: Tensor) -> Tensor:
        embedded: Tensor = item + self.kind(kinds) + self.feature(features * self.seen)
        return embedded

    def _hidden(self, embedded: Tensor, mask: Tensor, at: Tensor, ring: _Ring | None) -> Tensor:
        done = self.trunk(
            inputs_embeds=embedded,
            attention_mask={_LAYER: mask},
            position_ids=at,
            past_key_values=cast(Cache, ring),
            use_cache=ring is not None,
        )
        return cast(Tensor, done.last_hidden_state)

    def _answers(self, hidden: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        logit: Tensor = self.purchase(hidden)[..., 0] * self.calibration[0] + self.calibration[1]
        vector: Tensor = self.head(hidden) + self.repeat(item)
        return vector, logit

    def history(
        self, item: Tensor, kinds: Tensor, features: Tensor, position: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return vectors (B, T, v) and logits (B, T) of whole sequences, every token over all that came before it.

        Args:
            item: (B, T, d) input vectors of the items.
            kinds: (B, T) int64.
            features: (B, T, F).
            position: (B,) int64, of the first token; None: 0.
        """
        at = torch.arange(item.shape[1])
        age = at[:, None] - at
        allowed = (age >= 0) & (age < self.architecture.window)
        mask = torch.where(allowed, 0.0, MASKED).to(item.dtype).expand(len(item), 1, -1, -1)
        start = torch.zeros(len(item), dtype=torch.int64) if position is None else position
        hidden = self._hidden(self._embedded(item, kinds, features), mask, start[:, None] + at, None)
        return self._answers(hidden, item)

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
        shape, window = self.architecture, self.architecture.window
        item = embedding(rows, items)
        step = torch.arange(rows.shape[1])
        at = position[:, None] + step
        ring = slab.index_select(0, slots).view(-1, window, shape.layers, 2, shape.kv_heads, shape.head_dim)
        cache = _Ring(ring)
        mask = self._mask(position, at, step)[:, None]
        hidden = self._hidden(self._embedded(item, kinds, features), mask, at, cache)
        kept = (step < count[:, None]) & (step >= count[:, None] - window)
        row = torch.where(kept, slots[:, None], slab.shape[0] - 1)
        slab_out = slab.index_put((row, torch.remainder(at, window)), cache.records())
        return (*self._answers(hidden, item), slab_out)

    def _mask(self, position: Tensor, at: Tensor, step: Tensor) -> Tensor:
        """Return (B, K, W + K): 0 for the slots and new tokens that a new token attends to, MASKED for the others."""
        window = self.architecture.window
        newest = position[:, None] - 1
        held = newest - torch.remainder(newest - torch.arange(window), window)  # position in each slot, < 0: none yet
        from_ring = (held[:, None] >= 0) & (at[:, :, None] - held[:, None] < window)
        age = step[:, None] - step
        from_new = ((age >= 0) & (age < window)).expand(position.shape[0], -1, -1)
        mask: Tensor = torch.where(torch.cat((from_ring, from_new), -1), 0.0, MASKED)
        return mask


def random_network(architecture: Architecture, seed: int) -> UserNetwork:
    """Return a network with weights from `seed`, large enough that old tokens change new vectors: for tests and timing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UserNetwork(architecture).eval()
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if weight.dim() == 2:
                    weight.normal_(0.0, 1.0 / math.sqrt(weight.shape[1]))
                if name.endswith(("q_norm.weight", "k_norm.weight")):
                    weight.fill_(1.5)
    return network
