"""The console on which commands print tables and pages, and how it shows what others have written.

User ids, item ids, titles and messages come from producers: brackets in them are no markup here, `:name:` is no emoji, and
what would move a terminal's cursor is written out. Not here: progress bars, and the live view of the demo.
"""

from __future__ import annotations

import re

from rich.console import Console

_control = re.compile("[\x00-\x1f\x7f-\x9f]")


def wide_console() -> Console:
    """Return a console that is wide also where there is no terminal, and takes every string as it is."""
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=160, markup=False, emoji=False)


def visible(text: str) -> str:
    """Return `text` with its control characters written out: an escape becomes the four characters of its hexadecimal code."""
    return _control.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
