"""TCP loops: connections whose backend leads back to a frontend of this node, although its address
does not show it. The node may have an address that no interface has; another node, a load balancer
or a translation of addresses may send connections back.

Routers subtract one from the TTL of what they forward, so nothing goes round for ever. A proxy
starts with a new TTL, and one connection becomes as many as the limits allow. So when the number
of flows grows quickly, the next ones are inspected: the connection to the backend gets a lower TTL
than the client's packets had, and a client whose packets have hardly any TTL left has been here
before. Other proxies on the
way, which also start with a new TTL, hide such a loop.
"""

from __future__ import annotations

import socket
from _socket import socket as Socket
from contextlib import closing
from typing import Final

from uproxy.dataplane.kernel import Kernel
from uproxy.dataplane.reactor import Reactor

STEP: Final = 8
"""What one pass through uproxy takes from the TTL. With one, as in a router, a connection would
pass 64 times; with this 8 times, and a connection from 30 routers away still has what it needs for
the way to a pod."""

MOST: Final = 64
"""The TTL at which the first proxy starts to count, for a client that begins with 128 or 255."""

INSPECTED: Final = 256
"""Dials that are looked at, for 1 us each, once there are many more flows than before: enough for
all workers to look at the same time, and for the 8 passes."""

INSPECTED_AFTER_A_LOOP: Final = 65536
"""The same once something has gone round."""

_PROBE: Final = 77


class LoopDetector:
    """Finds connections that go round, by the TTL of their packets; one for a worker."""

    def __init__(self, reactor: Reactor) -> None:
        self.to_inspect = 0
        """Dials that are still to be inspected."""
        self._reactor = reactor
        self._supported = False

    def inspect(self, dials: int = INSPECTED) -> None:
        """Inspect the next dials."""
        self._supported = self._supported or _is_supported(self._reactor.kernel)
        if self._supported:
            self.to_inspect = max(self.to_inspect, dials)

    def pass_on(self, client: Socket, backend: Socket) -> bool:
        """Pass the client's TTL on to a backend's socket that is not connected yet. Returns False
        if the client's connection has been here too often."""
        self.to_inspect -= 1
        left = min(_received(client), MOST) - STEP
        if left <= 0:
            self.inspect(INSPECTED_AFTER_A_LOOP)
            return False
        if backend.family == socket.AF_INET6:
            backend.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, left)
        else:
            backend.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, left)
        return True


def _received(accepted: Socket) -> int:
    """The TTL of the packet that completed the handshake. Linux keeps it where sockets for
    datagrams have their TTL for multicast, and no option is needed beforehand."""
    if accepted.family == socket.AF_INET6:
        return accepted.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS)
    return accepted.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)


def _is_supported(kernel: Kernel) -> bool:
    """Whether this kernel does so. Others that are called Linux (gVisor) need not."""
    kind = socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC
    try:
        with (
            closing(kernel.new_socket(*kind)) as listener,
            closing(kernel.new_socket(*kind)) as client,
        ):
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _PROBE)
            client.connect(listener.getsockname())
            fd, _ = listener._accept()  # type: ignore[attr-defined]
            with closing(kernel.new_socket(*kind, 0, fd)) as accepted:
                return _received(accepted) == _PROBE
    except OSError:
        return False
