"""Prices in words."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

from contracts.decisions import Outcome, TrailStep
from contracts.policies import Rails, Rule
from contracts.prices import Status
from contracts.rules import Features
from pricing import explanation, offers, rails, reasons, recomputing, sentences
from pricing.contexts import names_of
from pricing.explanation import Check
from pricing.sentences import (
    LANGUAGES,
    check_words,
    explain,
    feature_words,
    money,
    rule_words,
    step_line,
    unpriced,
)
from tests.pricing.shop import Shop, item


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(12_999, "USD", "129.99 USD"), (5, "EUR", "0.05 EUR"), (980, "JPY", "980 JPY"), (1_005, "KWD", "1.005 KWD")],
)
def test_money_is_written_with_the_decimals_of_its_currency(minor, currency, text):
    assert money(minor, currency) == text


def test_a_draw_is_explained_by_the_session_and_the_rail():
    shop = Shop()
    sentence = (
        "85.00 USD, 15.0 % below the list price of 100.00 USD: this session's interest in the item calls for it, "
        "as far as the limit on a change from the last price allows."
    )
    assert explain(shop.one(shop.view())) == sentence
    assert explain(shop.prices()[0]) == sentence


def test_a_list_price_is_explained_by_what_prescribes_it():
    shop = Shop(consent_default=False)
    assert explain(shop.one(shop.view())) == (
        "100.00 USD, the list price: the shopper has not agreed to personal prices."
    )


def test_two_causes_are_joined():
    shop = Shop()
    shop.one(shop.view())
    shop.stock(item(floor=10_000, valid_from_ms=1))
    assert explain(shop.one(shop.view(1))) == (
        "100.00 USD, the list price: the earlier offer is no longer allowed, and the rails leave no other price."
    )


def reasons_given() -> set[str]:
    """Every code that a price can have, from what gives them."""
    given = {code for codes in offers.PRESCRIBED.values() for code in codes}
    given |= {*reasons.HELD, *reasons.HELD_OUT, reasons.OFFER_ENDED, reasons.MODEL_MISMATCH}
    for kind in get_args(Rule):
        rule = kind(multiplier_permille=900) if kind.__name__ == "FixedPrice" else kind()
        for feasible in (1, 2):
            given |= {code for codes in reasons.of_draw(rule, None, feasible) for code in codes}
    return given


def rails_that_bind() -> set[str]:
    """Every rail that a trail can name, from what judges them."""
    whole = item(floor=1, cost=1, map_price=1, ceiling=20_000)
    bounds = rails.own_bounds(whole, 80) + rails.policy_bounds(10_000, Rails(), may_raise=False)
    return {name for name, _, _ in bounds} | {"charm", "step"}


def names_in(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_code_that_there_is_has_words_and_no_other(language):
    assert reasons_given() == set(sentences.REASONS[language])
    assert rails_that_bind() == set(sentences.RAILS[language])
    bound = (set(offers.PRESCRIBED) - {"withdrawal"}) | {"dwell", "holdout"}  # a withdrawal binds as consent does
    assert bound == set(sentences.PRESCRIPTIONS[language])
    assert set(get_args(Status)) == set(sentences.STATUSES[language])
    assert {*get_args(Outcome), "dead_letter"} == set(sentences.UNPRICED[language])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_feature_and_every_check_has_words(language):
    source = Path(explanation.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'what="(\w+)"', source)) == set(sentences.CHECKS[language])
    assert check_words(Check(what="draw:again", agrees=True), language).endswith(sentences.CHECKS[language]["again"])
    names = names_of(Features(dims=2))
    assert {name.partition("_")[0] for name in names} | {"least_response"} == set(sentences.FEATURES[language])
    assert feature_words("vector_11", language) == f"{sentences.FEATURES[language]['vector']} 11"
    assert {feature_words(name, language) for name in names}.isdisjoint(set(names) - {"base"})


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_can_be_missing_for_a_check_has_words(language):
    source = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (explanation, recomputing))
    codes = set(re.findall(r"""\(\(?"(\w+)", (?:decision|str|")""", source))
    assert codes == set(sentences.MISSING[language])
    everything = Check(what="again", agrees=None, missing=tuple((code, "any@1") for code in sorted(codes)))
    assert check_words(everything, language).count("any@1") == len(codes)


def test_the_chinese_of_a_check_has_no_english():
    missing = Check(what="draw:again", agrees=None, missing=(("policy", "any@1"), ("catalogue", "7")))
    assert check_words(missing, "zh") == "原报价：重新计算得到逐字节相同的结果（缺少：策略 any@1、目录版本 7）"
    sums = Check(what="probabilities", agrees=True, apart=2e-16)
    assert check_words(sums, "zh") == "概率之和为 1（相差 2.0e-16）"
    assert check_words(sums) == "probabilities sum to 1 (2.0e-16 apart)"


def test_both_languages_have_the_same_templates_and_their_own_words():
    tables = [sentences.REASONS, sentences.RAILS, sentences.PRESCRIPTIONS, sentences.STATUSES, sentences.UNPRICED]
    tables += [sentences.CHECKS, sentences.FEATURES, sentences.MISSING]
    for table in [*tables, sentences._SENTENCES]:
        assert set(table["en"]) == set(table["zh"])
        for code, english in table["en"].items():
            chinese = table["zh"][code]
            assert names_in(english) == names_in(chinese)
    for table in tables:
        assert all(re.search(r"[\u4e00-\u9fff]", words) for words in table["zh"].values())
        assert not any(re.search(r"[\u4e00-\u9fff]", words) for words in table["en"].values())


def test_every_binding_rule_of_a_decision_has_words():
    for rule in rails_that_bind() | {"dwell", "holdout", *offers.PRESCRIBED} - {"withdrawal"}:
        assert {rule_words(rule, language) for language in LANGUAGES}.isdisjoint({rule})


def test_a_draw_is_explained_in_chinese():
    shop = Shop()
    assert explain(shop.one(shop.view()), "zh") == (
        "85.00 USD，比标价 100.00 USD 低 15.0%：价格取决于本次访问中对该商品表现出的兴趣，但受相对上次价格的调价幅度上限限制。"
    )
    closed = Shop(consent_default=False)
    assert explain(closed.one(closed.view()), "zh") == "100.00 USD，即标价：顾客未同意个性化定价。"


def test_a_step_of_a_trail_is_told_with_its_bounds_and_what_it_rules_out():
    assert step_line(TrailStep("band", 7_500, 11_000, 4), "USD", 12) == (
        "the band that all shoppers' prices share: 75.00 USD to 110.00 USD; rules out 4 of 12 points of the lattice"
    )
    assert step_line(TrailStep("floor", 800, None, 2), "JPY", 9) == (
        "the floor price: at least 800 JPY; rules out 2 of 9 points of the lattice"
    )
    assert step_line(TrailStep("ceiling", None, 800, 2), "JPY", 9, "zh") == (
        "最高限价：不高于 800 JPY；在 9 个价格点中排除了 2 个"
    )
    assert step_line(TrailStep("charm", None, None, 3), "USD", 9) == (
        "the rule on price endings; rules out 3 of 9 points of the lattice"
    )


def test_a_record_without_a_price_says_why():
    assert unpriced("repeated") == "No price: the event had been applied before."
    assert unpriced("dead_letter:future", "zh") == "没有价格：该记录无法处理，已转入死信队列 (future)。"
