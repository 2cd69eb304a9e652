"""Whether the log carries a comparison: whatever a policy is held against needs draws of its own, and passes the same gates.

Not here: the gates (backtest.gates), what is compared (values, parts).
"""

from __future__ import annotations

import numpy as np

from backtest.diagnostics import diagnostics_of
from backtest.estimates import Judge
from backtest.feedback import Feedback
from backtest.gates import gates_of

UNSUPPORTED = "the log cannot support it"
"""Stands in place of a number."""


def failed_gates(feedback: Feedback, judge: Judge) -> list[str]:
    """Return the names of the gates that the target of `feedback` fails; of its draws at least one was not forced."""
    free = feedback.where(~feedback.forced)
    users = np.unique(free.users, return_inverse=True)[1].reshape(-1)
    found = diagnostics_of(free, users, len(feedback) - len(free))
    return [gate.name for gate in gates_of(found, judge) if not gate.passed]
