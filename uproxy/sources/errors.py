"""What a source raises where it cannot work at all."""

from __future__ import annotations

from typing import Final

from uproxy.sources.brevity import brief

_LONGEST: Final = 1500
"""Characters of a message: room for a path or two, and not for a file that was named by mistake."""


class SourceError(Exception):
    """A source that cannot work at all; the message names what to put right."""

    def __init__(self, message: str) -> None:
        super().__init__(brief(message, _LONGEST))
