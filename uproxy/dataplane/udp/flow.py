"""A UDP flow: the conversation of one client with one of our addresses."""

from __future__ import annotations

import errno
import socket
from _socket import socket as Socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from uproxy.core.errors import RESOURCE_ERRORS
from uproxy.core.flows.counters import DropReason
from uproxy.core.route import Backend, Route
from uproxy.dataplane.context import Context
from uproxy.dataplane.ports import Port
from uproxy.dataplane.udp.backend_socket import connect, connect_as
from uproxy.dataplane.udp.flows import UdpFlows
from uproxy.dataplane.udp.keys import Address, Key
from uproxy.net import pktinfo

BATCH = 64
"""Datagrams that one socket passes on before the others get their turn: about 0.5 ms."""

ATTEMPTS = 4
"""Backends that a flow tries before it gives up, as for TCP."""

KEPT, KEPT_BYTES = 4, 1500
"""How many datagrams, and how much of them, a flow keeps until its backend has replied, for the
next backend in case this one refuses. Queries or a handshake fit, which a client would repeat
only seconds later."""

CONVERSATION = 4
"""Datagrams that a client sends after a reply until its flow counts as a conversation, even if no
two seconds have passed. A resolver's query has one at most: AAAA, asked along with A."""


class Listening(Protocol):
    """What flows, and the intake that begins them, need of their listener."""

    context: Context
    all_flows: UdpFlows
    """Those of all listeners of the worker."""
    sock: socket.socket
    """Replies leave through it."""
    wildcard: bool
    """Whether the socket is bound to no particular address, so that each flow has one of its
    own."""
    route: Route
    """The present one; it says where to go when a backend refuses."""
    port: Port
    preserves: bool
    """Whether backends are to see the addresses of clients that are outside."""
    flows: dict[Key, UdpFlow]

    def admits(self, client: Address) -> bool:
        """Whether a client may begin a flow. Otherwise it is counted why not."""


class UdpFlow(ABC):
    """One client (address and port), one address of ours, and one backend at a time.

    The socket towards the backend is the flow's own, and connected: so the kernel sorts the
    replies, and reports refusals (ICMP port unreachable) to the flow that they concern.
    """

    __slots__ = (
        "_client",
        "_control",
        "_kept",
        "_key",
        "_listener",
        "_port",
        "_preserving",
        "_reactor",
        "_replied",
        "_send",
        "_sock",
        "_tried",
        "_turns",
        "_young",
        "answered",
        "backend",
        "began",
        "counters",
        "established",
        "last",
        "number",
    )

    backend: Backend
    _sock: Socket | None
    _send: Callable[[bytes | memoryview], int]

    def __init__(
        self, listener: Listening, key: Key, client: Address, control: pktinfo.Control
    ) -> None:
        self._listener = listener
        self._key = key
        self._client = client
        self._control = control
        """Where replies leave from; empty: from the address that the listener is bound to."""
        self._port = listener.port
        self.counters = listener.port.counters
        self._sock = None
        self._replied = False
        self._young = True
        """Whether datagrams of the client are looked at: its backend has not replied, or the two
        have not exchanged much. One question for both, since it is asked for each datagram."""
        self._turns = 0
        """Datagrams of the client after a reply, up to CONVERSATION."""
        self._preserving = listener.preserves
        """Whether the backend is to see the client's address, if that is outside."""
        self._tried: list[Backend] = []
        """Backends that failed since the last reply."""
        self._reactor = listener.context.reactor
        self.began = self.last = self._reactor.now
        self.answered = self.established = False
        self.number = 0
        self._kept: list[bytes] = []
        """What the client sent and nobody has replied to yet."""

    def begin(self) -> bool:
        """Connect to a backend, and take part. Otherwise what was counted says why not."""
        if not self._connect():
            return False
        listener = self._listener
        listener.flows[self._key] = self
        listener.all_flows.admit(self, self._reactor.now)
        self.counters.flows += 1
        self.counters.active += 1
        return True

    def to_backend(self, data: memoryview) -> None:
        """Send a datagram of the client, if need be to another backend."""
        self.last = self._reactor.now
        try:
            self._send(data)
        except BlockingIOError:
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        except OSError as error:
            if not self._recover(error, data):
                return
        self.counters.client_bytes += len(data)
        self.counters.client_datagrams += 1
        if self._young:
            self._look_at(data)

    def close(self) -> None:
        """End the flow. The client's next datagram begins another."""
        if self._listener.flows.get(self._key) is not self:
            return
        del self._listener.flows[self._key]
        self._disconnect()
        self._listener.all_flows.discard(self)
        self.counters.active -= 1

    abort = close

    def source(self) -> tuple[str, int]:
        """Address and port of the socket towards the backend; "" and 0 without one."""
        return ("", 0) if self._sock is None else self._sock.getsockname()[:2]

    @abstractmethod
    def _start_receiving(self, sock: Socket) -> None:
        """Pass on what a backend replies from now on. Raises OSError."""

    @abstractmethod
    def _stop_receiving(self, sock: Socket) -> None:
        """Receive nothing more, before the socket is closed."""

    def _to_client(self, data: memoryview) -> None:
        listener = self._listener
        self.last = self._reactor.now
        if not self._replied:
            self._first_reply(self.last)
        try:
            if self._control:
                listener.sock.sendmsg([data], self._control, 0, self._client)
            else:
                listener.sock.sendto(data, self._client)
        except BlockingIOError:
            self.counters.drop(DropReason.BUFFER_FULL)
        except OSError as error:
            full = error.errno in RESOURCE_ERRORS
            self.counters.drop(DropReason.BUFFER_FULL if full else DropReason.SEND_FAILED)
        else:
            self.counters.backend_bytes += len(data)
            self.counters.backend_datagrams += 1

    def _first_reply(self, now: float) -> None:
        """The backend is alive."""
        self._replied = True
        self._young = self._turns < CONVERSATION
        self._listener.all_flows.table.answer(self)
        self._tried.clear()
        self._kept.clear()
        route = self._listener.route
        self._port.balancer.succeeded(route, self.backend, self._client[0], now)

    def _look_at(self, data: memoryview) -> None:
        """A datagram of the client has been sent."""
        if self._replied:
            self._turns += 1
            if self._turns == CONVERSATION:
                self._young = False
                self._listener.all_flows.table.establish(self)
        elif len(self._kept) < KEPT and len(data) + sum(map(len, self._kept)) <= KEPT_BYTES:
            self._kept.append(bytes(data))

    def _recover(self, error: OSError, data: memoryview | None) -> bool:
        """After a failed call on the backend socket; whether `data` is on its way after all.

        The kernel reports an ICMP error with the next call, whichever that is, and only once.
        """
        if error.errno in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
            return False
        if error.errno == errno.EMSGSIZE:
            # News of a smaller path MTU, which the kernel now heeds; or really too long.
            return data is not None and self._send_again(data)
        pending: list[bytes | memoryview] = [*self._kept]
        if data is not None:
            pending.append(data)
        while self._move():
            with suppress(OSError):
                for each in pending:
                    self._send(each)
                return True
        return False

    def _send_again(self, data: memoryview) -> bool:
        try:
            self._send(data)
        except OSError:
            self.counters.drop(DropReason.SEND_FAILED)
            return False
        return True

    def _move(self) -> bool:
        """From a backend that refuses to another one. The flow ends if there is none."""
        self.counters.drop(DropReason.BACKEND_REFUSED)
        self._blame(self.backend)
        self._disconnect()
        self._replied = False
        self._young = True
        if self._connect():
            return True
        self.close()
        return False

    def _blame(self, backend: Backend) -> None:
        self._tried.append(backend)
        self.counters.dial_failures += 1
        self._port.balancer.failed(backend, self._reactor.now)

    def _connect(self) -> bool:
        """Connect to the backend whose turn it is. Otherwise count why not."""
        lacking = False
        while len(self._tried) < ATTEMPTS:
            backend = self._pick()
            if backend is None:
                break
            if self._tried:
                self.counters.retries += 1
            try:
                self._connect_to(backend)
            except OSError as error:
                if error.errno in RESOURCE_ERRORS:
                    if not lacking and self._make_way(error):
                        lacking = True
                        continue
                    self.counters.drop(DropReason.DESCRIPTORS)
                    return False
                self._blame(backend)
            else:
                return True
        self.counters.drop(self._lack_of_backends())
        return False

    def _lack_of_backends(self) -> DropReason:
        if self._listener.all_flows.loops.found:
            return DropReason.LOOP
        return DropReason.DIAL_FAILED if self._tried else DropReason.NO_BACKEND

    def _make_way(self, error: OSError) -> bool:
        """Whether a new flow may have the descriptor of another one. What the whole machine lacks,
        others would take first."""
        is_new = not self.number
        return is_new and error.errno == errno.EMFILE and self._listener.all_flows.free_descriptor()

    def _pick(self) -> Backend | None:
        context, route, ip = self._listener.context, self._listener.route, self._client[0]
        backends = context.locality.backends_for(route, ip)
        tried = self._tried
        if self._listener.all_flows.loops.found:
            tried = [*tried, *self._listener.all_flows.loops.avoided()]
        return self._port.balancer.pick(route, backends, ip, context.reactor.now, tried)

    def _connect_to(self, backend: Backend) -> None:
        context = self._listener.context
        sock = self._socket_towards(backend)
        try:
            self._start_receiving(sock)
        except BaseException:
            sock.close()
            raise
        self._sock, self._send = sock, sock.send
        self.backend = backend
        balancer = self._port.balancer
        balancer.begin(backend)
        balancer.pin(self._listener.route, backend, self._client[0], context.reactor.now)

    def _socket_towards(self, backend: Backend) -> Socket:
        """A socket that is connected. Raises OSError."""
        context, client = self._listener.context, self._client[0]
        if self._preserving and context.locality.is_outside(self._listener.route, client):
            sock = connect_as(client, backend, context)
            if sock is not None:
                return sock
            self._preserving = False
            self.counters.masqueraded += 1
        return connect(backend, context)

    def _disconnect(self) -> None:
        if self._sock is not None:
            self._stop_receiving(self._sock)
            self._sock.close()
            self._sock = None
            self._port.balancer.end(self.backend)
