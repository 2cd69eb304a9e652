"""Feedback on a policy file, from a log of this engine: what the policy would have drawn at every logged draw.

Of the draws those count that a user saw and that may be learned from (contracts.outcomes); forced ones only as such. Not here:
how the draws are replayed (backtest.logged_draws), what they are expected to earn (backtest.expected_draws).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from backtest.expected_draws import expected_of
from backtest.feedback import Feedback
from backtest.learning import known_by, moved
from backtest.logged_draws import LoggedDraws, Reward, logged_draws
from contracts.errors import BadInput
from contracts.policy_files import read_policy


@dataclass(frozen=True, slots=True)
class OnPolicy:
    """Feedback of a log on a policy, and what one should know of how it was made."""

    feedback: Feedback
    reward: Reward
    """Of a draw."""
    notes: tuple[str, ...]
    """Sentences without a full stop: which goal was taken, how the record was proved, what the policy knew."""


def feedback_on_policy(
    log: Path, file: str, reward: Reward | None = None, models: Sequence[Path] = (), adaptive: bool | None = None
) -> OnPolicy:
    """Return the feedback of the log in a directory on the policy in a TOML file.

    Args:
        log: recorded, with its outcomes, and with offers that people saw; else the feedback is refused.
        file: of the target.
        reward: of a draw; money in minor units. None: margin where every draw's cost is known, else revenue.
        models: directories of the artifacts that were in force.
        adaptive: whether the logged policy learned from these rewards; None: if it priced these draws with more than one
            version of what it had learned.

    Raises:
        BadInput: log or policy cannot be used; or a margin is asked for of items without a cost.
    """
    if not file.endswith(".toml"):
        raise BadInput(
            f"{log} is a log of ours, whose prices hang on users: name the target as a TOML file of a policy, not {file}"
        )
    policy = read_policy(Path(file))
    draws = logged_draws(log, [policy], models)
    exposed, learnable, forced = (draws.column(name).astype(np.bool_) for name in ("exposed", "learnable", "forced"))
    draws = replace(draws, table=draws.table.filter(exposed & (learnable | forced)))
    choices = draws.table.filter(~draws.column("forced").astype(np.bool_))
    goal = reward or default_reward(draws)
    of_drawn, of_target = expected_of(draws, policy.name, goal) if len(draws) else (None, None)
    feedback = Feedback(
        reward=draws.rewards(goal),
        propensity=draws.propensities(),
        target=draws.target(policy.name),
        users=draws.clusters(),
        forced=draws.column("forced").astype(np.bool_),
        times_ms=draws.column("drawn_ms"),
        unsupported=np.clip(draws.unsupported(policy.name), 0.0, 1.0),
        expected_logged=of_drawn,
        expected_target=of_target,
        adaptive=moved(choices) if adaptive is None else adaptive,
        refusal=draws.refusal,
    )
    notes = [f"judged by {goal}" + ("" if reward else f", since {_WHY[goal]}")]
    if not draws.refusal:
        known = known_by(policy, choices)
        notes += [f"{draws.replayed.met:,} recorded outcomes {draws.replayed.says}", *([known] if known else [])]
    return OnPolicy(feedback, goal, tuple(notes))


_WHY = {"margin": "the catalogue knows every cost", "revenue": "the catalogue does not know every cost"}


def default_reward(draws: LoggedDraws) -> Reward:
    """Return what draws are judged by if nobody says it, as a report does: margin if each one's cost is known, else revenue."""
    return "revenue" if draws.table.column("cost").null_count else "margin"
