"""Errors that several rooms raise or tell apart, and how unexpected ones are described."""

from __future__ import annotations

import errno
from typing import Final

from uproxy.core.brief import brief

RESOURCE_ERRORS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
)
"""This process or machine is short of something; no peer is to blame, and waiting helps. ENOSPC is
epoll's, where a user watches as much as it may (fs.epoll.max_user_watches)."""

_LONGEST: Final = 1500
"""Characters of a message: room for a path or two, and not for a file that was named by mistake."""


class SourceError(Exception):
    """A source that cannot work at all; the message names what to put right."""

    def __init__(self, message: str) -> None:
        super().__init__(brief(message, _LONGEST))


def unexpected(error: Exception) -> str:
    """The reason that is shown for whatever caused the exception."""
    return f"unexpected {type(error).__name__}: {error}"
