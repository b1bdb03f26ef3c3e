"""TCP flows whose backend learns the client's address from a PROXY header."""

from __future__ import annotations

import errno
import select
from _socket import socket as Socket
from typing import Final

from uproxy.core.flows.counters import DropReason
from uproxy.dataplane.tcp.epoll_events import EVENTS, SEND_FLAGS
from uproxy.dataplane.tcp.flow import Flow
from uproxy.dataplane.tcp.proxy_protocol import End, header

_FAILED: Final = select.EPOLLERR | select.EPOLLHUP
_WILDCARDS: Final = ("0.0.0.0", "::")


class HeaderFlow(Flow):
    """A flow of a route with `proxy_protocol`.

    An attempt at a backend has succeeded when the kernel has taken the whole header; if it fails
    before, the next backend gets a whole header. Its bytes are not counted, as the client has not
    sent them.
    """

    __slots__ = ("events", "unsent")

    unsent: bytes
    """What is left of the header."""
    events: int
    """Of the backend's socket, seen while the header waited."""

    def relay(self, mask: int) -> None:
        """Send the header, before the client's own bytes."""
        version = self.route.proxy_protocol
        assert version is not None
        try:
            client, server = self._ends()
        except OSError:
            self.abort(self.client_sock, errno.ECONNRESET)
            return
        self.unsent, self.events = header(version, client, server), 0
        self._send(mask)

    def _send(self, mask: int) -> None:
        """Send what is left of the header; when nothing is, begin to relay."""
        dialer, sock = self.listener.dialer, self.sock
        assert sock is not None
        if mask & _FAILED:
            dialer.failed(self)
            return
        # Edges come once: the mover is told of all those that came while the header waited.
        self.events |= mask
        try:
            sent = sock.send(self.unsent, SEND_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            dialer.failed(self, error.errno or 0)
            return
        self.unsent = self.unsent[sent:]
        if self.unsent:
            # It fits into the smallest send buffer, but the kernel may be short of memory.
            self._wait_for_room(sock)
        else:
            # Not before: until the header has gone, the attempt may fail or time out, and the next
            # backend gets a whole one.
            super().relay(self.events)

    def _wait_for_room(self, sock: Socket) -> None:
        reactor = self.listener.context.reactor
        try:
            # It is registered if epoll has reported the dial; a ring has polled it once instead.
            reactor.register_or_replace(sock.fileno(), self._send, EVENTS)
        except OSError:  # Out of memory, or over fs.epoll.max_user_watches.
            self.drop(DropReason.DESCRIPTORS)

    def _ends(self) -> tuple[End, End]:
        """The connection that was accepted. Raises OSError if it is gone."""
        client, port = self.client_sock.getpeername()[:2]
        address, number = self.route.frontend.address, self.route.frontend.port
        if address in _WILDCARDS:
            address, number = self.client_sock.getsockname()[:2]
        return (_without_zone(client), port), (_without_zone(address), number)


def _without_zone(address: str) -> str:
    return address.partition("%")[0]
