"""Prints deploy/constraints.txt: what this environment has of the packages that an image can install, each at its version.

Run it in the environment in which the tests have passed (`make constraints`). Asks no index: a package that is not installed here,
as one of the extras `dev` and `model-export`, which no image has, is not in it.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import metadata, requires, version

from packaging.requirements import Requirement

ROOT = "pricetide"
NEVER_DEPLOYED = {"dev", "model-export"}
HEADER = """\
# What the tests ran with, as constraints for the image. Written by `make constraints`.
# Python {0.major}.{0.minor}"""


def canonical(name: str) -> str:
    """Return the one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Add `name` with `extras`, and all that they need here, to `seen`."""
    place = canonical(name), extras
    if place in seen:
        return
    seen.add(place)
    for needed in map(Requirement, requires(name) or ()):
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            closure(needed.name, frozenset(needed.extras), seen)


def main() -> None:
    """Print the constraints."""
    seen: set[tuple[str, frozenset[str]]] = set()
    deployed = set(metadata(ROOT).get_all("Provides-Extra") or ()) - NEVER_DEPLOYED
    closure(ROOT, frozenset(deployed), seen)
    lines = [f"{name}=={version(name)}" for name in sorted({name for name, _ in seen} - {ROOT})]
    sys.stdout.write("\n".join([HEADER.format(sys.version_info), *lines, ""]))


if __name__ == "__main__":
    main()
