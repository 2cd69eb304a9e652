"""Which tokens go into which run of the graph: each user at most once per run, tokens of a user in order, few runs.

Pure. Does not know what a token is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def schedule(lengths: NDArray[np.int64], width: int) -> list[NDArray[np.int64]]:
    """Return the runs, each an array of at most `width` tokens; token numbers count through user after user.

    There are max(longest, ceil(tokens / width)) runs, and no fewer are possible. This is McNaughton's wrap-around rule
    (Management Science 6, 1959): the tokens of all users fill a table of `width` columns and that many rows, column by
    column; the rows are the runs. A user whose tokens wrap into the next column starts there, at the earlier runs: the
    two pieces cannot meet, because nobody has more tokens than there are rows.

    Args:
        lengths: (users,) tokens of each user, >= 1.
        width: users per run, >= 1.
    """
    total = int(lengths.sum())
    if total == 0:
        return []
    runs = max(int(lengths.max()), -(-total // width))
    starts = np.cumsum(lengths) - lengths
    wrapped = np.maximum(starts % runs + lengths - runs, 0)
    of_user = np.arange(total) - np.repeat(starts, lengths)
    turned = (of_user - np.repeat(wrapped, lengths)) % np.repeat(lengths, lengths)
    run = (np.repeat(starts, lengths) + turned) % runs
    return np.split(np.argsort(run, kind="stable"), np.cumsum(np.bincount(run, minlength=runs))[:-1])
