"""The registration of a UDP flow's socket with epoll, while the socket waits for another flow."""

from __future__ import annotations

import select
import socket
from _socket import socket as Socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.udp.epoll_receive import EpollReceive


def test_what_still_comes_is_read_and_dropped() -> None:
    """Its events are reported as long as there is something to read, and concern no flow."""
    callbacks: dict[int, Callable[[int], None]] = {}
    reactor = SimpleNamespace(replace=callbacks.__setitem__, discard=callbacks.pop)
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, far:
        sock = Socket(fileno=near.detach())
        sock.setblocking(False)
        fd, receive = sock.fileno(), EpollReceive(cast("Reactor", reactor), sock)
        receive.leave()
        far.send(b"late")
        for _ in range(2):  # The second time, there is nothing.
            callbacks[fd](select.EPOLLIN)
            assert not select.select([sock], [], [], 0)[0]
        assert receive.is_quiet()
        receive.stop()
        assert not callbacks
        assert sock.fileno() < 0
