"""What learned, around a log of this engine: whether a policy that priced its draws did, and what a target knew there.

Here, since a report and `pricetide evaluate` must go by the same rules. Not here: how policies learn (pricing.lessons).
"""

from __future__ import annotations

from typing import Any

from contracts.policies import Policy
from contracts.rules import LearningRule


def moved(draws: Any) -> bool:  # noqa: ANN401 - pyarrow ships no types
    """Return whether what a policy had learned changed between its draws: then later draws may depend on earlier rewards.

    Args:
        draws: pyarrow.Table with the columns `policy` and `learned` of backtest.logged_draws; of draws with a choice.
    """
    counts = draws.group_by("policy").aggregate([("learned", "count_distinct")])
    return any(count > 1 for count in counts["learned_count_distinct"].to_pylist())


def known_by(policy: Policy, draws: Any) -> str | None:  # noqa: ANN401 - as above
    """Return what a target that learns knew at the draws that it is judged at, as a sentence; None for one that does not learn.

    Args:
        policy: the target.
        draws: pyarrow.Table with its column `learned.NAME` of backtest.logged_draws; of draws with a choice.
    """
    if not isinstance(policy.rule, LearningRule):
        return None
    name, versions = policy.name, draws[f"learned.{policy.name}"]
    known, without = versions.drop_null().to_numpy(), versions.null_count
    if not len(known):
        return (
            f"{name} had learned nothing on this log, since no policy that equals it had: its prior is judged, not what it would "
            "come to"
        )
    first, last = int(known.min()), int(known.max())
    which = f"version {first}" if first == last else f"versions {first:,} to {last:,}"
    says = f"{name} is judged with what it had learned on this log by each draw: {which}"
    return (
        f"{says}; at {without:,} of {len(versions):,} draws it knew nothing yet, and its prior is judged"
        if without
        else says
    )
