"""Why a price is what it is, in numbers: what else was possible, what each feature adds, what to expect of it; all checked.

Everything is from the decision's record; what stands behind it (pricing.recomputing.Background) adds cost, probabilities that
records of before `feasible` lack, and the proof that the decision comes out again byte for byte. Pure. Not here: words
(pricing.sentences), pages and the search for a decision (streams.explain_pages, streams.decision_search).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import fsum

from msgspec import Struct
from msgspec.structs import replace

from contracts.catalogue import CatalogueItem
from contracts.decisions import Decision, encode_decision
from contracts.policies import Policy
from contracts.rules import LearningRule, Money
from pricing.arms import SHIFTS_PER_LIST, cost_of
from pricing.contexts import names_of
from pricing.demand import sigmoid
from pricing.draws import cumulated, uniforms
from pricing.learned import restored
from pricing.recomputing import Background, Missing, Recomputed, feasible_prices, lacking, recompute
from pricing.thompson import RESPONSE_MIN

TOLERANCE = 1e-9
"""How far contributions may be from the log-odds, and probabilities from 1."""


class Option(Struct, frozen=True, kw_only=True):
    """One feasible price."""

    price: int
    permille: int
    """Of list, rounded half up."""
    probability: float | None
    """That the policy draws it; None: not on the record, and its background is not at hand."""
    chosen: bool
    listed: bool


class Part(Struct, frozen=True, kw_only=True):
    """What one feature adds to the log-odds of a purchase at the chosen price: level + shift * response."""

    feature: str
    value: float | None
    """Of the feature; None for the bound on the response."""
    level: float
    response: float
    """Per discount of 20 % of list."""
    adds: float


class Prospect(Struct, frozen=True, kw_only=True):
    """What is expected at one price. Money in minor units, per piece and (expected) per offer."""

    price: int
    purchase: float | None
    """Probability of a purchase under the policy's mean; at list price of a policy without demand the model's propensity."""
    expected_revenue: float | None
    margin: float | None
    """None: no cost is known."""
    expected_margin: float | None


class Check(Struct, frozen=True, kw_only=True):
    """One thing that was verified."""

    what: str
    """Code of what was; pricing.sentences has it in words. Begins with `draw:` where it is of the draw that a price holds."""
    agrees: bool | None
    """None: it could not be, for want of what is `missing`."""
    apart: float | None = None
    """How far two numbers are from each other that should be the same; None where bytes or prices are compared."""
    missing: tuple[Missing, ...] = ()


class Explanation(Struct, frozen=True, kw_only=True):
    """Everything behind one price."""

    decision: Decision
    draw: Decision | None
    """The draw that a held price re-issues, and which options, parts and prospects are of; None for any other price."""
    options: tuple[Option, ...]
    """Ascending; empty where nothing was chosen, or the feasible prices are not known."""
    parts: tuple[Part, ...]
    """Empty without a demand model."""
    log_odds: float | None
    """At the chosen price."""
    chosen: Prospect
    listed: Prospect
    cost_source: str | None
    """catalogue, assumed, none; None: not known."""
    untaught: bool
    """The policy learns and had learned nothing yet; false also where the policy is not known."""
    checks: tuple[Check, ...]


def explain_decision(decision: Decision, background: Background, behind_draw: Background | None = None) -> Explanation:
    """Return the explanation of `decision`.

    Args:
        decision: of any status.
        background: as far as it is at hand.
        behind_draw: the same of `background.draw`, which a held price re-issues and is explained by.
    """
    again = None if lacking(decision, background) else recompute(decision, background)
    checks = (*_from_record(decision, background.policy), _from_background(decision, background, again))
    if decision.status == "held" and background.draw is not None:
        drawn = explain_decision(background.draw, behind_draw or Background())
        of_draw = [replace(check, what=f"draw:{check.what}") for check in drawn.checks]
        return replace(drawn, decision=decision, draw=background.draw, checks=(*checks, *of_draw))
    parts = contributions(decision, background.policy)
    cost, cost_source = _cost(decision, background.policy, background.item)
    return Explanation(
        decision=decision,
        draw=None,
        options=_options(decision, background.policy, again),
        parts=parts,
        log_odds=fsum(part.adds for part in parts) if parts else None,
        chosen=_prospect(decision, decision.price, parts, cost),
        listed=_prospect(decision, decision.list_price, parts, cost),
        cost_source=cost_source,
        untaught=_untaught(decision, background.policy),
        checks=checks,
    )


def _prospect(decision: Decision, price: int, parts: Sequence[Part], cost: float | None) -> Prospect:
    chance = decision.preference if price == decision.list_price else None
    if parts:
        level, response = fsum(part.level for part in parts), fsum(part.response for part in parts)
        chance = sigmoid(level + response * _shift(decision, price))
    margin = None if cost is None else price - cost
    return Prospect(
        price=price,
        purchase=chance,
        expected_revenue=None if chance is None else chance * price,
        margin=margin,
        expected_margin=None if chance is None or margin is None else chance * margin,
    )


def contributions(decision: Decision, policy: Policy | None) -> tuple[Part, ...]:
    """Return what each feature adds; the sum of `adds` is the log-odds that the policy expects at the price.

    Empty where the record has none. A response that the policy would not believe (below RESPONSE_MIN: demand falls with the
    price) is raised to it, and what that adds is a part of its own. Names are numbers where `policy` is not known.
    """
    levels, responses, values = decision.level_contributions, decision.response_contributions, decision.features
    if levels is None or responses is None or values is None:
        return ()
    names: Sequence[str] = [f"x{number}" for number in range(len(values))]
    if policy is not None and isinstance(policy.rule, LearningRule):
        names = names_of(policy.rule.features)
    shift = _shift(decision, decision.price)
    parts = [
        Part(feature=name, value=value, level=level, response=response, adds=level + shift * response)
        for name, value, level, response in zip(names, values, levels, responses, strict=True)
    ]
    short = RESPONSE_MIN - fsum(responses)
    if short > 0.0:
        parts.append(Part(feature="least_response", value=None, level=0.0, response=short, adds=shift * short))
    return tuple(parts)


def _shift(decision: Decision, price: int) -> float:
    return SHIFTS_PER_LIST * (1.0 - price / decision.list_price)


def _cost(decision: Decision, policy: Policy | None, item: CatalogueItem | None) -> tuple[float | None, str | None]:
    """Return (cost in minor units or None, where it is from or None where that is not known)."""
    if decision.cost_source == "none":
        return None, "none"
    if item is None or policy is None:
        return None, decision.cost_source
    money = policy.rule.money if isinstance(policy.rule, LearningRule) else Money()
    cost, source = cost_of(item.cost, decision.list_price, money)
    return (None if source == "none" else cost), source


def _untaught(decision: Decision, policy: Policy | None) -> bool:
    """Return whether what the policy knew at `decision` is what its rule knows before the first outcome."""
    if policy is None or decision.learned is None or not isinstance(policy.rule, LearningRule):
        return False
    return decision.learned == restored(policy.rule, None).digest()


def _options(decision: Decision, policy: Policy | None, again: Recomputed | None) -> tuple[Option, ...]:
    if decision.status == "list":
        return ()
    prices = feasible_prices(decision, policy)
    chances = decision.probabilities
    if again is not None and again.probabilities is not None:
        prices, chances = again.prices, again.probabilities
    if prices is None or (chances is not None and len(chances) != len(prices)):
        return ()
    return tuple(
        Option(
            price=price,
            permille=(price * 2000 + decision.list_price) // (2 * decision.list_price),
            probability=None if chances is None else chances[place],
            chosen=price == decision.price,
            listed=price == decision.list_price,
        )
        for place, price in enumerate(prices)
    )


def _from_record(decision: Decision, policy: Policy | None) -> list[Check]:
    """Verify what the record says of itself."""
    checks = [Check(what="on_lattice", agrees=decision.price in decision.lattice)]
    if decision.forced:
        checks.append(Check(what="forced", agrees=decision.propensity == 1.0))
    if decision.level_contributions is not None and decision.response_contributions is not None:
        parts = contributions(decision, policy)
        shift = _shift(decision, decision.price)
        response = max(fsum(decision.response_contributions), RESPONSE_MIN)
        apart = abs(fsum(part.adds for part in parts) - (fsum(decision.level_contributions) + shift * response))
        checks.append(Check(what="contributions", agrees=apart <= TOLERANCE, apart=apart))
    if decision.probabilities is not None and decision.u is not None:
        checks += _drawn(decision, policy, decision.probabilities, decision.u)
    return checks


def _drawn(decision: Decision, policy: Policy | None, chances: tuple[float, ...], u: float) -> list[Check]:
    """Verify a draw: probabilities, arm and number."""
    apart = abs(fsum(chances) - 1.0)
    checks = [Check(what="probabilities", agrees=apart <= TOLERANCE, apart=apart)]
    prices = feasible_prices(decision, policy)
    if prices is None or len(prices) != len(chances):
        checks.append(Check(what="arm", agrees=None, missing=(("endings", decision.policy),)))
    elif decision.held_out:
        agrees = decision.price == decision.list_price
        checks.append(Check(what="held_out", agrees=agrees))
    else:
        arm = bisect_right(cumulated(chances), u)
        checks.append(Check(what="arm", agrees=prices[arm] == decision.price))
        if decision.experiment is None:
            checks.append(Check(what="propensity", agrees=chances[arm] == decision.propensity))
    if policy is None:
        checks.append(Check(what="number", agrees=None, missing=(("seed", decision.policy),)))
    else:
        agrees = uniforms(policy.seed, [decision.decision_id])[0] == u
        checks.append(Check(what="number", agrees=agrees))
    return checks


def _from_background(decision: Decision, background: Background, again: Recomputed | None) -> Check:
    """Compare the bytes of the decision, made again, with those of its record."""
    if again is None:
        return Check(what="again", agrees=None, missing=tuple(lacking(decision, background)))
    return Check(what="again", agrees=again.value == encode_decision(decision))
