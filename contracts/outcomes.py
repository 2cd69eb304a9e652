"""Outcomes: what became of every draw, one record each when its window is over; and purchases that reward no draw.

A draw (status `drawn` in contracts.decisions) is one row for learning and for evaluation, and its outcome carries all of
that row: nobody computes a feature twice. Rules, all in event time, per partition:

- The window is `drawn_ms <= time < resolved_ms`, with resolved_ms = drawn_ms + Semantics.outcome_window_ms.
- A draw resolves when the partition's watermark (the highest event time applied) reaches resolved_ms, after the record that
  moved it: bought or not, in the order of (resolved_ms, version of the draw). A partition in which nothing is applied
  resolves nothing, and at the end of a log what is pending stays pending.
- A purchase rewards the latest draw (by drawn_ms, then version) of its user and item in whose window it lies and whose price
  was paid. If there are such draws, none of them at that price, it is a `price_mismatch`. If the item's last remembered draw
  was made before, but is not pending any more, the purchase is `late`. If there was no draw, it is nothing. A draw at the
  list price is a draw.
- Exposure is stated by a view or click whose `decision_id` is the draw's or one of its held re-issues'. A purchase is none,
  or the draws that sold would count more often than those that did not. Where a shop sends no ids every draw counts
  (intention to treat), and `exposure` says so.

Key [user, draw_id], or [user, decision_id of the purchase]: a person can be erased. Never rewritten.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from contracts.semantics import Exposure

Unlearnable = Literal["implausible", "consent", "forced", "forgotten"]
"""Why nothing may be learned from a draw. implausible: the user's traffic was, within a day before the draw or until it
resolved. consent: withdrawn since. forced: a single price was feasible. forgotten: the user made more draws than are
remembered (Semantics.offers_max), so exposure and purchases of this one could not be told any more."""
UNLEARNABLE: tuple[Unlearnable, ...] = ("implausible", "consent", "forced", "forgotten")


class Bought(Struct, frozen=True, kw_only=True, gc=False):
    """The purchases that a draw was rewarded with."""

    quantity: int
    """Pieces, of all of them."""
    price: int
    """Paid per piece: the draw's."""
    event_id: str
    """Of the first of them."""
    event_time_ms: int
    """Of the first of them."""


class NextDraw(Struct, frozen=True, kw_only=True, gc=False):
    """The user's next draw, of any item."""

    draw_id: str
    item: str
    price: int
    drawn_ms: int


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="outcome", gc=False):
    """A draw and what became of it. Money in minor units, times in ms of event time; `| None` as in contracts.decisions."""

    draw_id: str
    user: str
    item: str
    market: str | None
    currency: str
    price: int
    list_price: int
    cost: int | None
    """The catalogue's, at the draw."""
    policy: str
    model: str | None
    preference: float | None
    catalogue_version: int
    intent: int | None
    prices: tuple[int, ...]
    """The feasible ones, ascending."""
    probabilities: tuple[float, ...]
    """Of each of them under the policy."""
    features: tuple[float, ...] | None
    """What the policy saw, as contracts.decisions has it; this and the three below are None unless a learning policy drew."""
    feature_version: int | None
    learned: str | None
    cost_source: Literal["catalogue", "assumed", "none"] | None
    propensity: float
    """Probability of `price`; in an experiment with a holdout not that of `probabilities` (contracts.decisions)."""
    forced: bool
    drawn_ms: int
    version: int
    """The partition's count of applied records at the draw."""
    resolved_ms: int
    exposure: Exposure
    """`ids`: the shop states exposure; `all`: it does not, so every draw counts as exposed."""
    experiment: str | None = None
    """As in contracts.decisions, and so are the two below."""
    variant: str | None = None
    held_out: bool = False
    churn: float | None = None
    """As in contracts.decisions, and so is the one below. Whether the user came back, later events tell: backtests look."""
    churn_days: int | None = None
    exposed: bool
    bought: Bought | None
    learnable: bool
    unlearnable: tuple[Unlearnable, ...]
    """Why not; empty if it is."""
    next: NextDraw | None
    """None if the user's next draw, in applied order, was not made in this one's window."""


class _Unrewarded(Struct, frozen=True, kw_only=True, gc=False):
    """A purchase that rewards no draw."""

    decision_id: str
    """Of the decision or applied record that the purchase led to."""
    user: str
    item: str
    purchase_id: str
    """The event's id."""
    event_time_ms: int
    price: int
    """Paid per piece."""
    quantity: int
    draw_id: str
    """The latest draw of the item, in the window or remembered."""
    drawn_ms: int
    drawn_price: int


class PriceMismatch(_Unrewarded, frozen=True, kw_only=True, tag_field="record", tag="price_mismatch", gc=False):
    """A purchase in the window of draws of its item, at a price that none of them has."""


class LatePurchase(_Unrewarded, frozen=True, kw_only=True, tag_field="record", tag="late", gc=False):
    """A purchase of an item whose last remembered draw has resolved, or is pending and was forgotten."""


OutcomeRecord = Outcome | PriceMismatch | LatePurchase

decode_outcome = msgspec.json.Decoder(OutcomeRecord).decode
_encode = msgspec.json.Encoder().encode


def encode_outcome(record: OutcomeRecord) -> bytes:
    """Return the JSON bytes of `record`; equal records give equal bytes."""
    return _encode(record)
