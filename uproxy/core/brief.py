"""Text from outside, for use in a log line or a reason: made short, and without passwords."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 500
"""Characters of a reason. Those that are written here need about 150; what is longer quotes
a text that may have no end."""
_NAME: Final = 253
"""Characters of the longest name that Kubernetes has (RFC 1123)."""
_USERINFO: Final = re.compile(r"(?<=://)(?:[^/?#\s@]*@)+")
"""USER:PASSWORD@ in a URL."""


def brief(text: str, longest: int = LONGEST) -> str:
    """The text as far as there is room, in one line, and no password of a URL."""
    # Not the other way round: a cut could hide that it is a password.
    line = " ".join(_USERINFO.sub("", text)[: 4 * longest].split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def brief_name(text: str) -> str:
    """The same for the name of something."""
    return brief(text, _NAME)
