"""One TCP connection pair: from the accepted client to the last byte."""

from __future__ import annotations

import errno
import select
from _socket import SO_ERROR, SO_LINGER, SOL_SOCKET
from _socket import socket as Socket
from contextlib import suppress
from typing import Final, Protocol

from uproxy.core.errors import error_name
from uproxy.core.flows.backend_counts import BackendTally
from uproxy.core.flows.counters import DropReason
from uproxy.core.flows.flow_record import (
    COMPLETE,
    ENDERS,
    KEPT,
    Ender,
    FlowRecord,
    Phase,
    ender_of,
)
from uproxy.core.route import Backend, Route
from uproxy.dataplane.context import Context
from uproxy.dataplane.flow_records import COMPLETED
from uproxy.dataplane.ports import Port
from uproxy.dataplane.tcp.dialer import Dialer
from uproxy.dataplane.tcp.mover import Detached, Mover
from uproxy.dataplane.tcp.movers import Movers
from uproxy.dataplane.tcp.resets import LINGER, reset
from uproxy.dataplane.tcp.tcp_info import path_quality

_FAILED: Final = select.EPOLLERR | select.EPOLLHUP
_PACK, _SIZE = COMPLETED.pack_into, COMPLETED.size
LONG: Final = 1.0
"""Seconds. Of a flow that took so long, the kernel is always asked for the quality of its path."""


class FlowListener(Protocol):
    """The listener of a flow, and what it has for all of its flows."""

    context: Context
    dialer: Dialer
    movers: Movers
    route: Route
    port: Port
    flows: set[Flow]

    def flow_ended(self, flow: Flow) -> None:
        """One of `flows` is over."""


class Flow:
    """A client that was admitted: first waiting for a backend, then relayed.

    It ends by `finish` (both streams ended), `drop` (no backend served it, or it was idle for too
    long), `kill` (its listener is closed) or `abort` (a connection is broken), and then has no
    sockets and no reference cycles left. Ending it twice is fine.
    """

    __slots__ = ("address", "answered", "attempt", "backend", "backends", "began", "client",
                 "client_sock", "delayed", "dialed", "ended", "error", "from_pod", "listener",
                 "mover", "port", "preserving", "progress", "quiet_since", "refused", "route",
                 "sock", "suspect", "tally", "tried")  # fmt: skip

    client: str
    """IP address."""
    address: tuple[str, int]
    """That and the port, as accept(2) gives them."""
    began: float
    """Monotonic seconds."""
    answered: float
    """When a backend has answered; 0: none has."""
    dialed: Backend | None
    """The backend that was dialed last."""
    tally: BackendTally
    """Of that backend, once there is one."""
    delayed: bool
    """Whether the last ACK of the backend's handshake waits for the client's first bytes."""
    error: int
    """The errno of the last attempt that has failed."""
    progress: int
    """Bytes read and delivered, when that was last looked at."""
    quiet_since: float
    """Monotonic seconds of the first look at the present progress."""

    def __init__(
        self,
        listener: FlowListener,
        sock: Socket,
        address: tuple[str, int],
        backends: tuple[Backend, ...],
    ) -> None:
        self.listener = listener
        self.route: Route = listener.route
        self.port = listener.port
        """As of the beginning: a frontend may change its owner while its flows live on."""
        self.client = address[0]
        self.address = address
        self.began = listener.context.reactor.now
        self.answered = self.quiet_since = 0.0
        self.client_sock = sock
        self.backends = backends
        """Those the client may reach."""
        self.backend: Backend | None = None
        """The one that is dialed or relayed to."""
        self.dialed = None
        self.sock: Socket | None = None
        """Towards the backend."""
        self.attempt = self.error = 0
        self.tried: tuple[Backend, ...] = ()
        """Backends not to dial next."""
        self.refused: tuple[Backend, ...] = ()
        """Backends not to dial again at all."""
        self.preserving = False
        """Whether backends are to see the client's address."""
        self.from_pod = False
        """Whether the client is a pod of this node, which backends are to see."""
        self.suspect: Backend | None = None
        """The backend that was silent towards the client's address, once there is one."""
        self.mover: Mover | None = None
        """Set while relaying."""
        self.progress = -1
        self.ended = False
        counters = self.port.counters
        counters.flows += 1
        counters.active += 1
        listener.flows.add(self)
        listener.context.capacity.tcp += 1

    def __repr__(self) -> str:
        state = "ended" if self.ended else "relaying" if self.mover else "dialing"
        return f"<Flow {self.client} to {self.route.owner} at {self.backend}, {state}>"

    def connected(self, mask: int) -> None:
        """The first event of the socket towards the backend."""
        assert self.sock is not None
        assert self.backend is not None
        if mask & _FAILED:
            self.listener.dialer.failed(self)
            return
        locality = self.listener.context.locality
        if self.backend[1] >= locality.lowest_local_port and locality.is_self_connected(
            self.sock, self.backend
        ):
            # By a reset: TIME_WAIT would keep the port from a server that wants it for a minute.
            self.sock.setsockopt(SOL_SOCKET, SO_LINGER, LINGER)
            self.listener.dialer.failed(self, errno.ECONNREFUSED)
            return
        self.relay(mask)

    def relay(self, mask: int) -> None:
        """The backend has answered: relay. A flow with something to send before the client's own
        bytes does so here. `mask`: events of the backend's socket so far."""
        sock = self.sock
        assert sock is not None
        listener = self.listener
        listener.dialer.succeeded(self)
        # Before the start: what has arrived meanwhile may end the flow, which closes the mover. Set
        # afterwards, the mover would keep the pipe of its splice.
        self.mover = mover = listener.movers.new(self, sock)
        try:
            mover.start(self.client_sock, sock, mask)
        except OSError:  # Out of memory, or over fs.epoll.max_user_watches.
            self.drop(DropReason.DESCRIPTORS)

    def detached(self, rest: Detached) -> None:
        """The mover has left the flow: go on by epoll."""
        assert self.sock is not None
        # Set before it takes over, as in `relay`.
        self.mover = mover = self.listener.movers.successor(self)
        try:
            mover.take_over(self.client_sock, self.sock, rest)
        except OSError:
            self.drop(DropReason.DESCRIPTORS)

    def replied(self, client_spoke: bool) -> None:
        handshakes = self.port.handshakes
        if not (client_spoke and handshakes.delayed):  # That is what most flows confirm.
            handshakes.learn(client_spoke)

    def masquerade(self) -> None:
        """Dial from the node's address from now on, and count it."""
        if self.preserving:
            self.preserving = False
            self.port.counters.masqueraded += 1

    def timed_out(self) -> None:
        """The attempt to dial has taken too long."""
        self.listener.dialer.timed_out(self)

    def retry(self) -> None:
        """Dial again, after an attempt for which this process lacked resources."""
        self.listener.dialer.dial(self)

    def finish(self) -> None:
        """Both streams ended and were delivered. Nothing is unread, so close() sends no RST; what
        is still in the kernel's send buffers goes out before the FIN."""
        mover, sock = self.mover, self.sock
        if self.ended or mover is None or sock is None:
            return
        # What `_let_go` does, in the same order, in a third of the calls: most flows end here.
        self.ended = True
        counters, tally = self.port.counters, self.tally
        from_client, from_backend = mover.from_client, mover.from_backend
        client_bytes, backend_bytes = from_client.total, from_backend.total  # Nothing is pending.
        count = client_bytes - from_client.reported
        counters.client_bytes += count
        tally.client_bytes += count
        count = backend_bytes - from_backend.reported
        counters.backend_bytes += count
        tally.backend_bytes += count
        listener = self.listener
        records, route = listener.context.records, self.route
        now = records.monotonic()
        number = records.number + 1
        if number < records.next_logged and now - self.began < LONG:
            # What is needed to make a record when it is wanted (decision 0021).
            records.number = number
            at = number % KEPT
            records.entries[at], records.owners[at] = route.frontend, route.owner
            records.backends[at] = self.dialed
            _PACK(
                records.completed, at * _SIZE, self.began, now, self.answered,
                client_bytes, backend_bytes, self.address[1], self.attempt,
                self.client.encode(),
            )  # fmt: skip
        else:
            from_client.reported, from_backend.reported = client_bytes, backend_bytes
            self._record(COMPLETE, "")
        tally.active -= 1
        counters.active -= 1
        mover.close()
        self.mover = None
        self.client_sock.close()
        sock.close()
        listener.flow_ended(self)

    def abort(self, broken: Socket | None = None, code: int | None = 0) -> None:
        """One of the sockets is broken (see Owner.abort), or a callback of the flow has raised."""
        if self.ended:
            return
        if broken is None:
            self._reset(Ender.PROXY, "error")
            return
        with suppress(OSError):
            code = code or broken.getsockopt(SOL_SOCKET, SO_ERROR)
        end = Ender.CLIENT if broken is self.client_sock else Ender.BACKEND
        self._reset(ender_of(end, code or 0), error_name(code) if code else "")

    def kill(self) -> None:
        """The listener is closed, and the flow has had the time that it was given."""
        self._reset(Ender.KILLED)

    def drop(self, reason: DropReason) -> None:
        """Reset both connections, and count why."""
        if not self.ended:
            self.port.counters.drop(reason)
            failed = reason is DropReason.DIAL_FAILED and self.error
            self._reset(ENDERS[reason], error_name(self.error) if failed else reason.value)

    def _reset(self, ender: Ender, reason: str = "") -> None:
        """Reset both connections. A FIN would tell both ends that they have received everything
        (end-in-place-of-a-reset)."""
        if not self.ended:
            self._let_go(ender + self._phase, reason)
            reset(self.client_sock)
            if self.sock is not None:
                reset(self.sock)
            self.listener.flow_ended(self)

    @property
    def _phase(self) -> Phase:
        mover = self.mover
        if mover is None:
            return Phase.CONNECTING
        half_closed = mover.from_client.eof or mover.from_backend.eof
        return Phase.LAST if half_closed else Phase.DATA

    def account(self) -> None:
        """Bring the byte counters of the port, and of its backend, up to date."""
        mover = self.mover
        if mover is not None:
            counters, tally = self.port.counters, self.tally
            count = mover.from_client.unreported()
            counters.client_bytes += count
            tally.client_bytes += count
            count = mover.from_backend.unreported()
            counters.backend_bytes += count
            tally.backend_bytes += count

    def _let_go(self, code: str, reason: str = "") -> None:
        """Let go of everything but the sockets. `code` and `reason`: see FlowRecord."""
        # In this order. Bytes whose fate is open count once the flow has ended, since it will never
        # be known. And a mover that is closed has forgotten what it had not delivered, which would
        # count as delivered.
        self.ended = True
        self.account()
        self._record(code, reason)
        if self.backend is not None:
            self.tally.active -= 1
        # Before the sockets are closed: what is registered or queued names them by number.
        if self.mover is not None:
            self.mover.close()
            self.mover = None
        else:
            if self.sock is not None:
                self.listener.context.reactor.discard(self.sock.fileno())
            self.listener.dialer.forget(self)
        self.port.counters.active -= 1

    def _record(self, code: str, reason: str) -> None:
        """Keep a record."""
        records, mover = self.listener.context.records, self.mover
        number = records.number = records.number + 1
        now = records.monotonic()
        client_bytes = backend_bytes = backend_rtt = backend_retransmits = 0
        if mover is not None:
            client_bytes, backend_bytes = mover.from_client.reported, mover.from_backend.reported
        client_rtt, client_retransmits = path_quality(self.client_sock)
        if self.answered and self.sock is not None:
            backend_rtt, backend_retransmits = path_quality(self.sock)
        route = self.route
        records.add(FlowRecord(
            number, self.began + records.clock_offset, now - self.began, self.client,
            self.address[1], route.frontend, route.owner, self.dialed, client_bytes, backend_bytes,
            (self.answered or now) - self.began, 0 if self.dialed is None else self.attempt + 1,
            code, reason, client_rtt, backend_rtt, client_retransmits, backend_retransmits,
        ))  # fmt: skip
