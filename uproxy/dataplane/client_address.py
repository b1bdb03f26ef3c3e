"""Backend sockets that have the client's address (IP_TRANSPARENT, ip(7)).

The replies come back to this node only because the control process has arranged for it. Without
that, nothing in this module may be used.
"""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from typing import Final

_IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Linux 4.2. The port is then chosen by connect(2), when the other end is known, too, and can be
the same for many backends. bind(2) would take each port for one socket: 28,000 at most for a
client."""

UNUSABLE_ERRORS: Final = frozenset(
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
"""What connect(2) fails with at once when the client's address is the reason: there is no privilege
for it, all of its ports towards the backend are taken, or a firewall or a route objects to it."""


def bind_to_client(sock: Socket, client: str, backend: str) -> bool:
    """Give a new socket the client's address. False: it has the node's, and can still be used.

    A client with a zone (fe80::1%eth0) is on a link that its backend is not on, and one of the
    other family cannot be an address of the socket.
    """
    if "%" in client or (":" in client) != (":" in backend):
        return False
    # Before bind, which refuses an address that is not local with EADDRNOTAVAIL otherwise (ip(7)).
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
