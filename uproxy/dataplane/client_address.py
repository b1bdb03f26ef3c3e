"""Backend sockets that have the client's address (IP_TRANSPARENT, ip(7)).

The replies come back to this node only because the control process has arranged for it. Without
that, nothing in this module may be used.
"""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from collections.abc import Callable
from typing import Final

from uproxy.net.client_ports import CLIENT_PORTS

_IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""Linux 4.2. The port is then chosen by connect(2), when the other end is known, too, and can be
the same for many backends. bind(2) would take each port for one socket: 28,000 at most for a
client."""

ATTEMPTS: Final = 16
"""Ports that are tried for one socket. Each takes one system call."""

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
    try:
        _make_transparent(sock, client)
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((client, 0))
    except OSError:
        return False
    return True


class PodPorts:
    """Gives new sockets the address of a pod and one of CLIENT_PORTS; one for each worker. Where
    that is impossible, a socket has the node's address, and can still be used."""

    def __init__(self, random: Callable[[], float], ports: range = CLIENT_PORTS) -> None:
        self._random = random
        self._ports = ports
        self._last = self._anywhere()

    def bind_stream(self, sock: Socket, client: str, backend: str) -> bool:
        """For TCP. The port may be that of other connections to other backends.

        Ports are used in turn, so one comes again as late as possible: connect(2) refuses it with
        EADDRNOTAVAIL as long as it has a connection to the same backend.
        """
        if (":" in client) != (":" in backend):
            return False
        try:
            _make_transparent(sock, client)
            # All sockets that are bound to the port have this option, so they may share it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        except OSError:
            return False
        bound = self._bind(sock, client, self._last + 1)
        self._last = bound or self._last + ATTEMPTS
        return bound > 0

    def bind_datagram(self, sock: Socket, client: str, backend: str) -> bool:
        """For UDP. The port belongs to this socket alone, and is hard to guess: for a DNS client it
        is part of what protects it from forged replies (RFC 5452)."""
        if (":" in client) != (":" in backend):
            return False
        try:
            _make_transparent(sock, client)
        except OSError:
            return False
        return self._bind(sock, client, self._anywhere()) > 0

    def _anywhere(self) -> int:
        return self._ports.start + int(self._random() * len(self._ports))

    def _bind(self, sock: Socket, client: str, first: int) -> int:
        """Bind to the first port that is free, of ATTEMPTS beginning with `first`. Returns the
        port; 0 if there was none."""
        ports = self._ports
        for number in range(first, first + ATTEMPTS):
            port = ports[(number - ports.start) % len(ports)]
            try:
                sock.bind((client, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    return 0
            else:
                return port
        return 0


def _make_transparent(sock: Socket, client: str) -> None:
    # Before bind, which refuses an address that is not local with EADDRNOTAVAIL otherwise (ip(7)).
    if ":" in client:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
