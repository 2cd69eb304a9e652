"""contracts.policy_files: what a policy file may say, and where it says what it may not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from msgspec import inspect

from contracts.authored import line_of
from contracts.errors import BadInput
from contracts.policies import BUILTIN, FixedPrice, ListPrice, Policy, Rails, Rule, SessionIntent
from contracts.policy_files import decode_policy_file, read_publishable
from contracts.rules import DiscountBudget, Features, LearningRule

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "deploy/policies").glob("*.toml"))

WHOLE = """\
name = "careful"
seed = 7
model = "0123456789abcdef"
fallback = "list@1"

[rule]  # how
kind = "session_intent"
discounts_permille = [
  100,
  50,
]
explore = 1

[rails]
raise_markets = ["DE"]
"""


def test_a_file_becomes_the_policy_it_describes():
    rule = SessionIntent(discounts_permille=(100, 50), explore=1.0)
    assert decode_policy_file(WHOLE, "careful.toml") == Policy(
        name="careful", number=1, seed=7, model="0123456789abcdef", fallback="list@1", rule=rule,
        rails=Rails(raise_markets=("DE",)),
    )  # fmt: skip


def test_name_and_kind_of_rule_are_enough():
    policy = decode_policy_file('name = "list"\nrule.kind = "list_price"\n', "list.toml")
    assert policy == Policy(name="list", number=1, rule=ListPrice())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_policy(path):
    decode_policy_file(path.read_text(encoding="utf-8"), path.name)


KINDS = {kind.__struct_config__.tag: kind for kind in get_args(Rule)}
OF_A_KIND = [(decode_policy_file(path.read_text(encoding="utf-8"), path.name), path) for path in EXAMPLES]


def fields_of(kind: inspect.Type) -> Iterator[str]:
    """Yield the names of all fields of a struct, and of the structs in it."""
    if isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from fields_of(member)
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            if not any(isinstance(one, inspect.StructType) for one in getattr(field.type, "types", [field.type])):
                yield field.name
            yield from fields_of(field.type)


def test_every_kind_of_rule_has_an_example():
    assert {policy.rule.__struct_config__.tag for policy, _ in OF_A_KIND} == set(KINDS)


@pytest.mark.parametrize("tag", KINDS)
def test_every_field_of_a_rule_is_explained_in_an_example_of_its_kind(tag):
    texts = [path.read_text(encoding="utf-8") for policy, path in OF_A_KIND if policy.rule.__struct_config__.tag == tag]
    names = set(fields_of(inspect.type_info(KINDS[tag])))
    assert any(all(re.search(rf"^(# )?{name} = [^#]*#", text, re.MULTILINE) for name in names) for text in texts), names


@pytest.mark.parametrize(("policy", "path"), OF_A_KIND, ids=[path.name for path in EXAMPLES])
def test_what_an_example_says_is_a_default_is_one(policy, path):
    rule, needed = policy.rule, {}
    if isinstance(rule, FixedPrice):
        needed = {"multiplier_permille": rule.multiplier_permille}
    if isinstance(rule, LearningRule):
        needed = {"features": Features(names=rule.features.names)}
    assert (rule, policy.rails, policy.seed) == (type(rule)(**needed), Rails(), 0)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_an_example_has_in_comments_may_be_said(path):
    text = re.sub(r"^# (?=\w+ = |\[)", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    policy = decode_policy_file(text, path.name)
    if isinstance(policy.rule, LearningRule) and "discount_budget" in text:
        assert policy.rule.money.discount_budget == DiscountBudget(permille=100), (
            "its other fields stand at their defaults"
        )


def test_there_is_an_example_of_the_builtin_policy_as_a_file_of_its_own():
    policies = [decode_policy_file(path.read_text(encoding="utf-8"), path.name) for path in EXAMPLES]
    assert any((one.rule, one.rails, one.seed) == (BUILTIN.rule, BUILTIN.rails, BUILTIN.seed) for one in policies)


HEAD = 'name = "careful"\n'
INTENT = HEAD + '[rule]\nkind = "session_intent"\n'
BAD = [
    ("", "p.toml: name is missing; add it"),
    (HEAD, "p.toml: rule is missing; add it"),
    (HEAD + "[rule]\n", "p.toml, line 2: rule.kind is missing; add it: one of "),
    (HEAD + '[rule]\nkind = "thompsn"\n', "p.toml, line 3: rule.kind cannot be 'thompsn'; correct it: one of "),
    (INTENT + "explor = 0.2\n", "p.toml, line 4: rule.explor is unknown; did you mean explore? Known here: kind, "),
    (HEAD + 'rule = { kind = "list_price", typo = 1 }\n', "p.toml, line 2: rule.typo is unknown; remove it. Known here: kind"),
    (HEAD + "modell = 1\n" + INTENT[len(HEAD) :], "p.toml, line 2: modell is unknown; did you mean model? Known here: name, "),
    (INTENT + "explore = 2\n", "p.toml, line 4: rule.explore must be a number <= 1.0; correct it"),
    (INTENT + "# 0 to 1\nrails.dwell_ms = 1\n", "p.toml, line 5: rule.rails is unknown; remove it. Known here: "),
    (INTENT + "discounts_permille = [5,\n'a']\n", "line 4: rule.discounts_permille[1] must be a whole number, is text; correct it"),
    (INTENT + "discounts_permille = [5, 10]\n", "line 2: rule: discounts_permille must not be empty nor increase"),
    (INTENT + "[rails]\nmultipliers = [950]\n", "line 4: rails.multipliers must ascend without repeats and contain 1000"),
    (HEAD + 'rule = "list_price"\n', "p.toml, line 2: rule must be a table, is text; correct it"),
    (HEAD + '[[rule]]\nkind = "list_price"\n', "p.toml, line 2: rule must be a table, is a list; correct it"),
    (INTENT.replace("careful", "Careful!"), "p.toml, line 1: name must be text matching regex"),
    (INTENT.replace("careful", "builtin"), "p.toml, line 1: name: 'builtin' is the policy that holds while none is published"),
    ('model = "m"\n' + INTENT, "p.toml: model and fallback go together"),
    ('model = "m"\nfallback = "list"\n' + INTENT, "p.toml, line 2: fallback must be text matching regex"),
    ('model = "abc"\nfallback = "list@1"\n' + INTENT, "p.toml, line 1: model: 'abc' is no digest of an artifact, so its fallback "
     "would price for ever; give the 16 hex digits that `pricetide model verify` prints"),
    ('model = "0123456789ABCDEF"\nfallback = "list@1"\n' + INTENT, "is no digest of an artifact"),
    (HEAD + '[rule]\nkind = "greedy"\nchurn.slope = "guessed"\n', "line 4: rule.churn.slope cannot be 'guessed'; correct it: "
     "one of assumed, randomised"),
    ("number = 3\n" + INTENT, "p.toml, line 1: number is not for the file; remove it: `pricetide policy apply` gives"),
    ('record = "policy"\n' + INTENT, "p.toml, line 1: record is not for the file"),
    (INTENT + "explore = nan\n", "p.toml is not TOML for a policy: nan is not a finite number; correct it"),
    ("name =\n", "p.toml is not TOML for a policy: Invalid value (at line 1, column 7); correct it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "says"), BAD, ids=[says[:60] for _, says in BAD])
def test_what_is_no_policy_is_refused_with_file_line_key_and_remedy(text, says):
    with pytest.raises(BadInput) as caught:
        decode_policy_file(text, "p.toml")
    assert says in str(caught.value)
    assert caught.value.exit_code == 2


LEARNS = 'name = "learns"\n{more}[rule]\nkind = "greedy"\n'
OF_A_MODEL = [
    ("", "p.toml, line 2: the rule reads vector and preference, which a model makes, and no model is named; name the digest that "
     'it is made for and what prices without it, model = "DIGEST" and fallback = "NAME@NUMBER"; or leave features of a model out, '
     'rule.features.names = ["intent", "price"]'),
    ('features.names = ["price", "preference"]\n', 'line 4: the rule reads preference, which a model makes'),
    ('features.names = ["price", "preference"]\n', 'leave features of a model out, rule.features.names = ["price"]'),
]  # fmt: skip


@pytest.mark.parametrize(("features", "says"), OF_A_MODEL)
def test_a_rule_that_reads_what_a_model_makes_is_not_published_unless_it_names_the_model(tmp_path, features, says):
    path = tmp_path / "p.toml"
    path.write_text(LEARNS.format(more="") + features, encoding="utf-8")
    with pytest.raises(BadInput, match=re.escape(says)):
        read_publishable(path)


@pytest.mark.parametrize(
    ("more", "features"),
    [('model = "0123456789abcdef"\nfallback = "list@1"\n', ""), ("", 'features.names = ["intent", "price"]\n')],
    ids=["it names one", "it reads none"],
)
def test_a_rule_that_learns_is_published_if_it_names_its_model_or_needs_none(tmp_path, more, features):
    path = tmp_path / "p.toml"
    path.write_text(LEARNS.format(more=more) + features, encoding="utf-8")
    assert read_publishable(path) == decode_policy_file(path.read_text(encoding="utf-8"), "p.toml")


def test_what_is_no_file_is_refused_before_it_is_published(tmp_path):
    with pytest.raises(BadInput, match="cannot be read: No such file or directory; name a TOML file with a policy"):
        read_publishable(tmp_path / "none.toml")


LINES = """\
a.b = 1
"c" = 2

[ x.y ]  # here
z = { k = 1 }
[[list]]
z = 3
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [(("a", "b"), 1), (("c",), 2), (("x", "y"), 4), (("x", "y", "z", "k"), 5), (("x", "y", "other"), 4),
     (("list[0]", "z"), 7), (("nowhere",), None), (("z",), None), ((), None)],
)  # fmt: skip
def test_a_key_is_found_at_its_line_or_at_that_of_its_table(path, line):
    assert line_of(LINES, path) == line
