"""Target policies: what they would have drawn from at every draw of a step. Pure; changes nothing that is published.

A target sees the draw's own state: same user, item, market, last price, intent and vector. It weighs the prices that are
feasible inside its own rails, and what it gives to prices which the draw could not have led to is kept apart. Not here:
what is estimated from that (backtest).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from contracts.learned import Learned
from contracts.policies import Policy, PolicyBook
from contracts.rules import LearningRule
from pricing.choosers import Sight
from pricing.learned import KnownShelf, seen_of, sights_of
from pricing.menus import Chances, MenuBook
from pricing.offers import Verdict
from pricing.run import Asked


class Drawn(Struct, gc=False):
    """A draw as the second pass made it."""

    turn: Asked
    verdict: Verdict
    """Status `drawn`."""


class Wish(Struct, frozen=True, gc=False):
    """What one target would have drawn from at one draw; all of it sums to 1."""

    probabilities: tuple[float, ...]
    """Of each price that was feasible at the draw."""
    outside: float
    """Of all others; 1 for an item that the target's rails refuse to price."""
    learned: int | None = None
    """Version of what a target that learns knew; None: nothing yet, or it does not learn."""


class TargetDraw(Struct, gc=False):
    """A draw, and what the targets make of it."""

    draw_id: str
    drawn_ms: int
    sequence: int
    """The user's count of applied events, the draw's included."""
    prices: tuple[int, ...]
    """Feasible at the draw, ascending."""
    probabilities: tuple[float, ...]
    """Of each of them at the draw, over the lot of the user too where an experiment holds users out; so the propensity is the
    one of the drawn price."""
    wishes: tuple[Wish, ...]
    """One per target."""


class Targets:
    """The targets of a replay; one instance may serve all partitions of a process."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        """Begin; `policies` have distinct names."""
        self._books = [MenuBook(policy) for policy in policies]
        self._known = KnownShelf()

    def of(self, drawn: Sequence[Drawn], policies: PolicyBook) -> list[TargetDraw]:
        """Return what the targets make of the draws of a step.

        A target that learns knows what its published twin had learned by then (PolicyBook.twin_of), or nothing. It learns
        nothing by itself: nobody saw its prices.
        """
        columns = [self._wishes(book, drawn, policies) for book in self._books]
        wishes = zip(*columns, strict=True) if columns else [()] * len(drawn)
        return [_target_draw(one, row) for one, row in zip(drawn, wishes, strict=True)]

    def _wishes(self, book: MenuBook, drawn: Sequence[Drawn], policies: PolicyBook) -> list[Wish]:
        policy = book.policy
        sights: Sequence[Sight | None] = [None] * len(drawn)
        learned: Learned | None = None
        if isinstance(policy.rule, LearningRule):
            twin = policies.twin_of(policy)
            learned = None if twin is None else policies.knowledge_of(twin)
            known = self._known.of(policy, learned)
            seen = [seen_of(one.turn.priced.list_price, one.turn.ask.intent, one.turn.ask.taste) for one in drawn]
            sights = sights_of(known, seen)
        version = None if learned is None else learned.version
        return [_wish(book, one, sight, version) for one, sight in zip(drawn, sights, strict=True)]


def _wish(book: MenuBook, drawn: Drawn, sight: Sight | None, learned: int | None) -> Wish:
    turn, verdict = drawn.turn, drawn.verdict
    theirs = turn.priced
    ours = book.of(theirs.version, theirs.item, turn.ask.market)
    prices = theirs.menu(verdict.last_price).prices
    if ours.refused_by is not None:
        return Wish((0.0,) * len(prices), 1.0, learned)
    menu = ours.menu(verdict.last_price)
    chances: Chances = menu.chances(turn.ask.intent) if sight is None else menu.chances_of(sight)
    if menu.prices == prices:
        return Wish(chances.probabilities, 0.0, learned)
    wanted = dict(zip(menu.prices, chances.probabilities, strict=True))
    inside = tuple([wanted.pop(price, 0.0) for price in prices])
    return Wish(inside, sum(wanted.values()), learned)


def _target_draw(drawn: Drawn, wishes: tuple[Wish, ...]) -> TargetDraw:
    turn, verdict = drawn.turn, drawn.verdict
    assert verdict.chances is not None
    prices = turn.priced.menu(verdict.last_price).prices
    chances, holdout = verdict.chances.probabilities, turn.ask.holdout
    if holdout and not verdict.forced:
        listed = turn.priced.list_price
        chances = tuple(
            [
                (1.0 - holdout) * p + (holdout if price == listed else 0.0)
                for price, p in zip(prices, chances, strict=True)
            ]
        )
    return TargetDraw(turn.ask.decision_id, turn.ask.now_ms, turn.sequence, prices, chances, wishes)
