"""A policy as a person writes it: TOML with the fields of contracts.policies.Policy, but for its number, which publishing
gives. Knows no kind of rule by name, but which of them learn. Not here: what is said of a mistake (contracts.authored),
publishing (streams.policy_changes), what a rule computes (pricing).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from contracts.authored import Draft, Form, content_of, convert, read_draft
from contracts.policies import BUILTIN, Policy
from contracts.rules import LearningRule

_FORM = Form(
    of=Policy,
    what="a policy",
    given={"record": "policy", "number": 1},
    why_given="remove it: `pricetide policy apply` gives the next number of the name",
)
_DIGEST = re.compile("[0-9a-f]{16}")
"""Of an artifact, as features.artifact makes it of the manifest."""


def read_policy(file: Path) -> Policy:
    """Return the policy in `file`, with number 1 in the place of the one that publishing gives.

    Raises:
        BadInput: it cannot be read, or is no policy; one sentence with file, line, key, what is wrong and what to do.
    """
    return _policy_of(read_draft(file, _FORM.what))


def read_publishable(file: Path) -> Policy:
    """Return the policy in `file`, as `read_policy`, if workers may be given it: it names the model that its features are of.

    Numbers that one model makes of a user mean nothing to what was learned with another. Where no models are exchanged, in a
    simulation or a backtest that names its artifact, a file may leave it open.

    Raises:
        BadInput: as `read_policy`; or features come from a model that the file does not name.
    """
    draft = read_draft(file, _FORM.what)
    policy = _policy_of(draft)
    if not isinstance(policy.rule, LearningRule) or policy.model is not None:
        return policy
    features = policy.rule.features
    if features.of_a_model:
        what = f"the rule reads {' and '.join(features.of_a_model)}, which a model makes, and no model is named"
        others = json.dumps([name for name in features.names if name not in features.of_a_model])
        remedy = (
            'name the digest that it is made for and what prices without it, model = "DIGEST" and fallback = "NAME@NUMBER"; or '
            f"leave features of a model out, rule.features.names = {others}"
        )
        raise draft.refused(("rule", "features", "names"), what, remedy)
    return policy


def decode_policy_file(text: str, source: str) -> Policy:
    """Return the policy in the TOML `text`; `source` names it in errors. Raises as `read_policy`."""
    return _policy_of(Draft(text, source))


def _policy_of(draft: Draft) -> Policy:
    policy = convert(draft, content_of(draft, _FORM), _FORM)
    if policy.name == BUILTIN.name:
        what = f"name: {policy.name!r} is the policy that holds while none is published"
        raise draft.refused(("name",), what, "choose another name")
    if policy.model is not None and not _DIGEST.fullmatch(policy.model):
        what = f"model: {policy.model!r} is no digest of an artifact, so its fallback would price for ever"
        raise draft.refused(("model",), what, "give the 16 hex digits that `pricetide model verify` prints")
    return policy
