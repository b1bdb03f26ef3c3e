"""Opens the sockets of UDP flows, each connected to a backend.

They are connected because the kernel then sorts replies by flow, reports ICMP errors to the flow
that they concern, and lets nothing else in: it drops datagrams from any other address (udp(7)).
"""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket

from uproxy.core.route import Backend
from uproxy.dataplane.client_address import bind_to_client
from uproxy.dataplane.context import Context

_NEW = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def connect(backend: Backend, context: Context) -> Socket:
    """A connected socket with the node's address. Raises OSError."""
    sock = _new(backend, context)
    try:
        reach(sock, backend, context)
    except BaseException:
        sock.close()
        raise
    return sock


def reach(sock: Socket, backend: Backend, context: Context) -> None:
    """Connect a socket without peer and port, which gets a port by that. Raises OSError."""
    sock.connect(backend)
    locality = context.locality
    if backend.port >= locality.lowest_local_port and locality.is_self_connected(sock, backend):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")


def connect_as(client: str, backend: Backend, context: Context) -> Socket | None:
    """A connected socket with the client's address; None where there can be none. Raises
    OSError."""
    if context.locality.is_here(backend.address):
        return None  # A backend on this node would reply to the client directly.
    sock = _new(backend, context)
    # connect(2) of a datagram socket waits for nothing. If it fails, the node's own address may do.
    if bind_to_client(sock, client, backend.address) and not sock.connect_ex(backend):
        return sock
    sock.close()
    return None


def connect_as_pod(client: str, backend: Backend, context: Context) -> Socket | None:
    """The same with the address of a pod of this node. Raises OSError as well if there can be none,
    and the backend may not see the node's address instead."""
    if context.locality.is_past_us(client, backend.address):
        return None
    sock = _new(backend, context)
    bound = context.pod_ports.bind_datagram(sock, client, backend.address)
    if bound and not sock.connect_ex(backend):
        return sock
    sock.close()
    if not context.return_paths.may_masquerade(client, backend):
        raise OSError(errno.EADDRNOTAVAIL, "no socket with the address of the pod")
    return None


def family_of(backend: Backend) -> int:
    """The address family of a backend."""
    return socket.AF_INET6 if ":" in backend.address else socket.AF_INET


def _new(backend: Backend, context: Context) -> Socket:
    return context.reactor.kernel.new_socket(family_of(backend), _NEW)
