"""Backend sockets that have the client's address (IP_TRANSPARENT, ip(7)).

The replies come back to this node only because the control process has arranged for it; without
that, nothing here must be used.
"""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from typing import Final

_IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Linux 4.2. The port is chosen by connect(), when the other end is known too: the same port
then serves for many backends."""

UNUSABLE: Final = frozenset(
    {
        errno.EACCES,
        errno.EADDRINUSE,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EAGAIN,
        errno.EHOSTUNREACH,
        errno.EINVAL,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)
"""What connect() says at once when the client's address is the trouble: no privilege, all of its
ports towards the backend are taken, or a firewall or a route that minds the source."""


def bind_as(sock: Socket, client: str, backend: str) -> bool:
    """Give a new socket the client's address. False: it is as good as new, and has the node's.

    A client with a zone is on a link that its backend is not on.
    """
    if "%" in client or (":" in client) != (":" in backend):
        return False
    try:
        if ":" in client:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((client, 0))
    except OSError:
        return False
    return True
