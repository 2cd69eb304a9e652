"""JSON Schemas of every message, generated from the structs; the copies in contracts/schemas are what others build on.

`pricetide schema` writes the copies, `pricetide schema --check` and a test say when they have drifted.
"""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import msgspec

from contracts.catalogue import CatalogueItem
from contracts.decisions import Applied, Decision
from contracts.events import Click, Consent, Purchase, View
from contracts.experiments import Experiment, RunningExperiments
from contracts.learned import CurrentLearned, Learned
from contracts.outcomes import LatePurchase, Outcome, PriceMismatch
from contracts.policies import CurrentPolicy, KillSwitch, Policy, ShadowPolicy
from contracts.prices import SCHEMA_VERSION, PriceUpdate

MESSAGES: dict[str, type[msgspec.Struct]] = {
    "view": View,
    "click": Click,
    "purchase": Purchase,
    "consent": Consent,
    "catalogue-item": CatalogueItem,
    "policy": Policy,
    "current-policy": CurrentPolicy,
    "shadow-policy": ShadowPolicy,
    "kill-switch": KillSwitch,
    "experiment": Experiment,
    "running-experiments": RunningExperiments,
    "learned": Learned,
    "current-learned": CurrentLearned,
    "price-update": PriceUpdate,
    "decision": Decision,
    "applied": Applied,
    "outcome": Outcome,
    "price-mismatch": PriceMismatch,
    "late": LatePurchase,
}
"""Every message that crosses a border, by the name of its schema."""


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the message `name`; `version` is that of the record header."""
    (reference,), components = msgspec.json.schema_components([MESSAGES[name]], ref_template="#/$defs/{name}")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:pricetide:schema:v{SCHEMA_VERSION}:{name}",
        "version": SCHEMA_VERSION,
    }
    return head | reference | {"$defs": components}


def schema_text(name: str) -> str:
    """Return the schema as the text of its file."""
    return msgspec.json.format(msgspec.json.encode(schema_of(name), order="sorted"), indent=2).decode() + "\n"


def schema_file(name: str) -> Traversable:
    """Return the copy of the schema that the package ships."""
    return files("contracts").joinpath("schemas", f"{name}.json")


def drifted() -> list[str]:
    """Return the names of messages whose copy is missing or differs from the struct."""
    return [name for name in MESSAGES if not _equal(schema_file(name), schema_text(name))]


def _equal(file: Traversable, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text
