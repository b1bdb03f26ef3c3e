"""One TCP connection pair: from the accepted client to the last byte."""

from __future__ import annotations

import select
import struct
from _socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET, TCP_QUICKACK
from _socket import socket as Socket
from contextlib import suppress
from typing import Final, Protocol

from uproxy.core.flows.counters import DropReason
from uproxy.core.route import Backend, Route
from uproxy.dataplane.context import Context
from uproxy.dataplane.ports import Port
from uproxy.dataplane.tcp.dialer import Dialer
from uproxy.dataplane.tcp.epoll_direction import Side
from uproxy.dataplane.tcp.epoll_events import EVENTS
from uproxy.dataplane.tcp.ring_direction import RingSide, ring_sides
from uproxy.dataplane.tcp.shared_buffers import Relay

ROUNDS_OF_SILENCE: Final = 3
"""How long the backend's handshake waits for the client's first bytes. Measured: 1 has half of the
effect, 6 no more."""

_FAILED: Final = select.EPOLLERR | select.EPOLLHUP
_NEWS: Final = ~select.EPOLLOUT
_LINGER: Final = struct.pack("ii", 1, 0)


def reset(sock: Socket) -> None:
    """Close with RST, whatever is unread or unsent."""
    with suppress(OSError):
        sock.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER)
    sock.close()


class FlowListener(Protocol):
    """The listener of a flow, and what it has for its flows."""

    context: Context
    dialer: Dialer
    relay: Relay
    route: Route
    port: Port
    flows: set[Flow]

    def flow_ended(self, flow: Flow) -> None:
        """One of `flows` is over."""


class Flow:
    """A client that was admitted: first waiting for a backend, then relayed.

    It ends by `finish` (both streams ended), `drop` (nobody served it) or `abort` (all else), and
    then has no sockets and no reference cycles left. Ending it twice is fine.
    """

    __slots__ = ("attempt", "backend", "backend_side", "backends", "client", "client_side",
                 "client_sock", "ended", "listener", "port", "preserving", "progress",
                 "quiet_since", "refused", "rounds", "route", "sock", "tried")  # fmt: skip

    def __init__(
        self, listener: FlowListener, sock: Socket, client: str, backends: tuple[Backend, ...]
    ) -> None:
        self.listener = listener
        self.route: Route = listener.route
        self.port = listener.port
        """As of the beginning: a frontend may change its owner while its flows live on."""
        self.client = client
        """IP address."""
        self.client_sock = sock
        self.backends = backends
        """Those the client may reach."""
        self.backend: Backend | None = None
        """The one that is dialed or relayed to."""
        self.sock: Socket | None = None
        """Towards the backend."""
        self.attempt = 0
        self.tried: tuple[Backend, ...] = ()
        """Backends not to dial next."""
        self.refused: tuple[Backend, ...] = ()
        """Backends not to dial again at all."""
        self.preserving = False
        """Whether backends are to see the client's address."""
        self.client_side: Side | RingSide | None = None
        """Set while relaying, like `backend_side`."""
        self.backend_side: Side | RingSide | None = None
        self.progress = -1
        """Bytes read and delivered, when that was last looked at."""
        self.quiet_since = 0.0
        """Monotonic seconds of the first look at the present progress."""
        self.rounds = 0
        """Of the ring, in which the client has said nothing."""
        self.ended = False
        counters = self.port.counters
        counters.flows += 1
        counters.active += 1
        listener.flows.add(self)
        listener.context.queue.tcp_flow_began()

    def __repr__(self) -> str:
        state = "ended" if self.ended else "relaying" if self.client_side else "dialing"
        return f"<Flow {self.client} to {self.route.owner} at {self.backend}, {state}>"

    def begin(self) -> None:
        """The client was accepted and admitted: dial a backend.

        A flow that has to know the client's first bytes before it can choose a backend, such as
        the name in a TLS ClientHello, would wait for them here. It must leave them in the socket
        (MSG_PEEK), or they would not reach the backend.
        """
        self.listener.dialer.dial(self)

    def connected(self, mask: int) -> None:
        """The first event of the socket towards the backend."""
        assert self.sock is not None
        assert self.backend is not None
        if mask & _FAILED:
            self.listener.dialer.failed(self)
            return
        if self.listener.context.locality.is_itself(self.sock, self.backend):
            # By a reset: TIME_WAIT would keep the port from its owner for a minute.
            self.sock.setsockopt(SOL_SOCKET, SO_LINGER, _LINGER)
            self.listener.dialer.failed(self)
            return
        self.introduce(mask)

    def introduce(self, mask: int) -> None:
        """The backend has answered: relay. What is to be sent to it before the client's own bytes
        goes out here. `mask`: events of its socket so far."""
        assert self.sock is not None
        self.listener.dialer.succeeded(self)
        relay = self.listener.relay
        reactor = relay.reactor
        watched = reactor.is_registered(self.sock.fileno())
        if relay.ring is not None and not watched:
            self.client_side, self.backend_side = ring_sides(
                relay.ring, relay.half_closed, self, self.client_sock, self.sock
            )
            relay.ring.call_after_turn(self._acknowledge)
            return
        _, backend = self._relay_by_epoll(relay, self.sock)
        if self._register() and watched and mask & _NEWS:
            backend.ready(mask)

    def leave_ring(self) -> None:
        """Go on by epoll, where the ring has stopped."""
        client, backend = self.client_side, self.backend_side
        assert isinstance(client, RingSide)
        assert isinstance(backend, RingSide)
        assert self.sock is not None
        sides = self._relay_by_epoll(self.listener.relay, self.sock)
        for side, old in zip(sides, (client, backend), strict=True):
            side.follow(old.total, old.reported, old.held, eof=old.eof)
            old.close()
        if client.rejected or backend.rejected:
            sides[0 if client.rejected else 1].reject()
        elif client.broken or backend.broken:
            self.abort()
        else:
            self._register()

    def _acknowledge(self) -> None:
        """Complete the handshake with the backend, if the client's first bytes have not done so.

        Most clients speak first, and most of them have spoken by now. Then the backend hears of
        the connection and of the request at once: a packet and a wake-up less. (Measured, a
        connection for each request: 8 % less CPU.) Servers that speak first wait for a few rounds
        of the ring, which are short when there is little to do.
        """
        client = self.client_side
        if client is None or client.total or self.sock is None:
            return
        self.rounds += 1
        ring = self.listener.relay.ring
        if ring is not None and self.rounds < ROUNDS_OF_SILENCE:
            ring.call_after_turn(self._acknowledge)
            return
        with suppress(OSError):
            self.sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 1)

    def _relay_by_epoll(self, relay: Relay, sock: Socket) -> tuple[Side, Side]:
        client = self.client_side = Side(relay, self, self.client_sock, sock)
        backend = self.backend_side = Side(relay, self, sock, self.client_sock)
        client.peer = backend
        backend.peer = client
        return client, backend

    def _register(self) -> bool:
        """Have events of both sockets. Otherwise the flow has been dropped."""
        reactor = self.listener.context.reactor
        try:
            for side in (self.backend_side, self.client_side):
                assert isinstance(side, Side)
                if reactor.is_registered(side.fd):
                    reactor.replace(side.fd, side.ready)
                else:
                    reactor.register(side.fd, side.ready, EVENTS)
        except OSError:  # Out of memory, or over fs.epoll.max_user_watches.
            self.drop(DropReason.DESCRIPTORS)
            return False
        return True

    def masquerade(self) -> None:
        """Dial from the node's address from now on, and count it."""
        if self.preserving:
            self.preserving = False
            self.port.counters.masqueraded += 1

    def timed_out(self) -> None:
        """The attempt to dial has taken too long."""
        self.listener.dialer.timed_out(self)

    def retry(self) -> None:
        """Dial again, after an attempt for which we lacked something ourselves."""
        self.listener.dialer.dial(self)

    def finish(self) -> None:
        """Both streams ended and were delivered. Nothing is unread, so close() sends no RST; what
        is still in the kernel's send buffers goes out before the FIN."""
        if not self.ended:
            self._let_go()
            self.client_sock.close()
            if self.sock is not None:
                self.sock.close()
            self.listener.flow_ended(self)

    def abort(self) -> None:
        """Reset both connections."""
        if not self.ended:
            self._let_go()
            reset(self.client_sock)
            if self.sock is not None:
                reset(self.sock)
            self.listener.flow_ended(self)

    def drop(self, reason: DropReason) -> None:
        """Abort, and count why."""
        if not self.ended:
            self.port.counters.drop(reason)
            self.abort()

    def account(self) -> None:
        """Bring the byte counters of the port up to date."""
        client, backend = self.client_side, self.backend_side
        if client is not None and backend is not None:
            counters = self.port.counters
            counters.client_bytes += client.unreported()
            counters.backend_bytes += backend.unreported()

    def _let_go(self) -> None:
        """Of everything but the sockets."""
        self.ended = True
        self.account()
        if self.backend is not None:
            self.port.balancer.end(self.backend)
        reactor = self.listener.context.reactor
        reactor.discard(self.client_sock.fileno())
        if self.sock is not None:
            reactor.discard(self.sock.fileno())
        client, backend = self.client_side, self.backend_side
        if client is not None and backend is not None:
            client.close()
            backend.close()
            self.client_side = self.backend_side = None
        else:
            self.listener.dialer.forget(self)
        self.port.counters.active -= 1
