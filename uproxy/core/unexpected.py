"""How an unexpected exception is described in a reason."""

from __future__ import annotations


def unexpected(error: Exception) -> str:
    """The reason that is shown for whatever caused the exception."""
    return f"unexpected {type(error).__name__}: {error}"
