"""Text from outside, made short and rid of passwords, for log lines and reasons."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 500
"""Characters of a reason. Those that uproxy composes need about 150. Longer ones quote a text,
which may be of any length."""
LONGEST_NAME: Final = 253
"""Characters of the longest name that Kubernetes has (RFC 1123)."""
_USERINFO: Final = re.compile(r"(?<=://)(?:[^/?#\s@]*@)+")
"""Matches USER:PASSWORD@ in a URL."""


def brief(text: str, longest: int = LONGEST) -> str:
    """The text in one line, cut after `longest` characters, without the passwords of URLs."""
    # Passwords go before the cut, which could leave a part of one that no longer looks like it.
    line = " ".join(_USERINFO.sub("", text)[: 4 * longest].split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def brief_name(text: str) -> str:
    """The same for a name."""
    return brief(text, LONGEST_NAME)
