"""A UDP flow: what one client and one backend say to each other, through one local address."""

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
"""Datagrams that one socket passes on by epoll before others are looked at: about 0.5 ms."""

ATTEMPTS = 4
"""Backends that a flow tries before it gives up, as for TCP."""

KEPT, KEPT_BYTES = 4, 1500
"""How many datagrams, and how many bytes in all, a flow keeps until its backend has replied.
Queries and the first flight of a handshake fit. A client would repeat them only seconds later,
which is why they are worth keeping; whatever does not fit is lost if the backend refuses."""

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
    """Whether the socket is bound to no particular address, so that each flow has its own."""
    route: Route
    """The present one. A flow asks it for another backend when one refuses."""
    port: Port
    preserves: bool
    """Whether backends are to see the addresses of clients that are outside."""
    flows: dict[Key, UdpFlow]

    def admits(self, client: Address) -> bool:
        """Whether a client may begin a flow. Otherwise it is counted why not."""


class UdpFlow(ABC):
    """One client (address and port), one local address, and one backend at a time.

    | state       | in the tables | socket    | leaves the state                                |
    |-------------|---------------|-----------|-------------------------------------------------|
    | new         | no            | none      | by `begin`: unconfirmed, or ended               |
    | unconfirmed | yes           | connected | by a reply: confirmed; by a refusal: it moves,  |
    |             |               |           | unconfirmed, or is ended; by `close`: ended     |
    | confirmed   | yes           | connected | by a refusal: it moves, unconfirmed, or is      |
    |             |               |           | ended; by `close`: ended                        |
    | ended       | no            | none      | never; the next datagram begins another flow    |

    `close` is called when the flow has been silent for too long, when another needs its place, when
    its backend no longer serves, and when its listener closes. These hold between two callbacks
    (tests/simulation/udp_invariants.py checks them):

    * A flow is in both tables, that of its listener and that of the worker, or in neither. It has
      an open socket exactly while it is in them.
    * An unconfirmed flow keeps what its client has sent, for the next backend in case this one
      refuses. A confirmed flow keeps nothing, and has no backend that counts as tried.
    * `answered` is never taken back, even when a flow moves and is unconfirmed again. So it goes on
      living as long as before.

    The socket is the flow's own, and connected: so the kernel sorts the replies, and reports
    refusals (ICMP port unreachable) to the flow that they concern.
    """

    __slots__ = (
        "_client",
        "_confirmed",
        "_control",
        "_inspecting",
        "_kept",
        "_key",
        "_listener",
        "_port",
        "_preserving",
        "_reactor",
        "_send",
        "_sent_after_reply",
        "_sock",
        "_tried",
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
        """Control data that says which address replies leave from; empty: the address that the
        listener is bound to."""
        self._port = listener.port
        self.counters = listener.port.counters
        self._sock = None
        self._confirmed = False
        """Whether the present backend has replied."""
        self._inspecting = True
        """Whether `_inspect` is called for the client's datagrams: its backend has not replied, or
        they have not exchanged much. One attribute for both, as it is read for each datagram."""
        self._sent_after_reply = 0
        """Datagrams that the client has sent after a reply, up to CONVERSATION."""
        self._preserving = listener.preserves
        """Whether the backend is to see the client's address, if that is outside."""
        self._tried: list[Backend] = []
        """Backends that failed since the last reply."""
        self._reactor = listener.context.reactor
        self.began = self.last = self._reactor.now
        self.answered = self.established = False
        self.number = 0
        self._kept: list[bytes] = []
        """What the client has sent, as long as the backend has not replied."""

    def begin(self) -> bool:
        """Connect to a backend, and enter the tables. Returns False where that was impossible; the
        reason is counted."""
        if not self._connect():
            return False
        listener = self._listener
        listener.flows[self._key] = self
        listener.all_flows.admit(self, self._reactor.now)
        self.counters.flows += 1
        self.counters.active += 1
        return True

    def to_backend(self, data: memoryview) -> None:
        """Send a datagram of the client, by a system call; if need be to another backend."""
        self.last = self._reactor.now
        try:
            self._send(data)
        except BlockingIOError:
            # Waiting would only make it late. UDP has no promise to keep, and others are waiting.
            self.counters.drop(DropReason.BUFFER_FULL)
            return
        except OSError as error:
            if not self._recover(error, data):
                return
        self.counters.client_bytes += len(data)
        self.counters.client_datagrams += 1
        if self._inspecting:
            self._inspect(data)

    def close(self) -> None:
        """End the flow. The client's next datagram begins another."""
        if self._listener.flows.get(self._key) is not self:
            return
        # From here on, another call does nothing.
        del self._listener.flows[self._key]
        self._disconnect()
        self._listener.all_flows.discard(self)
        self.counters.active -= 1

    abort = close
    """The reactor calls this when a callback of the flow has raised."""

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
        """Send a reply, by a system call, through the socket that the client has sent to: it takes
        a reply from no other address and port."""
        listener = self._listener
        self.last = self._reactor.now
        if not self._confirmed:
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
        """The present backend is alive."""
        self._confirmed = True
        self._inspecting = self._sent_after_reply < CONVERSATION
        self._listener.all_flows.table.answer(self)
        self._tried.clear()
        self._kept.clear()
        route = self._listener.route
        self._port.balancer.succeeded(route, self.backend, self._client[0], now)

    def _inspect(self, data: memoryview) -> None:
        """Keep a datagram that was sent, or see that the flow has become a conversation."""
        if self._confirmed:
            self._sent_after_reply += 1
            if self._sent_after_reply == CONVERSATION:
                self._inspecting = False
                self._listener.all_flows.table.establish(self)
        elif len(self._kept) < KEPT and len(data) + sum(map(len, self._kept)) <= KEPT_BYTES:
            self._kept.append(bytes(data))

    def _recover(self, error: OSError, data: memoryview | None) -> bool:
        """After a failed call on the backend socket: go on, at another backend if this one has
        refused. Returns whether `data` is on its way after all.

        The kernel reports an ICMP error with the next call on the socket, whichever that is, and
        only once. So ECONNREFUSED never concerns the datagram in hand: an earlier one was refused,
        and this one was not sent at all. Both go to the next backend, the earlier one if it was
        kept, in the order in which the client has sent them.
        """
        if error.errno in RESOURCE_ERRORS:
            self.counters.drop(DropReason.BUFFER_FULL)
            return False
        if error.errno == errno.EMSGSIZE:
            # The path MTU has become smaller, which the kernel heeds from now on, so that the same
            # datagram can be sent in fragments. Or it is too long for any.
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
        """Go from a backend that refuses to another one. The flow ends if there is none."""
        self.counters.drop(DropReason.BACKEND_REFUSED)
        self._blame(self.backend)
        self._disconnect()
        self._confirmed = False
        self._inspecting = True
        if self._connect():
            return True
        self.close()
        return False

    def _blame(self, backend: Backend) -> None:
        self._tried.append(backend)
        self.counters.dial_failures += 1
        self._port.balancer.failed(backend, self._reactor.now)

    def _connect(self) -> bool:
        """Connect to a backend. Otherwise count why not."""
        freed = False
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
                    if not freed and self._take_descriptor(error):
                        freed = True
                        continue
                    self.counters.drop(DropReason.DESCRIPTORS)
                    return False
                self._blame(backend)
            else:
                return True
        self.counters.drop(self._why_no_backend())
        return False

    def _why_no_backend(self) -> DropReason:
        if self._listener.all_flows.loops.found:
            return DropReason.LOOP
        return DropReason.DIAL_FAILED if self._tried else DropReason.NO_BACKEND

    def _take_descriptor(self, error: OSError) -> bool:
        """Whether a new flow can have the descriptor of another one, which ends for it. Only where
        this process has no more (EMFILE): if the whole machine has none, another process would be
        faster. A flow that moves ends no other: it has just given a descriptor back."""
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
        """A socket that is connected to it, with the client's address if that is wanted and can be
        had, or else with the node's. Raises OSError."""
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
