"""Decayed affinities: how much a user cares for a category or a brand, halved every HALF_LIFE_MS, the strongest kept.

Forward decay: instead of shrinking every weight as time passes, an event's gain grows with its distance from a landmark
of the user's, so weights compare as they are, whenever they were made, and a late event needs no special case. The
weight as of `now` is the stored number * 2^-((now - landmark) / HALF_LIFE_MS).
Source: Cormode, Shkapenyuk, Srivastava, Xu 2009, "Forward Decay", section 3.2.
"""

from __future__ import annotations

from contracts.catalogue import CatalogueItem
from contracts.events import Click, Purchase, ShopEvent, View
from features.state import UserState

HALF_LIFE_MS = 7 * 86_400_000
AFFINITIES_MAX = 16
"""Categories kept per user, and brands."""

GAINS = {View: 1.0, Click: 2.0, Purchase: 8.0}
_RENEW_HALF_LIVES = 512
"""How far time may run ahead of the landmark. Whole half-lives, so that renewing it rounds nothing; floats end at 2^1024.
A state without affinities has its landmark in 1970, farther back than this from the earliest event time, 2000."""


def strengthen(state: UserState, event: ShopEvent, item: CatalogueItem) -> None:
    """Count `event` as interest in the category and the brand of `item`; empty labels are none."""
    ahead = (event.event_time_ms - state.affinity_ms) / HALF_LIFE_MS
    if ahead > _RENEW_HALF_LIVES:
        ahead = _renew(state, event.event_time_ms)
    gain = GAINS[type(event)] * 2.0**ahead
    label, weights = item.category, state.categories
    if label in weights:
        weights[label] += gain
    elif label:
        _enter(weights, label, gain)
    label, weights = item.brand, state.brands
    if label in weights:
        weights[label] += gain
    elif label:
        _enter(weights, label, gain)


def _enter(weights: dict[str, float], label: str, gain: float) -> None:
    """Put `label` in; the weakest of a full set (of equal ones the one that came first) makes room."""
    if len(weights) >= AFFINITIES_MAX:
        del weights[min(weights, key=weights.__getitem__)]
    weights[label] = gain


def _renew(state: UserState, now_ms: int) -> float:
    """Move the landmark forward, to `now_ms` if there was none; return the half-lives left between the two."""
    if state.affinity_ms == 0:
        state.affinity_ms = now_ms
        return 0.0
    steps = (now_ms - state.affinity_ms) // (_RENEW_HALF_LIVES * HALF_LIFE_MS)
    shrink = 0.5 ** (steps * _RENEW_HALF_LIVES)
    for weights in (state.categories, state.brands):
        for label in weights:
            weights[label] *= shrink
    state.affinity_ms += steps * _RENEW_HALF_LIVES * HALF_LIFE_MS
    return (now_ms - state.affinity_ms) / HALF_LIFE_MS


def weights_at(state: UserState, now_ms: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the decayed weights of categories and of brands as of `now_ms`; a view just made weighs 1."""
    decay = 0.5 ** ((now_ms - state.affinity_ms) / HALF_LIFE_MS)
    return (
        {label: weight * decay for label, weight in state.categories.items()},
        {label: weight * decay for label, weight in state.brands.items()},
    )
