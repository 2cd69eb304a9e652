"""Runs of the graph: every token once, in order, no user twice in a run, and never a run too many."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.schedule import schedule


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(1, 16))
def test_every_token_runs_once_in_its_users_order_and_no_run_is_needless(lengths, width):
    runs = schedule(np.array(lengths, np.int64), width)
    user_of = np.repeat(np.arange(len(lengths)), lengths)
    when = {int(token): number for number, run in enumerate(runs) for token in run}
    assert sorted(when) == list(range(sum(lengths)))
    for run in runs:
        assert 1 <= len(run) <= width
        assert len(set(user_of[run].tolist())) == len(run)
    for token in range(1, sum(lengths)):
        if user_of[token] == user_of[token - 1]:
            assert when[token - 1] < when[token]
    assert len(runs) == max([*lengths, -(-sum(lengths) // width)], default=0)
