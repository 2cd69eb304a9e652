"""The console on which commands print tables and pages.

User ids, item ids, titles and messages come from producers: brackets in them are no markup here, `:name:` is no emoji, and
commands write out what would move a terminal's cursor (contracts.visible). Not here: progress bars, and the live view of the demo.
"""

from __future__ import annotations

from rich.console import Console


def wide_console() -> Console:
    """Return a console that is wide also where there is no terminal, and takes every string as it is."""
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=160, markup=False, emoji=False)
