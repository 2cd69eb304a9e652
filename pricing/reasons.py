"""Why a price is what it is: reason codes, stable, which travel with price updates and decisions.

Not here: their words (pricing.sentences), the arithmetic behind a price, which the decision's lattice, trail and propensity hold.
"""

from __future__ import annotations

from contracts.policies import FixedPrice, ListPrice, Rule, SessionIntent, UniformRandom
from contracts.rules import Greedy, LinearQ, Sarsa, Thompson

HELD = ("held",)
NO_CONSENT = ("no_consent",)
CONSENT_WITHDRAWN = ("consent_withdrawn",)
KILL_SWITCH = ("kill_switch",)
PURCHASED = ("purchased",)
OFFERS_FULL = ("offers_full",)
HELD_OUT = ("held_out",)
OFFER_ENDED = "offer_ended"
MODEL_MISMATCH = "model_mismatch"

RAIL = "rail:"
"""Before the name of the rail that kept a policy from its target."""
_AIMS: dict[type, str] = {
    SessionIntent: "session_intent",
    FixedPrice: "fixed_price",
    Thompson: "demand",
    Greedy: "demand",
    LinearQ: "value",
    Sarsa: "value",
}
LEARNED_AIMS = ("demand", "value")
"""The aims of policies that learn."""


def of_draw(rule: Rule, binding_rule: str | None, feasible: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the reasons of a drawn price that is the target, and of one that is not.

    Args:
        rule: the policy's.
        binding_rule: the rail that kept the policy from its target, or None.
        feasible: how many prices there were to choose from.
    """
    if feasible == 1:
        return ("only_list_feasible",), ("only_list_feasible",)
    if isinstance(rule, ListPrice):
        return ("list_price_policy",), ("list_price_policy",)
    if isinstance(rule, UniformRandom):
        return ("uniform",), ("uniform",)
    why = _AIMS[type(rule)]
    aimed = (why,) if binding_rule is None else (why, RAIL + binding_rule)
    return aimed, ("explored",)
