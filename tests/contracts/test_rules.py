"""contracts.rules: which features a learning rule may read, and how a policy file that asks for others is refused."""

from __future__ import annotations

import pytest

from contracts.errors import BadInput
from contracts.policies import FixedPrice, UniformRandom, decode_policy, encode_policy
from contracts.policy_files import decode_policy_file
from contracts.rules import ALLOWED_FEATURES, Features, Greedy, LinearQ, Prior, Sarsa, Thompson

HEAD = 'name = "learns"\n[rule]\nkind = "thompson"\n'


def read(text):
    return decode_policy_file(text, "p.toml")


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("thompson", Thompson()),
        ("greedy", Greedy()),
        ("linear_q", LinearQ()),
        ("sarsa", Sarsa()),
        ("uniform", UniformRandom()),
    ],
)
def test_a_rule_is_chosen_by_name_and_survives_the_topic(kind, rule):
    policy = read(f'name = "one"\n[rule]\nkind = "{kind}"\n')
    assert policy.rule == rule
    assert decode_policy(encode_policy(policy)) == policy


def test_a_fixed_price_names_its_multiplier():
    assert read('name = "one"\n[rule]\nkind = "fixed_price"\nmultiplier_permille = 900\n').rule == FixedPrice(
        multiplier_permille=900
    )


@pytest.mark.parametrize("spread", ["level_spread", "response_spread", "features_spread"])
def test_spreads_of_a_prior_lie_where_rounding_leaves_a_belief_sound(spread):
    for value in ("0.001", "100"):
        assert read(f"{HEAD}prior.{spread} = {value}\n").rule.prior != Prior()
    for value in ("1e-9", "1e-200", "0.0", "101.0"):
        with pytest.raises(BadInput, match=f"prior.{spread}"):
            read(f"{HEAD}prior.{spread} = {value}\n")


@pytest.mark.parametrize("name", ["tenure", "order_frequency", "total_spend", "churn_hazard", "loyalty-tier"])
def test_loyalty_is_refused_with_a_sentence(name):
    with pytest.raises(BadInput, match="loyalty must never set a price, remove it; allowed are vector"):
        read(f'{HEAD}[rule.features]\nnames = ["{name}"]\n')


@pytest.mark.parametrize("name", ["age", "gender", "user_ethnicity", "home_postcode", "device"])
def test_protected_attributes_are_refused_with_a_sentence(name):
    with pytest.raises(BadInput, match="protected attribute"):
        read(f'{HEAD}[rule.features]\nnames = ["vector", "{name}"]\n')


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ('[rule.features]\nnames = ["colour_of_sky"]\n', "protected|not known"),
        ('[rule.features]\nnames = ["weather"]\n', "is not known: allowed are"),
        ('[rule.features]\nnames = ["price", "price"]\n', "must not repeat"),
        ("[rule.features]\nversion = 9\n", "is not known here"),
        ("[rule.features]\ndims = 64\n", "dims"),
        ("sampels = 8\n", "did you mean samples"),
        ("temper = 2.0\n", "temper"),
        ("[rule.prior]\nmemory = 10\n", "memory"),
        ("[rule.money]\nassumed_cost_permille = -1\n", "assumed_cost_permille"),
    ],
)
def test_what_is_wrong_is_said(more, why):
    with pytest.raises(BadInput, match=why):
        read(HEAD + more)


@pytest.mark.parametrize("slope", ["", 'churn.slope = "assumed"\n'])
def test_a_weight_on_churn_is_refused_unless_what_prices_do_to_it_was_randomised(slope):
    weighed = f"{HEAD}churn.weight = 0.5\nchurn.slope_value = 0.02\n"
    with pytest.raises(
        BadInput, match=r"churn\.weight must be 0 unless what prices do to it comes from randomised decisions"
    ):
        read(weighed + slope)
    rule = read(weighed + 'churn.slope = "randomised"\n').rule
    assert (rule.churn.weight, rule.churn.slope_value) == (0.5, 0.02)


def test_the_allow_list_names_nothing_about_a_person_but_this_session_and_the_model():
    assert set(ALLOWED_FEATURES) == {"vector", "preference", "intent", "price"}


def test_the_width_counts_the_constant_and_the_projected_vector():
    assert Features().width == 1 + 16 + 3
    assert Features(names=("intent",)).width == 2
    assert Features(names=("price", "vector"), dims=4).width == 6
    assert Features().of_a_model == ("vector", "preference")
    assert Features(names=("intent", "price")).of_a_model == ()
