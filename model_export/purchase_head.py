"""The stage `head`: what signals say of a purchase, learned apart from the trunk, and how the two are mixed.

A trunk that has learned long enough to rank items well remembers which of its own examples were bought. A head that learns
from its states on those examples trusts them too much, and does worse on new ones than signals alone. So the signal
head learns without the trunk, and only three numbers mix the two: logit = a * trunk + b * signals + offset, fitted on the
validation slice, which neither has learned from (stacked generalisation: Wolpert 1992). They are the calibration, too.

The networks of the second stage have learned from the slice, so the mix stays, and the offset moves by how far the log-odds
of a purchase differ between what each has learned from: the slice stands for what comes (Saerens, Latinne & Decaestecker
2002). Not here: the module itself (network.SignalHead), the trunk's stages (training).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_export.examples import Examples
from model_export.network import SignalHead
from model_export.objectives import Purchase
from model_export.propensity import propensity_metrics

EPOCHS = 8
_RATE, _DECAY, _BATCH = 2e-3, 1e-4, 512
_ROWS_AT_A_TIME = 8_192
_STRENGTH = 1e6
"""Of the mix: hardly regularised, three numbers from thousands of examples."""

Tell = Callable[[str], None]


class Mix(NamedTuple):
    """probability = sigmoid(trunk * trunk logit + signals * signal logit + offset)."""

    trunk: float
    signals: float
    offset: float

    def probability(self, trunk: NDArray[np.float64], signals: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return calibrated probabilities."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.trunk * trunk + self.signals * signals + self.offset))))

    def moved(self, learned: float, now: float) -> Mix:
        """Return the mix for networks that have learned from a share `now` of purchases, fitted for ones with `learned`."""
        return self._replace(offset=self.offset - (self.trunk + self.signals) * (_log_odds(now) - _log_odds(learned)))


def mix_of(trunk: NDArray[np.float64], signals: NDArray[np.float64], bought: NDArray[np.bool_]) -> Mix:
    """Fit the mix; a part that would turn the order round is left out, and with one outcome only the parts count alike."""
    from sklearn.linear_model import LogisticRegression

    if bought.all() or not bought.any():
        return Mix(0.5, 0.5, 0.0)
    parts = np.stack((trunk, signals), 1)
    used = np.array([True, True])
    while used.any():
        fitted = LogisticRegression(C=_STRENGTH).fit(parts[:, used], bought)
        weights = np.zeros(2)
        weights[used] = fitted.coef_[0]
        if (weights[used] > 0).all():
            return Mix(float(weights[0]), float(weights[1]), float(fitted.intercept_[0]))
        used &= weights > 0
    return Mix(0.5, 0.5, 0.0)


class Slice(NamedTuple):
    """The examples of the validation slice, in one order."""

    token: NDArray[np.int64]
    trunk: NDArray[np.float64]
    """Logits of the trunk of the first stage."""
    bought: NDArray[np.bool_]
    user: NDArray[np.int32]


def slice_of(examples: Examples, token: NDArray[np.int64], trunk: NDArray[np.float64]) -> Slice:
    """Return the slice whose examples `token` have the logits `trunk`."""
    return Slice(token, trunk, examples.bought.numpy()[token], examples.user[token])


def mixed_figures(part: Slice, signals: NDArray[np.float64]) -> dict[str, float]:
    """Return AUC, log-loss and calibration error, each half of the users mixed by the other half; none of one outcome."""
    even = part.user % 2 == 0
    halves = (even, ~even)
    if any(part.bought[half].all() or not part.bought[half].any() for half in halves):
        return {}
    probability = np.empty(len(signals))
    for half in halves:
        mix = mix_of(part.trunk[~half], signals[~half], part.bought[~half])
        probability[half] = mix.probability(part.trunk[half], signals[half])
    found = propensity_metrics(probability, part.bought)
    return {
        "purchase_auc": found.auc,
        "purchase_log_loss": found.log_loss,
        "purchase_calibration_error": found.calibration_error,
    }


class Chosen(NamedTuple):
    """What the slice says of the head."""

    head: SignalHead
    """Of the best epoch."""
    epochs: int
    mix: Mix
    metrics: dict[str, float]


def choose_head(
    examples: Examples, part: Slice, purchase: Purchase, seed: int, sees_prices: bool, tell: Tell
) -> Chosen:
    """Learn from what is judged before the slice, and return what did best on it, by log-loss of the mix.

    Args:
        examples: as of the start of the slice.
        part: the slice.
        purchase: the objective, its slope as learned.
        seed: of the run.
        sees_prices: whether the head may read prices.
        tell: called with a line.
    """
    best: Chosen | None = None

    def judge(head: SignalHead, epoch: int) -> None:
        nonlocal best
        signals = logits_of(head, examples, part.token)
        metrics = mixed_figures(part, signals)
        if best is None or metrics.get("purchase_log_loss", math.inf) < best.metrics.get("purchase_log_loss", math.inf):
            kept = SignalHead(sees_prices=sees_prices)
            kept.load_state_dict(head.state_dict())
            best = Chosen(kept.eval(), epoch, mix_of(part.trunk, signals, part.bought), metrics)

    learn_head(examples, purchase, seed, sees_prices, EPOCHS, judge)
    assert best is not None
    told = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in best.metrics.items())
    tell(f"head: {best.epochs} epochs; trunk x {best.mix.trunk:.2f} + signals x {best.mix.signals:.2f}; {told}")
    return best


def learn_head(
    examples: Examples,
    purchase: Purchase,
    seed: int,
    sees_prices: bool,
    epochs: int,
    judge: Callable[[SignalHead, int], None] = lambda head, epoch: None,
) -> SignalHead:
    """Return a head that has learned from the judged examples, `epochs` times over, of EPOCHS that the schedule has.

    Args:
        examples: whose judged ones.
        purchase: the objective.
        seed: of weights, order and dropout.
        sees_prices: whether it may read prices.
        epochs: 1..EPOCHS.
        judge: called with the head, in evaluation mode, and the epochs done after each.
    """
    learned = np.flatnonzero(examples.judged)
    random = np.random.default_rng((seed, len(learned)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = SignalHead(sees_prices=sees_prices)
        head.standardise(examples.features[learned], examples.signals[learned])
        optimizer = torch.optim.AdamW(head.parameters(), betas=(0.9, 0.99), weight_decay=_DECAY)
        batches = max(1, math.ceil(len(learned) / _BATCH))
        for epoch in range(epochs):
            head.train()
            for place, batch in enumerate(np.array_split(random.permutation(learned), batches)):
                done = (epoch + place / batches) / EPOCHS
                for group in optimizer.param_groups:
                    group["lr"] = _RATE * (0.5 + 0.5 * math.cos(math.pi * done))
                at = torch.from_numpy(batch)
                features = examples.features[at]
                logits = head(examples.kind[at], features, examples.signals[at])
                optimizer.zero_grad()
                torch.autograd.backward(
                    purchase.loss(logits, features, examples.bought[at]), inputs=[*head.parameters()]
                )
                optimizer.step()
            judge(head.eval(), epoch + 1)
    return head.eval()


def logits_of(head: SignalHead, examples: Examples, token: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the signal logits (n,) of the tokens `token`; `head` in evaluation mode."""
    with torch.inference_mode():
        parts = [
            head(examples.kind[at], examples.features[at], examples.signals[at])
            for at in torch.split(torch.from_numpy(token), _ROWS_AT_A_TIME)
        ]
    return torch.cat(parts).double().numpy()


def bought_share(examples: Examples) -> float:
    """Return the share of the judged examples that were bought, never 0 or 1."""
    bought: Tensor = examples.bought[torch.from_numpy(examples.judged)]
    return (float(bought.sum()) + 0.5) / (len(bought) + 1.0)


def _log_odds(share: float) -> float:
    return math.log(share / (1.0 - share))
