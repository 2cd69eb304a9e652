"""A real worker with a bug: it raises on every event whose item is `poison`. Arguments are those of `pricetide`."""

from __future__ import annotations

import sys
from typing import Any

import pricetide
from pricing.run import Run

_apply = Run.apply


def apply(self: Run, inbound: Any, *args: Any) -> None:
    """Raise on poison, else do what the engine does."""
    if getattr(inbound.event, "item", None) == "poison":
        raise ZeroDivisionError("a bug that this event wakes")
    _apply(self, inbound, *args)


if __name__ == "__main__":
    Run.apply = apply  # type: ignore[method-assign]
    pricetide.main(sys.argv[1:])
