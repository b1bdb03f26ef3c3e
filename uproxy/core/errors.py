"""What a source raises where it cannot work at all, and how unexpected exceptions are described."""

from __future__ import annotations

from typing import Final

from uproxy.core.brief import brief

_LONGEST: Final = 1500
"""Characters of a message: room for a path or two, and not for a file that was named by mistake."""


class SourceError(Exception):
    """A source that cannot work at all; the message names what to put right."""

    def __init__(self, message: str) -> None:
        super().__init__(brief(message, _LONGEST))


def unexpected(error: Exception) -> str:
    """The reason that is shown for whatever caused the exception."""
    return f"unexpected {type(error).__name__}: {error}"
