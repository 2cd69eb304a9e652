"""How text of somebody else's is shown on a terminal: what would move its cursor or change its colours is written out.

User ids, item ids, titles and messages come from producers. Not here: consoles, and what they take for markup.
"""

from __future__ import annotations

import re

_control = re.compile("[\x00-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """Return `text` with its control characters written out: an escape becomes the four characters of its hexadecimal code."""
    return _control.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
