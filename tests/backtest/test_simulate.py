"""`pricetide simulate`: a policy in a world, scored; and that it is the engine's own policy that plays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from backtest.scores import score_policy
from backtest.simulate_commands import simulate
from backtest.simulation import Player, decision_ids, drawn, is_held_out, play
from backtest.worlds import PERMILLE, world_of
from contracts.errors import BadInput
from contracts.policies import FixedPrice, ListPrice, Policy, UniformRandom
from contracts.rules import LinearQ, Sarsa, Thompson
from pricing.choosers import chooser_of
from pricing.contexts import Seen, scene_of
from pricing.draws import uniforms


def policy_of(rule):
    return Policy(name="plays", number=1, seed=5, rule=rule)


def said(tmp_path, text, *words):
    file = tmp_path / "p.toml"
    file.write_text(text)
    result = CliRunner().invoke(simulate, ["--policy", str(file), *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


TOML = 'name = "plays"\n[rule]\nkind = "thompson"\nsamples = 16\n'


def test_simulate_works_as_documented(tmp_path):
    score = json.loads(said(tmp_path, TOML, "--world", "LOGIT", "--seed", 3, "--events", 1_500, "--json"))
    assert score["events"] == 1_500
    assert score["list_value"] < score["policy_value"] < score["oracle_value"]
    gain = score["policy_value"] - score["list_value"]
    assert score["share"] == pytest.approx(100 * gain / (score["oracle_value"] - score["list_value"]))
    assert score["events_per_second"] > 0
    table = said(tmp_path, TOML, "--world", "MIS", "--events", 300, "--discount-only", "--holdout", 0.1)
    assert "oracle" in table
    assert "300 events" in table


def test_equal_options_give_equal_scores():
    scores = [score_policy(policy_of(Thompson()), "MIS", 2, 300) for _ in range(2)]
    assert scores[0].policy_value == scores[1].policy_value
    assert score_policy(policy_of(Thompson()), "MIS", 3, 300).policy_value != scores[0].policy_value


@pytest.mark.parametrize("world", ["LOGIT", "MIS", "NULL", "CARRY"])
def test_list_price_earns_none_of_the_gain_in_any_world(world):
    score = score_policy(policy_of(ListPrice()), world, 1, 500)
    assert score.share == pytest.approx(0.0, abs=1e-9)
    assert score.policy_value == pytest.approx(score.list_value)


def test_a_fixed_price_and_uniform_earn_what_their_prices_earn():
    world = world_of("LOGIT", 1, 400)
    fixed = score_policy(policy_of(FixedPrice(multiplier_permille=900)), "LOGIT", 1, 400)
    assert fixed.policy_value == pytest.approx(world.rewards[:, 2].sum())
    uniform = score_policy(policy_of(UniformRandom()), "LOGIT", 1, 400)
    assert uniform.policy_value == pytest.approx(world.rewards.mean(-1).sum())


def test_the_player_draws_as_the_engine_does_and_learns_only_of_the_price_it_drew():
    policy, world = policy_of(Thompson(explore=0.1)), world_of("LOGIT", 4, 200)
    taken, _ = play(policy, world, 4)
    twin = Player(policy, world.permille)
    learned = twin.knowledge
    for visit, u in enumerate(uniforms(policy.seed, decision_ids(4, 200))):
        chooser = chooser_of(policy, learned)
        scene = scene_of(chooser.features, [Seen(10_000, 2, None, world.x[visit])])
        chances = chooser.weigh(chooser.project(scene), twin.arms)[0]
        assert (taken[visit] == chances).all()
        arm = drawn(chances.tolist(), u)
        bought = bool(world.luck[visit] < world.chances[visit, arm])
        learned.learn(scene.x[0], float(twin.arms.shifts[0, arm]), bought)


def test_a_holdout_pays_list_price_and_is_the_same_for_every_policy():
    world, ids = world_of("LOGIT", 1, 1_000), decision_ids(1, 1_000)
    held = np.array([is_held_out(one, 0.2) for one in ids])
    assert 150 < held.sum() < 250
    for rule in (UniformRandom(), FixedPrice(multiplier_permille=800)):
        taken, _ = play(policy_of(rule), world, 1, holdout=0.2)
        assert (taken[held, PERMILLE.index(1000)] == 1.0).all()
        assert (taken[~held, PERMILLE.index(1000)] < 1.0).all()


def test_a_policy_that_learns_beats_list_price_and_one_that_does_not_explore_blindly():
    learned = score_policy(policy_of(Thompson()), "LOGIT", 2, 3_000)
    assert learned.share > 40.0
    assert learned.share > score_policy(policy_of(UniformRandom()), "LOGIT", 2, 3_000).share + 40.0


@pytest.mark.parametrize("rule", [LinearQ(discount=0.9), Sarsa(discount=0.9)], ids=["q", "sarsa"])
def test_values_that_look_ahead_play_the_world_that_remembers(rule):
    blind = type(rule)(discount=0.0)
    ahead = score_policy(policy_of(rule), "CARRY", 1, 1_000)
    assert ahead.policy_value != score_policy(policy_of(blind), "CARRY", 1, 1_000).policy_value
    assert ahead.events == 1_000


@pytest.mark.parametrize(
    ("world", "options", "why"),
    [
        ("CARRY", {"discount_only": True}, "knows neither"),
        ("CARRY", {"holdout": 0.1}, "knows neither"),
        ("MOON", {}, "is not known: use LOGIT"),
    ],
)
def test_what_a_world_cannot_do_is_said(world, options, why):
    with pytest.raises(BadInput, match=why):
        score_policy(policy_of(ListPrice()), world, 1, 100, **options)


def test_a_policy_file_that_is_wrong_is_one_sentence(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text('name = "p"\n[rule]\nkind = "thompson"\n[rule.features]\nnames = ["tenure"]\n')
    with pytest.raises(BadInput, match="loyalty must never set a price"):
        CliRunner().invoke(
            simulate, ["--world", "NULL", "--policy", str(file), "--events", "10"], catch_exceptions=False
        )


def test_visits_in_which_nobody_can_gain_on_list_price_are_a_sentence():
    with pytest.raises(BadInput, match="In these 2 visits of NULL nobody can gain on list price"):
        score_policy(policy_of(UniformRandom()), "NULL", 3, 2, discount_only=True)
