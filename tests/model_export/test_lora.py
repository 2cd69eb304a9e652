"""Fine-tuning a text encoder on behaviour: it learns, the adapters alone change, and merging changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.errors import BadInput
from model_export.lora import Tuning, contrastive_loss, save_encoder, session_pairs, tune, with_adapters
from model_export.next_item import interactions_of, task_of
from model_export.pooling import pooled_encoder
from model_export.text_export import load_encoder
from tests.model_export.tiny_encoder import BRANDS, NOUNS, write_tiny_encoder

MINUTE = 60_000


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.set_num_threads(1)
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


def pairs_by_brand() -> list[tuple[str, str]]:
    """Items of one brand are looked at together, whatever they are."""
    random = np.random.default_rng(3)
    pairs = []
    for _ in range(200):
        left, right = random.choice(len(NOUNS), 2, replace=False)
        brand = BRANDS[random.integers(len(BRANDS))]
        pairs.append((f"{brand} {NOUNS[left]}", f"{brand} {NOUNS[right]}"))
    return pairs


TUNING = Tuning(steps=30, batch=8, learning_rate=5e-3, temperature=0.1)


@pytest.mark.parametrize("full", [False, True])
def test_the_loss_falls_on_pairs_it_learned_from_and_on_pairs_it_did_not(encoder, full) -> None:
    tuned = tune(encoder, pairs_by_brand(), Tuning(full=full, steps=30, batch=8, learning_rate=5e-3, temperature=0.1))
    assert np.mean(tuned.losses[-5:]) < 0.8 * np.mean(tuned.losses[:5])
    assert tuned.held_out_after < 0.9 * tuned.held_out_before


def test_equal_arguments_give_equal_weights_and_another_seed_others(encoder) -> None:
    first, again = (tune(encoder, pairs_by_brand(), TUNING).model.state_dict() for _ in range(2))
    other = tune(encoder, pairs_by_brand(), Tuning(steps=30, batch=8, learning_rate=5e-3, seed=2)).model.state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_with_adapters_only_adapters_change_until_they_are_merged(encoder) -> None:
    model = with_adapters(load_encoder(encoder), rank=4)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    pooled = pooled_encoder(model, "mean")
    ids = torch.randint(4, 16, (6, 5))
    for _ in range(3):
        loss = contrastive_loss(
            pooled(ids[:3], torch.ones(3, 5)), pooled(ids[3:], torch.ones(3, 5)), 0.1, torch.eye(3) > 0
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    with torch.inference_mode():
        unmerged = pooled(ids, torch.ones(6, 5))
        merged = pooled_encoder(model.merge_and_unload(), "mean")(ids, torch.ones(6, 5))
        untouched = pooled_encoder(load_encoder(encoder), "mean")(ids, torch.ones(6, 5))
    assert (merged - unmerged).abs().max() < 1e-5
    assert (merged - untouched).abs().max() > 1e-3


def test_a_tuned_encoder_is_a_directory_like_the_one_it_came_from(encoder, tmp_path) -> None:
    tuned = tune(encoder, pairs_by_brand(), TUNING)
    save_encoder(tuned, encoder, tmp_path / "tuned")
    loaded = load_encoder(tmp_path / "tuned")
    assert {name for name, _ in loaded.named_parameters()} == {
        name for name, _ in load_encoder(encoder).named_parameters()
    }
    ids = torch.randint(4, 16, (2, 5))
    with torch.inference_mode():
        mine, theirs = (pooled_encoder(model, "mean")(ids, torch.ones(2, 5)) for model in (tuned.model, loaded))
    assert torch.equal(mine, theirs)
    with pytest.raises(BadInput, match="name another directory"):
        save_encoder(tuned, encoder, encoder)


def test_an_item_that_says_the_same_as_the_positive_is_no_negative() -> None:
    vectors = torch.eye(3)
    twins = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    same = nothing.clone()
    same[0, 1] = same[1, 0] = True
    assert contrastive_loss(vectors, twins, 0.1, same) < contrastive_loss(vectors, twins, 0.1, nothing)


def test_pairs_are_neighbours_of_one_session_before_the_split() -> None:
    events = [
        ("u", "a", 0), ("u", "b", MINUTE), ("u", "b", 2 * MINUTE), ("u", "c", 40 * MINUTE), ("u", "d", 41 * MINUTE),
        ("v", "c", 10 * MINUTE), ("v", "a", 11 * MINUTE), ("v", "b", 50 * MINUTE),
    ]  # fmt: skip
    interactions, _ = interactions_of(events)
    task = task_of(interactions, split_ms=41 * MINUTE, until_ms=60 * MINUTE)
    pairs = [(task.candidates[left], task.candidates[right]) for left, right in session_pairs(task)]
    assert pairs == [("a", "b"), ("c", "a")]


def test_too_few_pairs_are_refused_with_a_sentence(encoder) -> None:
    with pytest.raises(BadInput, match="3 pairs of items are too few"):
        tune(encoder, pairs_by_brand()[:3], TUNING)


def test_nothing_but_a_directory_or_a_known_name_is_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no encoder"):
        load_encoder(tmp_path)
