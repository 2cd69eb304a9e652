"""Decisions: everything behind a price, enough to recompute and to evaluate it; and what was applied without one.

Two kinds of record share the topic (`record`): a `decision`, and `applied` for a source record that led to no decision
(consents, unknown items, repeated ids, dead letters). Together they are the applied order of a partition, `version` by
`version`, with what the worker had seen of catalogue and policies, so that a live run can be replayed. Never rewritten;
key [user, decision_id], so that a person can be erased.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from contracts.prices import Status


class TrailStep(Struct, frozen=True, array_like=True, gc=False):
    """One rail that removed points of the full lattice: prices below `low` or above `high` (None: no bound), or, for
    `charm`, prices without an allowed ending. `removed` counts those points, whichever other rails removed them too.
    """

    rail: str
    low: int | None
    high: int | None
    removed: int


class Source(Struct, frozen=True, array_like=True, gc=False):
    """Where the event stood."""

    topic: str
    partition: int
    offset: int


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="decision", gc=False):
    """One price decision. Money in minor units, times in ms of event time."""

    decision_id: str
    event_id: str | None
    """None when a consent led to the decision."""
    user: str
    item: str
    market: str | None
    currency: str
    price: int
    list_price: int
    multiplier: int
    """The lattice multiplier of `price`, in permille of list."""
    valid_from_ms: int
    valid_until_ms: int | None
    version: int
    reasons: tuple[str, ...]
    status: Status
    draw_id: str | None
    lattice: tuple[int, ...]
    """The full lattice, ascending, before any rail."""
    trail: tuple[TrailStep, ...]
    """The rails that bind, in their fixed order. Feasible = lattice without the removed points; list price stays."""
    binding_rule: str | None
    """The rail that kept the policy from its target, or made the price what it is: dwell, consent,
    kill_switch, purchase, or offers_max (as many offers are open as one user may have). Those end the trail, too. And
    holdout: the user's lot in an experiment; the trail is that of the prices which the policy would have chosen from."""
    forced: bool
    """A single price was feasible; not for off-policy evaluation."""
    propensity: float
    """Probability of `price` at the draw; 1.0 when forced. In an experiment with a holdout of share h it is the marginal one,
    whatever the user's lot: (1 - h) times the policy's, and h more where `price` is the list price."""
    intent: int | None
    """The session's intent level that the policy saw."""
    policy: str
    policies_seen: int
    catalogue_version: int
    """-1 for a withdrawn offer of an item that has left the catalogue, or is refused, since."""
    catalogue_seen: int
    model: str | None
    """Digest of the artifact in force, None without a model."""
    sequence: int
    """The user's count of applied events, this one included."""
    event_time_ms: int
    source: Source
    shown: str | None
    """The decision id that the shop said it rendered."""
    preference: float | None = None
    """r_ui: the model's propensity of this user to buy this item at its list price, to six decimals. Absent without a model,
    and from withdrawals, which are no event with the item."""
    experiment: str | None = None
    """The experiment that the user is in, name and number; absent outside of one, and without consent."""
    variant: str | None = None
    """Whose policy prices; of a user who is held out, would price."""
    held_out: bool = False
    """The user is in the list-price holdout: a draw has chosen the list price, whatever the policy's probabilities."""

    feasible: tuple[int, ...] | None = None
    """Of a draw: the prices that it chose from, ascending, the list price among them. This and the next three are of every draw
    that had a choice, `forced` ones had none, and absent from all else: a held price names its draw (`draw_id`). Records of
    before this field have the next three from policies that learn only."""
    probabilities: tuple[float, ...] | None = None
    """The policy's, one per feasible price. The propensity is the one of `price`, but for an experiment with a holdout."""
    u: float | None = None
    """The draw's uniform number in [0, 1): `price` is the first whose probabilities up to it sum to more, unless `held_out`."""
    explored: bool | None = None
    """Whether `price` is another than the one that the policy aims at; true of all that a uniform policy draws, which aims at
    none."""

    features: tuple[float, ...] | None = None
    """Of a learning policy's draw, as is what follows: what the policy saw, by its features' names, the constant 1 first. What an
    outcome teaches, it teaches of these."""
    feature_version: int | None = None
    learned: str | None = None
    """Digest of what the policy had learned until then."""
    level_contributions: tuple[float, ...] | None = None
    """What each feature adds to the expected log-odds of a purchase at list price; absent from policies without such."""
    response_contributions: tuple[float, ...] | None = None
    """What each feature adds to the log-odds that a discount of 20 % of list brings."""
    cost_source: Literal["catalogue", "assumed", "none"] | None = None
    """Where the cost behind the policy's aim is from; none: it aims at revenue, and margin is not available."""
    churn: float | None = None
    """The chance that the user stays away, to six decimals (features.churn): no event on any of the `churn_days` days (UTC) after
    the draw's. No price depends on it. Absent from records of before it was known."""
    churn_days: int | None = None
    """The horizon of `churn`."""


class Applied(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="applied", gc=False):
    """A source record that was applied and led to no decision; `outcome` says why."""

    decision_id: str
    user: str | None
    version: int
    outcome: str
    """`consent`, `erasure`, `unknown_item`, `refused_item`, `repeated`, or `dead_letter:<code>`."""
    policies_seen: int
    catalogue_seen: int
    source: Source
    model: str | None = None
    """Digest of the artifact in force; absent without one."""


DecisionRecord = Decision | Applied

Outcome = Literal["consent", "erasure", "unknown_item", "refused_item", "repeated"]

decode_decision = msgspec.json.Decoder(DecisionRecord).decode
_encode = msgspec.json.Encoder().encode


def encode_decision(record: DecisionRecord) -> bytes:
    """Return the JSON bytes of `record`; equal records give equal bytes."""
    return _encode(record)


def decision_key(user: str | None, decision_id: str) -> bytes:
    """Return the record key: a JSON array [user, decision_id]; user "" for what has none (dead letters)."""
    return _encode((user or "", decision_id))
