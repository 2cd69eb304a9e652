"""Names and version texts of what the policies topic holds: `careful`, `careful@3`. Not here: what a version says."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,63}$")]
Version = Annotated[str, Meta(pattern="^[a-z][a-z0-9_-]{0,63}@[1-9][0-9]{0,18}$")]
"""A name and a number: `careful@3`."""
PolicyVersion = Annotated[str, Meta(pattern="^(builtin|[a-z][a-z0-9_-]{0,63}@[1-9][0-9]{0,18})$")]
"""The version of a policy; `builtin` is the one that holds while none is published."""


def split_version(version: str) -> tuple[str, int]:
    """Return the name and the number of a `Version`."""
    name, _, number = version.rpartition("@")
    return name, int(number)
