"""Feedback on a policy file, from a log of this engine: what the policy would have drawn at every logged draw.

Of the draws those count that a user saw and that may be learned from (contracts.outcomes); forced ones only as such. What a draw
of money is expected to earn is by the model of reports, if scikit-learn is there. Not here: how the draws are replayed
(backtest.logged_draws).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from backtest.feedback import Bools, Feedback, Floats
from backtest.logged_draws import LoggedDraws, Reward, logged_draws
from backtest.report.divisions import Divisions
from backtest.report.draws import draws_of
from backtest.report.facts import Codes
from backtest.report.reward_model import expected_rewards, target_rewards
from backtest.report.targets import asked
from contracts.errors import BadInput
from contracts.policy_files import read_policy


def feedback_on_policy(
    log: Path, file: str, reward: Reward = "revenue", models: Sequence[Path] = (), adaptive: bool | None = None
) -> Feedback:
    """Return the feedback of the log in a directory on the policy in a TOML file.

    Args:
        log: recorded, with its outcomes, and with offers that people saw; else the feedback is refused.
        file: of the target.
        reward: of a draw; money in minor units.
        models: directories of the artifacts that were in force.
        adaptive: whether the logged policy learned from these rewards; None: taken for so.

    Raises:
        BadInput: log or policy cannot be used; or a margin is asked for of items without a cost.
    """
    if not file.endswith(".toml"):
        raise BadInput(
            f"{log} is a log of ours, whose prices hang on users: name the target as a TOML file of a policy, not {file}"
        )
    policy = read_policy(Path(file))
    draws = logged_draws(log, [policy], models)
    flags = {name: draws.column(name).astype(np.bool_) for name in ("exposed", "learnable", "forced")}
    kept = flags["exposed"] & (flags["learnable"] | flags["forced"])
    expected_logged, expected_target = _expected(draws, kept, policy.name, reward)
    return Feedback(
        reward=draws.rewards(reward)[kept],
        propensity=draws.propensities()[kept],
        target=draws.target(policy.name)[kept],
        users=draws.clusters()[kept],
        forced=flags["forced"][kept],
        times_ms=draws.column("drawn_ms")[kept],
        unsupported=np.clip(draws.unsupported(policy.name)[kept], 0.0, 1.0),
        expected_logged=expected_logged,
        expected_target=expected_target,
        adaptive=adaptive is not False,
        refusal=draws.refusal,
    )


def _expected(draws: LoggedDraws, kept: Bools, name: str, reward: Reward) -> tuple[Floats | None, Floats | None]:
    """Return what the `kept` draws are expected to earn, at the price that was drawn and under the target `name`, each (n,).

    None and None where nothing is expected: of other rewards than money, without scikit-learn (extra `report`), or after too
    few purchases to learn from.
    """
    if reward not in ("margin", "revenue") or find_spec("sklearn") is None:
        return None, None
    rows = np.flatnonzero(kept)
    everything = Divisions(categories={}, price_edges=np.empty(0, np.int64), minor=1, step_ms=1)
    expected = expected_rewards(draws_of(draws, Codes(), Codes()).where(rows), everything, reward)
    if expected is None:
        return None, None
    return expected.of_drawn, target_rewards(expected, asked(draws, name).where(rows).choices)
