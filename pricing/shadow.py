"""A shadow: a policy that decides every draw once more, for nobody, so that it can be watched before it prices.

Same user, item, event and state as the real draw, the user's real last price included: what a shadow would have charged
before, it never did. Its own rails, seed and probabilities, no experiment and no holdout. It reads states and offers and
changes none; its decisions have the ids of the draws, so that outcomes can be laid beside them. Not here: who is a shadow
(contracts.policies), where its decisions go (the shells).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from features.vectors import Taste
from pricing import reasons
from pricing.choosers import Sight
from pricing.draws import uniforms
from pricing.learned import Known, seen_of, sights_of
from pricing.menus import MenuBook
from pricing.offers import Ask, draw
from pricing.records import Recorder
from pricing.run import Asked, Turn
from pricing.treatments import NO_STAMP, Treatment


class _Chance(NamedTuple):
    """What a shadow needs of one ask, should it be a draw."""

    u: float
    sight: Sight | None


class Shadow:
    """The shadow of one batch."""

    __slots__ = ("_chances", "_menus", "_recorder", "_treatment", "counts")

    def __init__(self, menus: MenuBook, fallback: bool, recorder: Recorder) -> None:
        """Begin.

        Args:
            menus: of the policy that decides.
            fallback: it does so in place of the one that was named, which was made for another model.
            recorder: where the decisions go.
        """
        self._menus = menus
        self._recorder = recorder
        self._treatment = Treatment(menus, menus.policy.version, fallback, NO_STAMP, False, 0.0)
        self._chances: dict[str, _Chance] = {}
        self.counts: Counter[str] = Counter()

    def prepare(self, turns: Sequence[Turn], tastes: Sequence[Taste], known: Known | None) -> None:
        """Compute, for the whole batch at once, what the asks that may be draws will need.

        Args:
            turns: of the batch.
            tastes: what the model makes of its tokens; none without a model.
            known: what the policy has learned; None: it does not learn.
        """
        asked = [turn for turn in turns if isinstance(turn, Asked) and turn.rule is None]
        ids = [turn.ask.decision_id for turn in asked]
        sights: Sequence[Sight | None] = [None] * len(asked)
        if asked and known is not None:
            seen = [
                seen_of(turn.priced.list_price, turn.ask.intent, tastes[turn.token] if tastes else None)
                for turn in asked
            ]
            sights = sights_of(known, seen)
        for decision_id, u, sight in zip(ids, uniforms(self._menus.policy.seed, ids), sights, strict=True):
            self._chances[decision_id] = _Chance(u, sight)

    def decide(self, turn: Asked, charged: int, last_price: int, preference: float | None) -> None:
        """Decide a draw once more.

        Args:
            turn: that led to it.
            charged: the price that was drawn.
            last_price: of the item for this user, before the draw.
            preference: the model's, None without one.
        """
        real, treatment = turn.ask, self._treatment
        priced = self._menus.of(turn.priced.version, turn.priced.item, real.market)
        if priced.refused_by is not None:  # by the least margin of the shadow's own rails
            self.counts["shadow:refused_item"] += 1
            return
        u, sight = self._chances[real.decision_id]
        ask = Ask(real.now_ms, real.market, real.decision_id, u, real.intent, real.last_ms)
        ask.taste, ask.sight, ask.tiles = real.taste, sight, real.tiles
        verdict = draw({}, priced, ask, last_price)
        if treatment.fallback:
            verdict.reasons = (reasons.MODEL_MISMATCH, *verdict.reasons)
        self.counts["shadow:same_price" if verdict.price == charged else "shadow:other_price"] += 1
        self._recorder.shadowed(
            verdict, priced, turn.inbound, real.decision_id, turn.sequence, turn.version, preference, treatment
        )
