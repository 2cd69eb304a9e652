"""An artifact takes its place when it is proved, and not before: written beside it, then two renames.

Whoever watches the place finds the artifact that was there, for an instant none, then the new one; never files of both. (A
directory that is not empty cannot be renamed over. A link to one can: who needs no gap at all moves a link.) Not here: what is
written (features.artifact), and the proof (model_export.verify).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from contracts.errors import BadInput
from features.artifact import FILES, MANIFEST


@contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield where to write an artifact; if nothing is raised, it takes the place of `directory`, else all stays as it was.

    Where `directory` is a link, what it leads to is replaced.

    Raises:
        BadInput: `directory` holds anything but an artifact, or cannot be replaced.
    """
    target = directory.resolve()
    _require_artifact(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent)
    except OSError as error:
        raise BadInput(f"Nothing can be written beside {target} ({error.strerror}): name another directory") from error
    with beside as place:
        draft, before = Path(place, "new"), Path(place, "old")
        yield draft
        try:
            _take_place(draft, target, before)
        except OSError as error:
            raise BadInput(f"{target} cannot be replaced ({error.strerror}): name another directory") from error


def _require_artifact(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise BadInput(f"{target} is a file: name a directory")
    others = {file.name for file in target.iterdir()} - {*FILES, MANIFEST} if target.exists() else set()
    if others:
        raise BadInput(
            f"{target} would be replaced, and holds more than an artifact ({min(others)}): name another directory"
        )


def _take_place(draft: Path, target: Path, before: Path) -> None:
    if not target.exists():
        draft.rename(target)
        return
    target.rename(before)
    try:
        draft.rename(target)
    except OSError:
        before.rename(target)
        raise
