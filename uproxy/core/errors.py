"""Errors that several folders raise or tell apart, and how unexpected ones are described."""

from __future__ import annotations

import errno
from typing import Final

from uproxy.core.brief import brief

RESOURCE_ERRORS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC}
)
"""Errors that mean that this process or machine is short of something. No peer is to blame, and
waiting helps. epoll fails with ENOSPC if its user has registered as many descriptors as it may
(fs.epoll.max_user_watches)."""

_LONGEST: Final = 1500
"""Characters of a message: enough for a path or two, but not for a file that was passed instead."""


def error_name(code: int) -> str:
    """The name of an errno, such as ECONNREFUSED."""
    return errno.errorcode.get(code, str(code))


class SourceError(Exception):
    """A source cannot work at all. The message says what to correct."""

    def __init__(self, message: str) -> None:
        super().__init__(brief(message, _LONGEST))


def unexpected(error: Exception) -> str:
    """The reason that is shown for what has failed with an exception that no code expects."""
    return f"unexpected {type(error).__name__}: {error}"
