"""From the steps of a replay to the rows of backtest.logged_draws: what targets wish at a draw meets the draw's outcome, and the
outcome that was recorded. One instance per partition; what waits for its outcome is bounded by the window of outcomes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from math import inf
from typing import Any

from msgspec import Struct

from contracts.errors import UNREADABLE, BrokenInvariant
from contracts.log import Log
from contracts.log_rows import PublishedRow
from contracts.outcomes import Outcome, decode_outcome
from pricing.engine import Step
from pricing.targets import TargetDraw

_CHECKED = (
    "draw_id", "user", "item", "price", "list_price", "prices", "probabilities", "propensity", "forced", "drawn_ms", "exposed",
    "bought", "learnable",
)  # fmt: skip
"""Fields of an outcome that must be what was recorded. Others may differ in the last digit on another machine: r_ui."""


class DrawState(Struct):
    """What a partition's rows need to go on after a kill."""

    waiting: dict[str, TargetDraw] = {}
    """Draws without an outcome yet."""
    met: int = 0
    """Recorded outcomes that were held against one."""
    equal: int = 0
    """Of them, those that are the same bytes."""
    faults: int = 0
    first_fault: str = ""
    unrecorded: int = 0
    """Outcomes behind the last recorded one."""
    rows: int = 0
    applied: int = 0
    """Records of the partition so far."""
    watermark_ms: int = 0
    """Of the partition: draws whose windows are over by then have outcomes."""


class DrawRows:
    """The rows of one partition."""

    def __init__(self, log: Log, partition: int, state: DrawState | None = None) -> None:
        """Begin, or go on from `state`."""
        self.state = DrawState() if state is None else state
        self._partition = partition
        self._window_ms = log.manifest.semantics.outcome_window_ms
        self._known = "outcomes" in log.manifest.tables
        recorded = chain.from_iterable(log.published("outcomes", partition))
        self._recorded: Iterator[PublishedRow] = recorded
        for _ in range(self.state.met):
            next(recorded, None)

    def of(self, step: Step) -> list[tuple[Any, ...]]:
        """Return the rows of the outcomes of a step, and let its draws wait for theirs."""
        waiting = self.state.waiting
        for draw in step.targets:
            waiting[draw.draw_id] = draw
        rows = []
        for _, value in step.outcomes:
            outcome = decode_outcome(value)
            recorded = next(self._recorded, None) if self._known else None
            sound = not self._known or (recorded is not None and self._meet(recorded, outcome, value))
            if recorded is None and self._known:
                self.state.unrecorded += 1
            if isinstance(outcome, Outcome):
                row = self._row(outcome)
                if sound:
                    rows.append(row)
        self.state.rows += len(rows)
        self.state.applied, self.state.watermark_ms = step.partition.applied, step.partition.watermark_ms
        over_ms = step.partition.watermark_ms - self._window_ms
        while waiting and (first := next(iter(waiting.values()))).drawn_ms <= over_ms:
            del waiting[first.draw_id]  # its user was forgotten, and the outcome with them
        return rows

    def finish(self, as_of: float = inf) -> None:
        """Count what was recorded and not recomputed; behind a cut, what nobody knew yet is no fault."""
        left = sum(as_of == inf or self._due(row) for row in self._recorded) if self._known else 0
        if left:
            self._fault(f"{left} outcomes were recorded behind the last one that the replay gives", left)

    def _due(self, row: PublishedRow) -> bool:
        """Whether the replay should have given this outcome; of a purchase that rewards no draw nobody can tell."""
        try:
            outcome = decode_outcome(row.record)
        except UNREADABLE:
            return False
        known = self.state
        return (
            isinstance(outcome, Outcome)
            and outcome.version <= known.applied
            and outcome.resolved_ms <= known.watermark_ms
        )

    def _meet(self, row: PublishedRow, outcome: Any, value: bytes) -> bool:  # noqa: ANN401 - any kind of outcome
        """Hold an outcome against the recorded one; return whether they agree."""
        self.state.met += 1
        if row.record == value:
            self.state.equal += 1
            return True
        try:
            recorded = decode_outcome(row.record)
        except UNREADABLE as error:
            return self._fault(f"recorded outcome {self.state.met} cannot be read ({error})")
        for name in _CHECKED if isinstance(outcome, Outcome) else outcome.__struct_fields__:
            was, now = getattr(recorded, name, None), getattr(outcome, name, None)
            if was != now:
                return self._fault(
                    f"draw {outcome.draw_id}: {name} was recorded as {was!r:.120}, the replay gives {now!r:.120}"
                )
        return True

    def _fault(self, what: str, count: int = 1) -> bool:
        self.state.faults += count
        if not self.state.first_fault:
            self.state.first_fault = f"partition {self._partition}, {what}"
        return False

    def _row(self, outcome: Outcome) -> tuple[Any, ...]:
        draw = self.state.waiting.pop(outcome.draw_id, None)
        if draw is None:
            raise BrokenInvariant(f"The outcome of draw {outcome.draw_id} came without its draw: report it")
        place = draw.prices.index(outcome.price)
        row: list[Any] = [
            outcome.draw_id, outcome.user, outcome.item, outcome.market, self._partition, outcome.version,
            outcome.drawn_ms, outcome.resolved_ms, outcome.policy, outcome.learned, outcome.experiment, outcome.variant,
            outcome.held_out, outcome.list_price, outcome.cost, outcome.price, outcome.propensity, outcome.forced,
            outcome.exposed, outcome.learnable, outcome.unlearnable, outcome.bought.quantity if outcome.bought else 0,
            outcome.intent, draw.sequence, outcome.preference, outcome.churn, outcome.churn_days, draw.prices,
            draw.probabilities,
        ]  # fmt: skip
        for wish in draw.wishes:
            row += [wish.probabilities[place], wish.probabilities, wish.outside, wish.learned]
        return tuple(row)
