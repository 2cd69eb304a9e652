"""Logged bandit feedback: what was drawn with which probability, what came of it, and how a target policy would have drawn.

Rows are draws in the order of decisions. A row's propensity was fixed before its reward was known. Whoever has a log makes
one of these: a table of actions (backtest.bandit_files), or draws of ours with the probabilities of a what-if. Not here: what
follows from it (backtest.estimates).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import BadInput

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_REWARD_MAX = 1e60
"""Of either sign: what is larger has no fourth power, and no reward of anybody is."""


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """n draws in the order of decisions. Arrays are (n,); rewards in one unit of the caller's choice.

    Raises:
        BadInput: lengths differ, a number is not finite, a reward is beyond _REWARD_MAX, a probability lies outside of its
            range, or time runs backwards.
    """

    reward: Floats
    """What the draw earned."""
    propensity: Floats
    """Probability that the logged policy gave to the action that it drew, in (0, 1]."""
    target: Floats
    """Probability that the target policy gives to that same action, in [0, 1]."""
    users: Ints
    """Code of the draw's user. Draws of one user may depend on each other; where users are not known, the row's number."""
    forced: Bools
    """Only one action was feasible. Such rows say nothing about any policy: they are counted and left out."""
    times_ms: Ints
    """Event time of the draw; ascending."""
    unsupported: Floats
    """The target policy's probability, in this row, of actions that the logged policy could not draw."""
    expected_logged: Floats | None = None
    """q(x, a): expected reward of the logged action, by a model that did not see this row's reward. With `expected_target` only."""
    expected_target: Floats | None = None
    """Sum over actions of the target's probability times q(x, action)."""
    recomputed: Floats | None = None
    """The propensity as calculated again from the record of the decision; None: nobody did."""
    adaptive: bool = False
    """The logged policy learned from the rewards of this log."""
    unknown: int = 0
    """Rows of the log without a propensity: not among the n."""
    duplicated: int = 0
    """Rows of the log that repeat a decision: not among the n."""
    refusal: str | None = None
    """Why nothing may be concluded from this log, as a sentence, where whoever read it knows."""

    def __post_init__(self) -> None:
        n = len(self.reward)
        for name, values in self._arrays():
            if values.shape != (n,):
                raise BadInput(f"Feedback: {name} has the shape {values.shape}, {n} rewards need ({n},)")
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                row = int(np.flatnonzero(~np.isfinite(values))[0])
                raise BadInput(
                    f"Feedback: {name} of draw {row} is {values[row]}, no finite number: correct it in the log"
                )
        if n and np.abs(self.reward).max() > _REWARD_MAX:
            row = int(np.abs(self.reward).argmax())
            raise BadInput(
                f"Feedback: reward of draw {row} is {self.reward[row]:g}, beyond {_REWARD_MAX:g}: correct it in the log"
            )
        if (self.expected_logged is None) != (self.expected_target is None):
            raise BadInput("Feedback: expected_logged and expected_target come together: give both or neither")
        self._probabilities("propensity", above_zero=True)
        for name in ("target", "unsupported"):
            self._probabilities(name, above_zero=False)
        if (np.diff(self.times_ms) < 0).any():
            row = int(np.flatnonzero(np.diff(self.times_ms) < 0)[0]) + 1
            raise BadInput(f"Feedback: draw {row} is earlier than the one before: sort the draws by decision")

    @property
    def weight(self) -> Floats:
        """Importance weights, target / propensity, (n,)."""
        weight: Floats = self.target / self.propensity
        return weight

    def __len__(self) -> int:
        return len(self.reward)

    def where(self, chosen: Bools) -> Feedback:
        """Return the rows where `chosen`, (n,), is true, with the same counts of rows that were left out before."""
        kept: dict[str, Any] = {name: values[chosen] for name, values in self._arrays()}
        return replace(self, **kept)

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        named = [(each.name, getattr(self, each.name)) for each in fields(self)]
        return [(name, values) for name, values in named if isinstance(values, np.ndarray)]

    def _probabilities(self, name: str, above_zero: bool) -> None:
        values: Floats = getattr(self, name)
        wrong = (values > 1.0 + 1e-9) | ((values <= 0.0) if above_zero else (values < 0.0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            bounds = "(0, 1]" if above_zero else "[0, 1]"
            raise BadInput(
                f"Feedback: {name} of draw {row} is {values[row]:g}, outside of {bounds}: correct it in the log"
            )


def feedback_of(reward: Floats, propensity: Floats, target: Floats, **more: Any) -> Feedback:  # noqa: ANN401 - fields of Feedback
    """Return feedback of the three columns that nobody can do without.

    What `more` does not give: every row is a user of its own, none is forced, times are row numbers, all is supported.
    """
    n = len(reward)
    columns: dict[str, Any] = {"reward": reward, "propensity": propensity, "target": target}
    columns = {name: np.asarray(values, np.float64) for name, values in columns.items()}
    columns |= {"users": np.arange(n), "forced": np.zeros(n, np.bool_)}
    columns |= {"times_ms": np.arange(n), "unsupported": np.zeros(n)}
    return Feedback(**(columns | more))
