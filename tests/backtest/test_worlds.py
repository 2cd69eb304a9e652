"""Simulated worlds: their numbers against formulas written again, their best prices against brute force."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from backtest import memories
from backtest.memories import LEARNING, RESENTMENT, TIRED, TIRING, Plan, chances_at, fixed, planned, shoppers_of
from backtest.simulation import yardsticks_of
from backtest.worlds import PERMILLE, world_of

VISITS = 2_000


def test_logit_is_the_world_that_is_written_down():
    world = world_of("LOGIT", 5, VISITS)
    g = np.random.Generator(np.random.PCG64(5))
    wa, wb = g.normal(0, 0.15, 16), g.normal(0, 0.175, 16)
    x, luck = g.normal(0, 1, (VISITS, 16)), g.random(VISITS)
    assert (world.x == x).all()
    assert (world.luck == luck).all()
    for visit in (0, 999, 1_000, 1_999):
        weights = wb if visit < 1_000 else np.concatenate([-wb[:8], wb[8:]])
        for arm, permille in enumerate(PERMILLE):
            odds = -1 + x[visit] @ wa - math.exp(1.9 + x[visit] @ weights) * (permille / 1000 - 1)
            assert world.chances[visit, arm] == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-12)


def test_mis_is_the_world_that_is_written_down():
    world = world_of("MIS", 5, VISITS)
    g = np.random.Generator(np.random.PCG64(1005))
    w1, w2 = g.normal(0, 0.25, 16), g.normal(0, 0.25, 16)
    x, luck = g.normal(0, 1, (VISITS, 16)), g.random(VISITS)
    assert (world.luck == luck).all()
    for visit in (0, 999, 1_000, 1_999):
        h = x[visit] @ (w1 if visit < 1_000 else np.concatenate([-w1[:8], w1[8:]]))
        mu = -0.12 + 0.16 * math.tanh(h) + 0.08 * math.tanh(2 * (x[visit] @ w2) * h)
        sd = 0.10 if x[visit, 0] > 0 else 0.22
        for arm, permille in enumerate(PERMILLE):
            m = permille / 1000
            z = (math.log(m + 0.25 * max(m - 1, 0)) - mu) / sd
            chance = 0.05 * 0.9 + 0.2 * 0.01 + 0.75 * 0.5 * math.erfc(z / math.sqrt(2))
            assert world.chances[visit, arm] == pytest.approx(chance, abs=1e-12)


def test_in_null_list_price_is_best_for_the_average_visit_and_nearly_for_all():
    world = world_of("NULL", 3, VISITS)
    assert (world.rewards.sum(0).argmax() - world.list_arm) in (-1, 0, 1)
    by = yardsticks_of(world)
    assert by.oracle.sum() / by.listed.sum() < 1.03
    average = [(m / 1000 - 0.6) / (1 + math.exp(1 + (m / 1000 - 1) / (0.4 * (1 - 1 / (1 + math.e))))) for m in PERMILLE]
    assert int(np.argmax(average)) == world.list_arm


@pytest.mark.parametrize("name", ["LOGIT", "MIS", "NULL"])
def test_list_oracle_and_best_fixed_price_are_what_trying_everything_finds(name):
    world = world_of(name, 2, 60)
    value = [[(PERMILLE[arm] / 1000 - 0.6) * world.chances[visit, arm] for arm in range(9)] for visit in range(60)]
    by = yardsticks_of(world)
    assert by.listed.sum() == pytest.approx(sum(row[4] for row in value))
    assert by.oracle.sum() == pytest.approx(sum(max(row) for row in value))
    assert by.best_fixed == pytest.approx(max(sum(row[arm] for row in value) for arm in range(9)))


def test_without_raises_nothing_above_list_is_left_and_the_oracle_knows():
    world = world_of("MIS", 2, 60)
    cheaper = world.without_raises()
    assert cheaper.permille == PERMILLE[:5]
    assert cheaper.list_arm == world.list_arm
    assert yardsticks_of(cheaper).oracle.sum() <= yardsticks_of(world).oracle.sum()


def test_luck_and_contexts_of_a_world_depend_on_its_seed_alone():
    one, again, other = (world_of("LOGIT", seed, 100) for seed in (1, 1, 2))
    assert (one.x == again.x).all()
    assert (one.chances == again.chances).all()
    assert (one.luck != other.luck).any()


def chance_by_hand(level, m, reference, fatigue):
    odds = level + memories.RESPONSE * (1 - TIRED * fatigue) * (1 - m) + RESENTMENT * (reference - m)
    return 1 / (1 + math.exp(-odds))


def test_memories_move_demand_as_written():
    found = chances_at(np.array([-0.7]), np.array([0.93]), np.array([0.4]))[0]
    assert found == pytest.approx([chance_by_hand(-0.7, p / 1000, 0.93, 0.4) for p in PERMILLE])
    reference, fatigue = memories.remembered(np.array([0.9]), np.array([0.5]), np.array([0]))
    assert reference[0] == pytest.approx(0.9 + LEARNING * (0.8 - 0.9))
    assert fatigue[0] == pytest.approx(0.5 + TIRING * (1 - 0.5))


def worth_of(path, levels):
    reference, fatigue, worth = 1.0, 0.0, 0.0
    for level, arm in zip(levels, path, strict=True):
        m = PERMILLE[arm] / 1000
        worth += (m - 0.6) * chance_by_hand(level, m, reference, fatigue)
        reference += LEARNING * (m - reference)
        fatigue += TIRING * ((m < 1) - fatigue)
    return worth


def test_the_plan_is_worth_what_trying_every_path_of_prices_finds():
    levels = np.full(3, -1.0)  # known beforehand, as the plan's sample has no other
    best = max(worth_of(path, levels) for path in product(range(9), repeat=3))
    shoppers = memories.Shoppers(np.zeros((1, 3, 14)), levels[None], np.zeros((1, 3)))
    plan = Plan(levels[:1], visits=3)
    assert plan.value(3, np.array([1.0]), np.array([0.0]))[0] == pytest.approx(best, rel=1e-3)
    assert planned(shoppers, plan).sum() == pytest.approx(best, rel=1e-3)


def test_looking_ahead_is_worth_more_than_the_best_price_of_each_visit_and_than_any_fixed_one():
    shoppers = shoppers_of(1, 1_000)
    ahead = planned(shoppers, Plan(shoppers.levels.ravel()[:300])).sum()
    assert ahead > planned(shoppers, None).sum() * 1.02
    assert ahead > max(fixed(shoppers, arm).sum() for arm in range(9))
