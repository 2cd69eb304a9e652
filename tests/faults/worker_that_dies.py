"""A real worker that kills itself at a boundary of its n-th commit: python worker_that_dies.py STEP before|after N ARGUMENTS...

STEP is a method of streams.commit.Commit; ARGUMENTS are those of `pricetide`. The production code has no hooks: the method
is wrapped here, from outside.
"""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import pricetide
from streams.commit import Commit


def die_at(step: str, when: str, nth: int) -> None:
    """Wrap `Commit.<step>`: the n-th call of this process ends it by SIGKILL, before or after the step."""
    original: Callable[..., Any] = getattr(Commit, step)
    calls = count(1)

    def due(call: int, now: str) -> None:
        if call == nth and when == now:
            os.kill(os.getpid(), signal.SIGKILL)

    async def dying(self: Commit, *args: Any) -> Any:
        call = next(calls)  # its own number: the commits of two partitions overlap
        due(call, "before")
        result = await original(self, *args)
        due(call, "after")
        return result

    def dying_at_once(self: Commit, *args: Any) -> Any:
        call = next(calls)
        due(call, "before")
        result = original(self, *args)
        due(call, "after")
        return result

    setattr(Commit, step, dying if inspect.iscoroutinefunction(original) else dying_at_once)


if __name__ == "__main__":
    die_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    pricetide.main(sys.argv[4:])
