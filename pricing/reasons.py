"""Why a price is what it is: reason codes, and one plain English sentence for people.

Codes are stable and travel with price updates and decisions; words may change. Not here: the arithmetic behind a price,
which the decision's lattice, trail and propensity hold.
"""

from __future__ import annotations

from contracts.currency import minor_digits
from contracts.decisions import Decision
from contracts.policies import FixedPrice, ListPrice, Rule, SessionIntent, UniformRandom
from contracts.prices import PriceUpdate
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

WORDS = {
    "held": "the offer made earlier still stands",
    "no_consent": "the shopper has not agreed to personal prices",
    "consent_withdrawn": "the shopper has withdrawn consent to personal prices",
    "kill_switch": "personal prices are switched off for everybody",
    "purchased": "the shopper has bought the item, which ends the offer",
    "offers_full": "the shopper has as many open offers as one person may have",
    "held_out": "the shopper is among the few who pay list price for comparison while an experiment runs",
    "offer_ended": "the earlier offer is no longer allowed",
    "model_mismatch": "the policy was made for another model than the one in force, so its fallback prices",
    "list_price_policy": "the policy charges everybody the list price",
    "session_intent": "this session's interest in the item calls for it",
    "fixed_price": "the policy charges everybody the same share of the list price",
    "uniform": "the policy tries every allowed price alike",
    "demand": "it is the price that past purchases suggest for this visit",
    "value": "it is the price whose past outcomes were worth most in visits like this",
    "explored": "a small share of offers tries other allowed prices",
    "only_list_feasible": "the rails leave no other price",
}
RAIL_WORDS = {
    "floor": "the floor price",
    "margin": "the least margin over cost",
    "map": "the minimum advertised price",
    "ceiling": "the ceiling price",
    "discount_only": "the rule that personal prices never exceed list",
    "band": "the band that all shoppers' prices share",
    "charm": "the allowed price endings",
    "step": "the limit on a change from the last price",
}
_RAIL = "rail:"
_AIMS: dict[type, str] = {
    SessionIntent: "session_intent",
    FixedPrice: "fixed_price",
    Thompson: "demand",
    Greedy: "demand",
    LinearQ: "value",
    Sarsa: "value",
}


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
    aimed = (why,) if binding_rule is None else (why, _RAIL + binding_rule)
    return aimed, ("explored",)


def money(minor: int, currency: str) -> str:
    """Return an amount for people: 12999, "USD" -> "129.99 USD"."""
    decimals = minor_digits(currency)
    if not decimals:
        return f"{minor} {currency}"
    whole, rest = divmod(minor, 10**decimals)
    return f"{whole}.{rest:0{decimals}d} {currency}"


def explain(price: PriceUpdate | Decision) -> str:
    """Return one sentence that says what the price is and why."""
    amount, listed = money(price.price, price.currency), money(price.list_price, price.currency)
    if price.price == price.list_price:
        head = f"{amount}, the list price"
    else:
        # half up, of an exact ratio: no float comes near money
        off = (abs(price.list_price - price.price) * 1000 + price.list_price // 2) // price.list_price
        side = "below" if price.price < price.list_price else "above"
        head = f"{amount}, {off // 10}.{off % 10} % {side} the list price of {listed}"
    return f"{head}: {_because(price.reasons)}."


def _because(codes: tuple[str, ...]) -> str:
    causes = [WORDS.get(code, code) for code in codes if not code.startswith(_RAIL)]
    limits = [RAIL_WORDS.get(rail, rail) for code in codes if (rail := code.removeprefix(_RAIL)) != code]
    sentence = ", and ".join(causes) or "no reason is on record"
    return f"{sentence}, as far as {' and '.join(limits)} allows" if limits else sentence
