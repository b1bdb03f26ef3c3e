"""One process at a time has the claims of a network namespace.

The kernel does not know whose routes are whose, so a second process would take those of the first
for left over. The lock is an abstract Unix socket, because such names belong to the network
namespace, as routes do, and go with their process, however that ends (unix(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

CLAIMS: Final = "\0uproxy-claims"
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


class Locked(OSError):
    """Another process has the lock."""

    def __init__(self) -> None:
        super().__init__(errno.EBUSY, "another uproxy claims the addresses of this node")


def take_lock(name: str = CLAIMS) -> socket.socket | None:
    """Take a lock; it is held until the socket is closed. Raises Locked, or OSError.

    None: somebody without privileges has the name, who could not claim anything; who does so may
    not keep others from it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(name)
        sock.listen()
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        _respect_holder(name)
        return None
    return sock


def _respect_holder(name: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(name)
        except OSError:
            return  # It is gone, or does not answer: uproxy would.
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid in (0, os.geteuid()):
            raise Locked
