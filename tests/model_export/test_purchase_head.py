"""The head's stage: it learns from signals, the mix trusts whom the slice believes, and what is moved is the base rate alone."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export")
torch.set_num_threads(1)

from contracts.log import open_log  # noqa: E402 - torch first, or there is nothing to test
from features.inputs import FEATURE_NAMES  # noqa: E402
from features.signals import SIGNAL_NAMES  # noqa: E402
from model_export.dataset import read_dataset  # noqa: E402
from model_export.examples import examples_of  # noqa: E402
from model_export.network import SignalHead  # noqa: E402
from model_export.objectives import Purchase  # noqa: E402
from model_export.purchase_head import (  # noqa: E402
    EPOCHS,
    Mix,
    bought_share,
    choose_head,
    learn_head,
    logits_of,
    mix_of,
    slice_of,
)

PURCHASES = SIGNAL_NAMES.index("purchases, 30 d")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def examples(shop_log):
    """A log's examples, their outcomes drawn anew: odds rise with past purchases, and hang on nothing else."""
    dataset = read_dataset(open_log(shop_log), validation=0.3)
    found = examples_of(dataset, dataset.validation_ms)
    random = np.random.default_rng(2)
    many = np.repeat(np.arange(len(found.user)), 8)
    signals = found.signals.numpy()[many].copy()
    signals[:, PURCHASES] = random.random(len(many))
    bought = random.random(len(many)) < sigmoid(4 * signals[:, PURCHASES] - 3.5)
    return found._replace(
        user=found.user[many],
        kind=found.kind[many],
        features=found.features[many],
        signals=torch.from_numpy(signals),
        bought=torch.from_numpy(bought),
        judged=found.judged[many],
        judged_later=found.judged_later[many],
    )


@pytest.fixture(scope="module")
def purchase(examples):
    return Purchase(examples.bought.numpy()[examples.judged], learn_slope=False)


def slice_with(examples, trunk):
    token = np.flatnonzero(examples.judged_later)
    return slice_of(examples, token, trunk(token))


def test_it_learns_what_signals_say_and_is_calibrated_on_the_slice(examples, purchase):
    noise = np.random.default_rng(3)
    part = slice_with(examples, lambda token: noise.normal(0, 1, len(token)))
    told = []
    chosen = choose_head(examples, part, purchase, 1, True, told.append)
    signals = logits_of(chosen.head, examples, part.token)
    probability = chosen.mix.probability(part.trunk, signals)
    truth = sigmoid(4 * examples.signals.numpy()[part.token, PURCHASES] - 3.5)
    assert np.corrcoef(probability, truth)[0, 1] > 0.9
    assert probability.mean() == pytest.approx(part.bought.mean(), abs=1e-3)
    assert chosen.mix.trunk * np.std(part.trunk) < 0.2 * chosen.mix.signals * np.std(signals)
    assert 1 <= chosen.epochs <= EPOCHS
    assert chosen.metrics["purchase_auc"] > 0.65
    assert f"{chosen.epochs} epochs" in told[0]


def test_a_trunk_that_knows_is_believed(examples, purchase):
    part = slice_with(examples, lambda token: 6.0 * examples.bought.numpy()[token] - 3 + np.sin(token))
    chosen = choose_head(examples, part, purchase, 1, True, lambda line: None)
    assert chosen.mix.trunk > chosen.mix.signals
    assert chosen.metrics["purchase_auc"] > 0.99


def test_equal_runs_give_equal_heads_and_fewer_epochs_are_the_beginning_of_more(examples, purchase):
    seen = []
    learn_head(examples, purchase, 7, True, 2, lambda head, epoch: seen.append(head.outer.weight.detach().clone()))
    again = learn_head(examples, purchase, 7, True, 1)
    assert torch.equal(again.outer.weight, seen[0])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(learn_head(examples, purchase, 8, True, 1).outer.weight, seen[0])


def test_the_mix_is_fitted_and_never_turns_an_order_round():
    random = np.random.default_rng(0)
    trunk, signals = random.normal(0, 1, (2, 20_000))
    bought = random.random(20_000) < sigmoid(0.5 * trunk + 1.5 * signals - 3)
    assert mix_of(trunk, signals, bought) == pytest.approx(Mix(0.5, 1.5, -3.0), abs=0.12)
    backwards = mix_of(-trunk, signals, bought)
    assert backwards.trunk == 0.0
    assert backwards.signals > 1.0
    assert mix_of(-trunk, -signals, bought) == mix_of(trunk, signals, np.zeros(20_000, bool)) == Mix(0.5, 0.5, 0.0)


def test_networks_that_learned_from_more_purchases_are_taken_back_to_what_the_slice_saw():
    mix, share = Mix(0.3, 0.7, 0.2), 0.03
    logit = np.full(3, np.log(share / (1 - share)))
    shift = np.log(0.05 / 0.95) - logit
    before = mix.probability(logit, logit)
    assert mix.moved(share, 0.05).probability(logit + shift, logit + shift) == pytest.approx(before)
    assert mix.moved(share, share) == mix


def test_the_share_of_purchases_is_that_of_the_judged_and_never_nothing(examples):
    judged = examples.bought.numpy()[examples.judged]
    assert bought_share(examples) == pytest.approx(judged.mean(), abs=1e-3)
    assert 0 < bought_share(examples._replace(bought=torch.zeros_like(examples.bought))) < 1e-2


def test_a_number_that_never_changed_is_not_read():
    head = SignalHead().eval()
    kinds, features, signals = torch.zeros(9, dtype=torch.int64), torch.rand(9, len(FEATURE_NAMES)), torch.rand(9, 14)
    signals[:, 4] = 2.0
    head.standardise(features, signals)
    other = signals.clone()
    other[:, 4] = 1e6
    with torch.inference_mode():
        assert torch.equal(head(kinds, features, signals), head(kinds, features, other))
        other[:, 5] += 1
        assert not torch.equal(head(kinds, features, signals), head(kinds, features, other))
