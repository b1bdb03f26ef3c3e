"""What to say about an exception that nobody has thought of."""

from __future__ import annotations


def unexpected(error: Exception) -> str:
    """As the reason of whatever has brought it about."""
    return f"unexpected {type(error).__name__}: {error}"
