"""The calls that make sockets and close descriptors, and how many descriptors there may be.

Code that makes sockets takes these calls as an argument; the default is the kernel's own calls. So
tests can pass a kernel in plain Python, or calls that fail, and need not patch any module.
Everything else is done by methods of the socket.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final


def raise_descriptor_limit() -> int:
    """Set the soft limit of open files to the hard one, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def descriptor_limit() -> int:
    """How many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


@dataclass(frozen=True, kw_only=True)
class SocketCalls:
    """Where sockets come from. Each call raises OSError as its namesake does."""

    new_socket: Callable[[int, int], socket.socket] = socket.socket
    """Called with the family and the type."""
    socketpair: Callable[[], tuple[socket.socket, socket.socket]] = socket.socketpair
    """Two connected stream Unix sockets."""
    close: Callable[[int], None] = os.close
    """Closes a descriptor that no socket object owns: one that arrived as SCM_RIGHTS."""
    raise_descriptor_limit: Callable[[], int] = raise_descriptor_limit
    descriptor_limit: Callable[[], int] = descriptor_limit


LINUX: Final = SocketCalls()
