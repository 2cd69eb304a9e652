"""The JSON Schemas in the repository: they equal the structs, and accept what we send."""

from __future__ import annotations

import json

import jsonschema
import pytest
from click.testing import CliRunner

from contracts.commands import schema
from contracts.decisions import Applied, Decision, Source, TrailStep, encode_decision
from contracts.events import Click, Consent, Purchase, View, encode_event
from contracts.experiments import Experiment, Guardrail, Namespace, RunningExperiments, Variant
from contracts.json_schemas import MESSAGES, drifted, schema_file, schema_text
from contracts.learned import BudgetPeriod, CurrentLearned, Learned
from contracts.outcomes import Bought, LatePurchase, NextDraw, Outcome, PriceMismatch, encode_outcome
from contracts.policies import BUILTIN, CurrentPolicy, KillSwitch, ShadowPolicy, encode_policy
from contracts.prices import PriceUpdate, encode_price

SHOP = {"event_id": "e", "user": "u", "item": "i", "event_time_ms": 1_700_000_000_000, "price": 5, "currency": "USD"}
PRICE = {
    "decision_id": "d", "user": "u", "item": "i", "market": None, "currency": "USD", "price": 90, "list_price": 100,
    "valid_from_ms": 1, "valid_until_ms": 2, "version": 1, "reasons": ("intent",), "status": "drawn", "draw_id": "d",
}  # fmt: skip
DECISION = PRICE | {
    "event_id": "e", "multiplier": 900, "lattice": (90, 100), "trail": (TrailStep("floor", 50, None, 1),),
    "binding_rule": None, "forced": False, "propensity": 0.5, "intent": 1, "policy": "builtin", "policies_seen": 0,
    "catalogue_version": 0, "catalogue_seen": 1, "model": None, "sequence": 1, "event_time_ms": 1,
    "source": Source("views", 0, 0), "shown": None,
}  # fmt: skip
APPLIED = {
    "decision_id": "d",
    "user": None,
    "version": 1,
    "outcome": "repeated",
    "policies_seen": 0,
    "catalogue_seen": 0,
}
OUTCOME = {
    "draw_id": "d", "user": "u", "item": "i", "market": None, "currency": "USD", "price": 90, "list_price": 100,
    "cost": None, "policy": "builtin", "model": None, "preference": 0.25, "catalogue_version": 0, "intent": 1,
    "prices": (90, 100), "probabilities": (0.5, 0.5),
    "features": (1.0, 0.5), "feature_version": 1, "learned": "l", "cost_source": "none", "propensity": 0.5,
    "forced": False, "drawn_ms": 1, "version": 1, "resolved_ms": 2, "exposure": "ids", "exposed": True,
    "bought": Bought(quantity=1, price=90, event_id="e", event_time_ms=1), "learnable": False,
    "unlearnable": ("consent",), "next": NextDraw(draw_id="n", item="i", price=100, drawn_ms=2),
}  # fmt: skip
PURCHASE = {
    "decision_id": "p", "user": "u", "item": "i", "purchase_id": "e", "event_time_ms": 3, "price": 95, "quantity": 1,
    "draw_id": "d", "drawn_ms": 1, "drawn_price": 90,
}  # fmt: skip
EXPERIMENT = Experiment(
    name="spring",
    number=1,
    control="plain",
    namespace=Namespace(name="prices", start=0.0, end=0.5),
    guardrails=(Guardrail(metric="conversion", worse_by=0.02),),
    variants=(
        Variant(name="plain", weight=0.5, policy="builtin"),
        Variant(name="bold", weight=0.5, policy="bold@1"),
    ),
)
SENT = {
    "view": encode_event(View(**SHOP)),
    "click": encode_event(Click(**SHOP, action="add_to_cart")),
    "purchase": encode_event(Purchase(**SHOP, quantity=2)),
    "consent": encode_event(Consent(user="u", granted=True, event_time_ms=1_700_000_000_000)),
    "catalogue-item": b'{"item":"i","valid_from_ms":0,"title":"t","category":"","brand":"","currency":"USD","list_price":5}',
    "policy": encode_policy(BUILTIN),
    "current-policy": encode_policy(CurrentPolicy(name="p", number=1)),
    "shadow-policy": encode_policy(ShadowPolicy(policy="steady@3")),
    "kill-switch": encode_policy(KillSwitch(on=True)),
    "experiment": encode_policy(EXPERIMENT),
    "running-experiments": encode_policy(RunningExperiments(experiments=("spring@1",))),
    "learned": encode_policy(
        Learned(
            name="p",
            number=1,
            version=2,
            feature_version=1,
            payload="AA==",
            digest="0" * 64,
            outcomes=3,
            left={"influence": 1},
            discount_weight=0.5,
            budget=BudgetPeriod(period=4, discount=0.25, purchases=1),
            positions=(5, 6),
            begins=(0, 6),
            resolved_ms=7,
        )
    ),
    "current-learned": encode_policy(CurrentLearned(name="p", number=1, version=2)),
    "price-update": encode_price(PriceUpdate(**PRICE)),
    "decision": encode_decision(Decision(**DECISION)),
    "applied": encode_decision(Applied(**APPLIED, source=Source("views", 0, 0))),
    "outcome": encode_outcome(Outcome(**OUTCOME)),
    "price-mismatch": encode_outcome(PriceMismatch(**PURCHASE)),
    "late": encode_outcome(LatePurchase(**PURCHASE)),
}


def test_no_schema_has_drifted_from_its_struct():
    assert drifted() == [], "run `pricetide schema` and review the difference"


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_we_send_satisfies_its_schema(name):
    found = json.loads(schema_file(name).read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    jsonschema.validate(json.loads(SENT[name]), found)


def test_a_float_is_no_money():
    found = json.loads(schema_text("view"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"type": "view"} | SHOP | {"price": 9.99}, found)


def test_a_drifted_schema_is_noticed(monkeypatch):
    monkeypatch.setitem(MESSAGES, "view", Consent)
    assert drifted() == ["view"]
    checked = CliRunner().invoke(schema, ["--check"])
    assert checked.exit_code == 1
    assert "drifted: view. Run: pricetide schema" in checked.output


def test_the_command_prints_one_schema_and_checks_all():
    assert json.loads(CliRunner().invoke(schema, ["decision"]).output)["$id"] == "urn:pricetide:schema:v1:decision"
    assert CliRunner().invoke(schema, ["--check"]).exit_code == 0
