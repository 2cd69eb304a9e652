"""The losses learn probabilities, not how they were sampled; and a higher price never sells better."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export")
torch.set_num_threads(1)

from torch import nn  # noqa: E402 - torch first, or there is nothing to test

from features.inputs import FEATURE_NAMES  # noqa: E402
from model_export.objectives import NextItem, Purchase  # noqa: E402


class Scores(nn.Module):
    """Candidates that are a bias each: the loss must find the log of the items' probabilities."""

    def __init__(self, items):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(items))

    def candidates(self, rows):
        return torch.zeros(len(rows), 1), self.bias[rows]


def test_the_sampled_softmax_learns_the_probabilities_of_the_items_whatever_their_popularity_was():
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    truth = np.array([0.0, 0.4, 0.3, 0.15, 0.1, 0.05])
    popularity = np.array([0, 1, 1, 5, 20, 100])
    scores = Scores(6)
    next_item = NextItem((truth * 1000).astype(int), popularity, negatives=3)
    optimizer = torch.optim.Adam(scores.parameters(), lr=0.02)
    for _ in range(3_000):
        targets = torch.from_numpy(random.choice(6, 4, p=truth))
        loss = next_item.loss(torch.zeros(4, 1), targets, scores, random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = torch.softmax(scores.bias.detach()[1:], 0).numpy()
    assert np.abs(learned - truth[1:]).max() < 0.08
    assert (np.diff(learned) < 0).all()


def test_row_zero_is_never_drawn():
    next_item = NextItem(np.array([0, 1, 1]), np.array([1000, 1, 1]), negatives=64)

    class Seen(Scores):
        def candidates(self, rows):
            assert 0 not in rows
            return super().candidates(rows)

    next_item.loss(torch.zeros(1, 1), torch.tensor([1]), Seen(3), np.random.default_rng(0))


def fit(purchase, logit, features, bought, steps=3_000):
    optimizer = torch.optim.Adam([logit, *purchase.parameters()], lr=0.05)
    for _ in range(steps):
        loss = purchase.loss(logit.expand(len(bought)), features, bought)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_weights_for_the_rare_outcome_do_not_move_the_probability():
    bought = torch.zeros(1_000, dtype=torch.bool)
    bought[:30] = True
    purchase = Purchase(bought.numpy(), learn_slope=False)
    assert purchase.weight > 5
    logit = nn.Parameter(torch.zeros(1))
    fit(purchase, logit, torch.zeros(1_000, len(FEATURE_NAMES)), bought)
    assert torch.sigmoid(logit).item() == pytest.approx(0.03, rel=0.02)


def test_a_slope_is_learned_from_randomised_prices():
    random = np.random.default_rng(1)
    ratio = random.choice([-0.3, 0.0, 0.3], 40_000)
    bought = random.random(40_000) < 1 / (1 + np.exp(2.0 + 2.5 * ratio))
    features = torch.zeros(40_000, len(FEATURE_NAMES))
    features[:, FEATURE_NAMES.index("log_price_over_list")] = torch.from_numpy(ratio).float()
    purchase = Purchase(bought, learn_slope=True)
    logit = nn.Parameter(torch.zeros(1))
    fit(purchase, logit, features, torch.from_numpy(bought), steps=300)
    assert purchase.slope.item() == pytest.approx(2.5, abs=0.3)
    assert logit.item() == pytest.approx(-2.0, abs=0.1)


@pytest.mark.parametrize("raw", [-30.0, 0.0, 5.0])
def test_no_weight_makes_a_higher_price_sell_better(raw):
    purchase = Purchase(np.array([True, False]), learn_slope=True)
    nn.init.constant_(purchase.raw_slope, raw)
    assert purchase.slope.item() > 0


def test_without_randomised_prices_the_slope_is_the_stated_one_and_stays():
    purchase = Purchase(np.array([True, False]), learn_slope=False)
    assert purchase.slope.item() == pytest.approx(1.5, rel=1e-5)
    assert not purchase.raw_slope.requires_grad
