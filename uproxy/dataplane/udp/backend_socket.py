"""The sockets of UDP flows towards their backends, which are connected."""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket

from uproxy.core.route import Backend
from uproxy.dataplane.client_address import bind_as
from uproxy.dataplane.context import Context

_NEW = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def towards(backend: Backend, context: Context) -> Socket:
    """A socket with the node's address. Raises OSError."""
    sock = _new(backend, context)
    try:
        sock.connect(backend)
        if context.locality.is_itself(sock, backend):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens")
    except BaseException:
        sock.close()
        raise
    return sock


def towards_as(client: str, backend: Backend, context: Context) -> Socket | None:
    """A socket with the client's address; None where there can be none. Raises OSError."""
    if context.locality.is_here(backend.address):
        return None  # It would reply to the client past us.
    sock = _new(backend, context)
    if bind_as(sock, client, backend.address) and not sock.connect_ex(backend):
        return sock
    sock.close()
    return None


def _new(backend: Backend, context: Context) -> Socket:
    family = socket.AF_INET6 if ":" in backend.address else socket.AF_INET
    return context.reactor.kernel.new_socket(family, _NEW)
