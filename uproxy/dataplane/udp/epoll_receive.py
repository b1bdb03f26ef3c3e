"""The registration of a UDP flow's socket with epoll, which outlives the flow (idle_sockets.py)."""

from __future__ import annotations

from _socket import socket as Socket
from contextlib import suppress

from uproxy.dataplane.reactor import Reactor

_SCRAP = bytearray(1)


class EpollReceive:
    """A socket whose events are reported."""

    __slots__ = ("_reactor", "over", "sock")

    def __init__(self, reactor: Reactor, sock: Socket) -> None:
        self._reactor = reactor
        self.sock = sock
        self.over = False

    def leave(self) -> None:
        self._reactor.replace(self.sock.fileno(), self._drop)

    def is_quiet(self) -> bool:
        # Events say only that there may be something to read.
        return True

    def stop(self) -> None:
        self._reactor.discard(self.sock.fileno())
        self.sock.close()

    def _drop(self, mask: int) -> None:
        """What the kernel was just delivering when the socket was disconnected."""
        with suppress(OSError):
            self.sock.recv_into(_SCRAP)
