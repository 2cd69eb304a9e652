"""How deep JSON of somebody else's may be nested: the same in every process.

The decoder recurses, also through fields that nobody reads, and the interpreter ends that by what is left of its stack. So a
record a little below that limit would be read by a backtest and refused by a worker, whose stack is deeper when it decodes. A
limit far below it makes the same records unreadable everywhere. Not here: what a record must hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

NESTING_MAX = 128
"""Brackets within brackets; what pricetide itself publishes has less than ten."""

_T = TypeVar("_T")
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_OTHERS = re.compile(rb"[^\[\]{}]+")


def shallow(decode: Callable[[bytes | str], _T]) -> Callable[[bytes | str], _T]:
    """Return `decode` as a function that raises ValueError for JSON nested deeper than NESTING_MAX.

    What it costs otherwise is a look at the length: that many pairs of brackets need twice as many bytes, and brackets that
    nobody closes are no JSON anyhow.
    """

    def decoded(value: bytes | str) -> _T:
        if len(value) > 2 * NESTING_MAX and depth_of(value) > NESTING_MAX:
            raise ValueError(f"brackets within brackets, more than {NESTING_MAX} deep")
        return decode(value)

    return decoded


def depth_of(value: bytes | str) -> int:
    """Return how deep the brackets of a JSON text are nested, those in its strings not counted; at most, of what is no JSON."""
    text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    most = text.count(b"[") + text.count(b"{")
    if most <= NESTING_MAX:  # nearly always
        return most
    depth = deepest = 0
    for bracket in _OTHERS.sub(b"", _STRINGS.sub(b"", text)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest
