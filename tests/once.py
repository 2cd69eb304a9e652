"""What is made once in a run of the tests, though each of its processes asks for it: a graph, a trained model, a long backtest.

Fixtures of pytest, and `functools.cache`, live in one process; a parallel run has several. So what takes many seconds to make
lies in a folder of the whole run, and a lock says who makes it. Whoever asks must only read what it gets. Not here: anything
kept from one run to the next, which would have to know when it is stale.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

VARIABLE = "PRICETIDE_TEST_SHARED"
"""Names the folder to the other processes of the run."""
T = TypeVar("T")


def begin() -> TemporaryDirectory[str] | None:
    """Make the folder of this run, unless another process of it has: for whoever starts the run, who must clean it up."""
    if os.environ.get(VARIABLE):
        return None
    made = TemporaryDirectory(prefix="pricetide-shared-")
    os.environ[VARIABLE] = made.name
    return made


def once(name: str, make: Callable[[Path], T]) -> T:
    """Return what `make` returned to the first process of this run that asked for `name`; the others wait for it.

    Args:
        name: of a folder, the same in every process.
        make: is given an empty folder, which stays until the run ends; returns something that can be pickled.
    """
    place = Path(os.environ[VARIABLE])
    folder, result = place / name, place / f"{name}.pickle"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the system lets go of it even if this process is killed
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)  # half of it, by one who failed
            folder.mkdir()
            made = pickle.dumps(make(folder))
            result.write_bytes(made)
    return pickle.loads(result.read_bytes())  # type: ignore[no-any-return]  # what `make` returned
