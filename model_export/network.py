"""The user transformer: a Hugging Face Qwen3 trunk over the tokens of a user.

Whole sequences, for training, and as the reference of every parity test. The trunk is transformers' own with two seams:
rotary positions on a lattice (`LatticeRotary`), so that a step at any position is exact, and an attention function without
copies of the keys (`_grouped_attention`).

Not here: the same weights as a step over a ring (step_graph), what a token's features are (features.inputs), training
(training), files (export).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import embedding, silu
from transformers import AttentionInterface, AttentionMaskInterface, Qwen3Config, Qwen3Model
from transformers.masking_utils import eager_mask

from features.artifact import Architecture
from features.inputs import FEATURE_NAMES
from features.signals import SIGNAL_NAMES
from features.tokens import KINDS

ATTENTION = "pricetide_grouped"
MASKED = -1e9
"""Added to the score of what must not be attended to: exp() of it is exactly 0, and unlike -inf it never makes a NaN."""
_LAYER = "sliding_attention"
_SPREAD = 0.02
"""Of the weights that move the shares, which begin at 1, 1/2, 1/4, ... by age."""


DEFAULT = Architecture(
    kind="qwen3", width=64, layers=2, heads=4, kv_heads=1, head_dim=16, window=64, lattice=4096, vector=128, recent=8
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


class SignalHead(nn.Module):
    """What a token and the signals as of it say of a purchase, without the trunk: one hidden layer over standardised numbers."""

    def __init__(self, *, sees_prices: bool = True, hidden: int = 64, dropped: float = 0.1) -> None:
        super().__init__()
        size = len(FEATURE_NAMES) + len(SIGNAL_NAMES)
        self.kind = nn.Embedding(len(KINDS), hidden)
        self.inner = nn.Linear(size, hidden)
        self.outer = nn.Linear(hidden, 1)
        self.drop = nn.Dropout(dropped)
        nn.init.zeros_(self.kind.weight)
        self.mean: Tensor
        self.rate: Tensor
        self.seen: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("rate", torch.ones(size))
        self.register_buffer("seen", torch.cat((_seen(sees_prices), torch.ones(len(SIGNAL_NAMES)))))

    def standardise(self, features: Tensor, signals: Tensor) -> None:
        """Take mean and spread from (n, F) and (n, S); a number that never changed there tells nothing, and is not read."""
        read = torch.cat((features, signals), -1).double()
        spread = read.std(0, correction=0) if len(read) else torch.zeros(read.shape[1])
        self.mean.copy_(read.mean(0) if len(read) else torch.zeros(read.shape[1]))
        self.rate.copy_(torch.where(spread > 1e-3, 1.0 / spread.clamp(min=1e-3), 0.0))

    def forward(self, kinds: Tensor, features: Tensor, signals: Tensor) -> Tensor:
        """Return logits (...) of kinds (...), features (..., F) and signals (..., S)."""
        read = (torch.cat((features, signals), -1) - self.mean) * (self.rate * self.seen)
        logit: Tensor = self.outer(self.drop(silu(self.inner(self.drop(read)) + self.kind(kinds))))[..., 0]
        return logit


def _seen(prices: bool) -> Tensor:
    """Return (F,): 0 for a feature that must not be seen."""
    return torch.tensor([prices or "price" not in name for name in FEATURE_NAMES], dtype=torch.float32)


class UserNetwork(nn.Module):
    """Tokens of users to vectors and purchase logits; `items`, the table of input vectors, is given and not a part.

    vector = head(h), and behind it the shares s = shares(h), one per age. A next item is scored by what `pointed` makes of them:
    head(h) + repeat(s_0 x_0 + ... + s_(R-1) x_(R-1)); x_a is the input vector of the item a tokens ago. The narrow values of a
    ring cannot tell thousands of items apart, and the items of the last tokens come again in many sessions; so scores point at
    them past the trunk, which says how much at which. All shares are times `pointing`, and an item of the last R tokens itself
    has a score higher by `returning`; both are chosen after training (model_export.training).
    logit = a * purchase(h) + b * signals + offset, at list price; a, b and offset are the calibration (model_export.purchase_head).
    Another price p would add -slope * log(p / list). The artifact states the slope; pricing reads the propensity at list price.
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
        nn.init.eye_(self.repeat.weight)  # a candidate begins with its input row, so this points at the item itself
        self.shares = nn.Linear(width, architecture.recent)
        nn.init.normal_(self.shares.weight, 0.0, _SPREAD)
        self.shares.bias.data = 0.5 ** torch.arange(architecture.recent, dtype=torch.float32)
        self.purchase = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
        self.signals = SignalHead(sees_prices=sees_prices)
        self.seen: Tensor
        self.calibration: Tensor
        self.register_buffer("seen", _seen(sees_prices))
        self.register_buffer("calibration", torch.tensor([1.0, 1.0, 0.0]))
        self.pointing: Tensor
        self.register_buffer("pointing", torch.tensor(1.0))
        self.returning: Tensor
        self.register_buffer("returning", torch.tensor(0.0))

    def _embedded(self, item: Tensor, kinds: Tensor, features: Tensor) -> Tensor:
        embedded: Tensor = item + self.kind(kinds) + self.feature(features * self.seen)
        return embedded

    def _hidden(self, embedded: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        done = self.trunk(inputs_embeds=embedded, attention_mask={_LAYER: mask}, position_ids=at, use_cache=False)
        return cast(Tensor, done.last_hidden_state)

    def _answers(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return vectors and trunk logits of tokens whose states are `hidden` (..., d)."""
        logit: Tensor = self.purchase(hidden)[..., 0]
        return torch.cat((self.head(hidden), self.shares(hidden) * self.pointing), -1), logit

    def pointed(self, vectors: Tensor, item: Tensor) -> Tensor:
        """Return what candidates are multiplied by, (B, T, v), of vectors (B, T, v + R) and the items of all tokens (B, T, d)."""
        own = self.architecture.vector
        pointed: Tensor = vectors[..., :own] + self.repeat(_recalled(item, vectors[..., own:]))
        return pointed

    def history(
        self,
        item: Tensor,
        kinds: Tensor,
        features: Tensor,
        signals: Tensor | None = None,
        position: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return vectors (B, T, v + R) and logits (B, T) of whole sequences, every token over all that came before it.

        Logits are calibrated ones of trunk and signals; without signals those of the trunk alone, as they are.

        Args:
            item: (B, T, d) input vectors of the items.
            kinds: (B, T) int64.
            features: (B, T, F).
            signals: (B, T, S).
            position: (B,) int64, of the first token; None: 0.
        """
        at = torch.arange(item.shape[1])
        age = at[:, None] - at
        allowed = (age >= 0) & (age < self.architecture.window)
        mask = torch.where(allowed, 0.0, MASKED).to(item.dtype).expand(item.shape[0], 1, -1, -1)
        start = torch.zeros(item.shape[0], dtype=torch.int64) if position is None else position
        hidden = self._hidden(self._embedded(item, kinds, features), mask, start[:, None] + at)
        vector, logit = self._answers(hidden)
        return vector, logit if signals is None else self.calibrated(logit, kinds, features, signals)

    def calibrated(self, logit: Tensor, kinds: Tensor, features: Tensor, signals: Tensor) -> Tensor:
        """Return the calibrated logits (...) of the trunk's (...) and what the signal head makes of tokens (...)."""
        of_trunk, of_signals, offset = self.calibration
        calibrated: Tensor = logit * of_trunk + self.signals(kinds, features, signals) * of_signals + offset
        return calibrated


def _recalled(rows: Tensor, shares: Tensor) -> Tensor:
    """Return (B, T, n): for each token the rows (B, T, n) of it and of those before it, times its shares (B, T, R)."""
    reach, at = shares.shape[-1], torch.arange(rows.shape[1])
    ages = at[:, None] - at
    there = (ages >= 0) & (ages < reach)
    return torch.where(there, shares.gather(-1, ages.clamp(0, reach - 1).expand(rows.shape[0], -1, -1)), 0.0) @ rows


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
            network.shares.weight.mul_(0.25)  # vectors of about unit floats, as trained ones are
    return network
