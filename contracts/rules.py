"""Rules that learn: which features they may read, what they believe before the first purchase, how they explore.

Features come from an allow-list. What must never set a price (how long or how often somebody has been a customer, and
protected attributes) is refused here, at the schema, with a sentence. Not here: the rules that do not learn and the policy
around a rule (contracts.policies), the arithmetic (pricing).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

FEATURE_VERSION = 1
"""Of the meaning of every feature below; a posterior holds for one version only."""
ALLOWED_FEATURES = ("vector", "preference", "intent", "price")
"""`vector`: the model's user vector, projected to `dims` numbers. `preference`: its logit of a purchase of this item at list
price (r_ui). `intent`: what this session did with the item. `price`: the logarithm of the list price."""
OF_A_MODEL = ("vector", "preference")
_LOYALTY = ("tenure", "frequency", "recency", "orders", "spend", "loyalty", "lifetime_value", "churn")
_PROTECTED = (
    "age", "gender", "sex", "race", "ethnicity", "colour", "nationality", "religion", "disability", "pregnancy", "orientation",
    "marital_status", "health", "union", "politics", "genetics", "postcode", "zip", "name", "language", "location", "device",
)  # fmt: skip
SAMPLES_MAX = 512
DISCOUNT_WEIGHT_MAX = 10.0

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Permille = Annotated[int, Meta(ge=0, le=10_000)]
Spread = Annotated[float, Meta(ge=1e-3, le=100.0)]
"""Further apart, and rounding takes away what the smaller one knows."""
Days = Annotated[float, Meta(gt=0.0, le=1_000.0)]


class Features(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a learning rule sees: x = [1, projected vector, the other named features], in the order of `names`."""

    names: tuple[str, ...] = ALLOWED_FEATURES
    dims: Annotated[int, Meta(ge=1, le=32)] = 16
    """Numbers that `vector` is projected to, by a random orthonormal map that never changes."""
    seed: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] = 0
    """Of that map."""
    version: Annotated[int, Meta(ge=1)] = FEATURE_VERSION

    def __post_init__(self) -> None:
        for name in self.names:
            _require_allowed(name)
        if len(set(self.names)) != len(self.names):
            raise ValueError("features.names must not repeat a feature")
        if self.version != FEATURE_VERSION:
            raise ValueError(f"features.version {self.version} is not known here: this release knows {FEATURE_VERSION}")

    @property
    def width(self) -> int:
        """Length of x, the constant 1 included."""
        return 1 + sum(self.dims if name == "vector" else 1 for name in self.names)

    @property
    def of_a_model(self) -> tuple[str, ...]:
        """Names of the features that come from the user transformer."""
        return tuple(name for name in self.names if name in OF_A_MODEL)


def _require_allowed(name: str) -> None:
    if name in ALLOWED_FEATURES:
        return
    words = set(name.lower().replace("-", "_").split("_"))
    if name in _LOYALTY or not words.isdisjoint(_LOYALTY):
        raise ValueError(
            f"feature {name!r} says how long or how often somebody has been a customer: loyalty must never set a price, "
            f"remove it; allowed are {', '.join(ALLOWED_FEATURES)}"
        )
    if name in _PROTECTED or not words.isdisjoint(_PROTECTED):
        raise ValueError(
            f"feature {name!r} is a protected attribute, or stands in for one: it must never set a price, remove it; "
            f"allowed are {', '.join(ALLOWED_FEATURES)}"
        )
    raise ValueError(f"feature {name!r} is not known: allowed are {', '.join(ALLOWED_FEATURES)}")


class DiscountBudget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a purchase may be discounted by on average. The learner holds prices to it by a multiplier lambda >= 0, which is
    added to `discount_weight`: at the end of each period, lambda' = max(0, lambda + step * (realised - target)), both discounts
    as shares of list price. A period without a purchase leaves it.
    """

    permille: Annotated[int, Meta(ge=0, le=1000)]
    """The target: mean discount of the policy's own purchases, as a share of list price. All of them count that reward a draw,
    also those that teach nothing, as of a user who has taught enough; not those of users who are held out."""
    period_ms: Annotated[int, Meta(ge=60_000)] = 3_600_000
    """Of event time."""
    step: Annotated[float, Meta(gt=0.0, le=100.0)] = 1.0


class Guard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What bounds the learner's trust in what it is shown."""

    user_outcomes_max: Annotated[int, Meta(ge=1)] = 5
    """Most outcomes of one user that are learned from in a window; more are counted, and teach nothing. Two or three times what a
    user has on average: then some users with a large share of the draws cannot speak for the others."""
    user_window_ms: Annotated[int, Meta(ge=60_000, le=30 * 86_400_000)] = 86_400_000
    """Of event time; windows lie end to end. A learner that starts again first reads the last two of them anew."""
    since_ms: Annotated[int, Meta(ge=0)] = 0
    """Draws before this event time teach nothing: to begin anew without what is known to be bad."""


class Money(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a purchase is worth: price less cost, less what the discount is charged at."""

    assumed_cost_permille: Permille | None = None
    """Cost as a share of list price where the catalogue knows none. None: then revenue is what counts, and margin is
    reported as not available."""
    discount_weight: Annotated[float, Meta(ge=0.0, le=DISCOUNT_WEIGHT_MAX)] = 0.0
    """What a unit of discount per purchase is charged at, besides the money it costs."""
    discount_budget: DiscountBudget | None = None


class Churn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether users come back. Each draw logs the chance that its user stays away (features.churn), and the horizon; backtests
    hold both against what happened. No price ever depends on a person's hazard, or who comes often would pay more. What
    prices do to everybody's return may be weighed, alike for all, but only if it was measured on randomised decisions.
    """

    horizon_days: Annotated[int, Meta(ge=1, le=30)] = 7
    """Days (UTC) after the draw's own on which a user who comes back has an event."""
    returns: Days = 0.7
    """With `absences` the prior of a user's chance to come on a day: days taken to be seen, on which they came."""
    absences: Days = 14.5
    """Likewise, on which they did not. Both are fitted to a sample of a grocer's receipts (decision 0027): a shop has its own."""
    weight: Annotated[float, Meta(ge=0.0, le=1_000.0)] = 0.0
    """What a user who stays away costs, in list prices of what they looked at."""
    slope: Literal["assumed", "randomised"] = "assumed"
    """Where `slope_value` is from: `randomised` decisions, as `pricetide backtest --report` estimates it, or anything else."""
    slope_value: Annotated[float, Meta(ge=-1.0, le=1.0)] = 0.0
    """What a discount of 20 % of list adds to the chance that a user comes back within the horizon."""

    def __post_init__(self) -> None:
        if self.weight > 0.0 and self.slope != "randomised":
            raise ValueError(
                "churn.weight must be 0 unless what prices do to it comes from randomised decisions, a correlation is no effect: "
                'take churn.slope_value from a report of logged draws and say churn.slope = "randomised"'
            )


class Prior(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is believed of demand before the first outcome. In log-odds; `response` is what a discount of 20 % adds."""

    level: Annotated[float, Meta(ge=-12.0, le=12.0)] = -1.0
    """Mean log-odds of a purchase at list price."""
    level_spread: Spread = 1.0
    """Standard deviation of it."""
    response: Annotated[float, Meta(ge=0.0, le=20.0)] = 1.0
    response_spread: Spread = 0.5
    features_spread: Spread = 0.6
    """Standard deviation of what all features together may add to either, for features of unit size."""
    memory: Annotated[int, Meta(ge=1_000, le=10_000_000)] = 50_000
    """Outcomes after which half of what was learned is forgotten, back towards this prior: people change. It is also what
    keeps the covariance positive definite for ever."""


class Thompson(Struct, frozen=True, kw_only=True, tag_field="kind", tag="thompson", forbid_unknown_fields=True):
    """Thompson sampling on a Bayesian logit demand model: a price is as probable as it is to be the best one."""

    features: Features = Features()
    prior: Prior = Prior()
    money: Money = Money()
    guard: Guard = Guard()
    churn: Churn = Churn()
    samples: Annotated[int, Meta(ge=2, le=SAMPLES_MAX)] = 64
    """Points of the fixed table of normals over which the best price is counted."""
    temper: Share = 0.3
    """Share of the posterior's standard deviation that is sampled; less explores less. 1 is Thompson sampling proper."""
    explore: Share = 0.005
    """Share of draws spread evenly over the feasible lattice."""
    hurdle: Share = 0.3
    """What a price must promise more than list price, as a share of what it earns, times its distance from list: at 0.3 one that
    lies 10 % away must promise 3 % more. What is gained on noise is lost; prices near list change little, none jumps."""


class Greedy(Struct, frozen=True, kw_only=True, tag_field="kind", tag="greedy", forbid_unknown_fields=True):
    """The best price under the mean of the same demand model; learns only from what it happens to charge."""

    features: Features = Features()
    prior: Prior = Prior()
    money: Money = Money()
    guard: Guard = Guard()
    churn: Churn = Churn()
    explore: Share = 0.0


class LinearQ(Struct, frozen=True, kw_only=True, tag_field="kind", tag="linear_q", forbid_unknown_fields=True):
    """Q-learning: the value of a price is linear in the features and quadratic in the multiplier; epsilon-soft."""

    features: Features = Features()
    money: Money = Money()
    guard: Guard = Guard()
    churn: Churn = Churn()
    explore: Share = 0.05
    rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.02
    """Share of the error that one outcome corrects, for an outcome of typical size; none corrects more than all of it."""
    discount: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    """What the user's next draw counts, per `tau_ms` until it. 0: a contextual bandit."""
    tau_ms: Annotated[int, Meta(gt=0)] = 86_400_000
    value_max: Annotated[float, Meta(gt=0.0, le=1_000.0)] = 1.0
    """Largest value, in list prices, that a next draw may be credited with."""


class Sarsa(Struct, frozen=True, kw_only=True, tag_field="kind", tag="sarsa", forbid_unknown_fields=True):
    """SARSA(lambda): as LinearQ, but values the price that was really drawn next, with traces along a user's draws."""

    features: Features = Features()
    money: Money = Money()
    guard: Guard = Guard()
    churn: Churn = Churn()
    explore: Share = 0.05
    rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.02
    discount: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    tau_ms: Annotated[int, Meta(gt=0)] = 86_400_000
    value_max: Annotated[float, Meta(gt=0.0, le=1_000.0)] = 1.0
    trace: Share = 0.8
    """Lambda: how much of an outcome the user's earlier draws are credited with; nothing while `discount` is 0."""


DemandRule = Thompson | Greedy
ValueRule = LinearQ | Sarsa
LearningRule = Thompson | Greedy | LinearQ | Sarsa

encode_rule = msgspec.json.Encoder().encode
