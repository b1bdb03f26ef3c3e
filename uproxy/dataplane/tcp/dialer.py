"""Connecting flows to backends, with retries at others."""

from __future__ import annotations

import asyncio
import errno
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SO_ERROR,
    SO_OOBINLINE,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_NODELAY,
    TCP_QUICKACK,
)
from _socket import socket as Socket
from collections import OrderedDict
from typing import Final

from uproxy.core.errors import RESOURCE_ERRORS, error_name
from uproxy.core.flows.counters import DropReason
from uproxy.core.route import Backend
from uproxy.dataplane.client_address import UNUSABLE_ERRORS, bind_to_client
from uproxy.dataplane.context import Context
from uproxy.dataplane.handshakes import has_window
from uproxy.dataplane.tcp.dialed_flow import DialedFlow
from uproxy.dataplane.tcp.epoll_events import EVENTS
from uproxy.dataplane.tcp.loops import LoopDetector
from uproxy.dataplane.tcp.shortage import Shortage

TIMEOUTS: Final = (0.25, 0.5, 1.0, 2.0)
"""Seconds that each attempt may take, as kube-proxy's userspace mode had them: quickly away from a
dead backend, and in the end patient enough for two lost SYNs (retransmitted after 1 s)."""

NON_BLOCKING: Final = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC

_IN_PROGRESS: Final = (errno.EINPROGRESS, 0)
_CLASHES: Final = 8
"""Ports of a pod that are tried for one attempt. That one is taken is found out by connect(2), so
each takes a socket of its own."""
_OUT_OF_PORTS: Final = (errno.EADDRNOTAVAIL, errno.EAGAIN)
"""All ephemeral ports towards one backend are taken (ip(7)): others may still be reached."""


class Dialer:
    """All flows of a worker that wait for a backend.

    There is no timer per flow. Attempts of the same number have the same timeout, so a queue for
    each is sorted by itself, and one timer of the loop serves them all.
    """

    def __init__(self, context: Context, shortage: Shortage) -> None:
        self._context = context
        self._reactor = reactor = context.reactor
        self._shortage = shortage
        self.loops = LoopDetector(reactor)
        self._monotonic = reactor.kernel.monotonic
        self._new_socket = reactor.kernel.new_socket
        self._queues = tuple(OrderedDict[DialedFlow, float]() for _ in TIMEOUTS)
        """Flows to the time when their attempt is over. They leave at the front: to find its first
        item, a plain dict steps over the places of all that were deleted there. (Measured, 20,000
        of 50,000 flows: 25 times as long.)"""
        self._timer: asyncio.TimerHandle | None = None

    def dial(self, flow: DialedFlow, backend: Backend | None = None, clashes: int = 0) -> None:
        """Begin the flow's next attempt; if none is possible, drop the flow. `backend`: which one
        to dial, instead of the balancer's choice. `clashes`: how many of the client's ports were
        found to be taken."""
        reactor, balancer = self._reactor, flow.port.balancer
        if backend is None:
            backend = balancer.pick(flow.route, flow.backends, flow.client, reactor.now, flow.tried)
        if backend is None:
            flow.drop(DropReason.DIAL_FAILED)
            return
        try:
            sock = self._new_socket(AF_INET6 if ":" in backend[0] else AF_INET, NON_BLOCKING, 0)
        except OSError as error:
            self._could_not_open(flow, backend, error.errno or 0)
            return
        # The flow has the socket from here on, and closes it whatever happens.
        flow.sock = sock
        # In this order: a flow that has a backend takes itself from its tally when it ends.
        flow.tally = balancer.begin(backend)
        flow.backend = flow.dialed = backend
        try:
            # Nagle's algorithm (tcp(7)) would keep a small message back until the backend has
            # acknowledged the one before. The client's socket has this option from its listener.
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            # Before an urgent byte can arrive. Without this option recv skips it, and an unread one
            # is lost when the next arrives: a byte of the stream would be missing. Accepted sockets
            # inherit the option from their listener.
            sock.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)
            flow.delayed = flow.port.handshakes.delayed
            if flow.delayed:
                sock.setsockopt(IPPROTO_TCP, TCP_QUICKACK, 0)
            # Before connect: the next proxy looks at the TTL of the handshake.
            if self.loops.to_inspect and not self.loops.pass_on(flow.client_sock, sock):
                flow.drop(DropReason.LOOP)
                return
            if flow.preserving:
                self._preserve(flow, backend)
            code = sock.connect_ex(backend)
            if code in _IN_PROGRESS:
                reactor.await_writable(sock.fileno(), flow.connected, EVENTS)
                # Only if that has not failed: then the flow waits for resources (shortage.py), and
                # the attempt, which is over, must not time out.
                self._wait(flow)
                return
        except OSError as error:
            code = error.errno or 0
        self._hang_up(flow)
        if code == errno.EADDRNOTAVAIL and clashes < _CLASHES and self._sees_pod(flow, backend):
            self.dial(flow, backend, clashes + 1)
        else:
            self._could_not_open(flow, backend, code)

    def succeeded(self, flow: DialedFlow) -> None:
        """The backend has answered."""
        attempt = flow.attempt
        # It must not time out any more: the backend gets the client's bytes now, and one that may
        # have got some is never replaced (dialed-again-while-relayed).
        until = self._queues[attempt].pop(flow)
        assert flow.backend is not None
        if flow.delayed and flow.sock is not None and not has_window(flow.sock):
            flow.port.handshakes.complete(flow.sock)
        flow.port.counters.dials += 1
        flow.answered = now = self._reactor.now
        flow.tally.connected(now - until + TIMEOUTS[attempt])
        flow.port.balancer.succeeded(flow.route, flow.backend, flow.client, now)
        if flow.preserving:
            self._answered(flow, flow.backend)

    def failed(self, flow: DialedFlow, code: int = 0) -> None:
        """The backend has refused, or cannot be reached: on to the next at once. `code`: the errno,
        if it is not that of the socket."""
        self._queues[flow.attempt].pop(flow, None)
        if not code and flow.sock is not None:
            code = flow.sock.getsockopt(SOL_SOCKET, SO_ERROR)
        backend = self._hang_up(flow)
        if backend is not None:
            flow.tried += (backend,)
            flow.refused += (backend,)
            self._blame(flow, backend, code or errno.ECONNRESET)
        self._next(flow)

    def timed_out(self, flow: DialedFlow) -> None:
        """The backend has not answered in time: on to the next."""
        backend = self._hang_up(flow)
        # Without a backend, the flow has waited for a free port.
        falls_back = flow.preserving and (backend is not None or not flow.from_pod)
        if flow.from_pod and backend is not None and self._sees_pod(flow, backend):
            paths = self._context.return_paths
            if paths.is_proven(flow.client, backend):
                paths.probe(flow.route.owner, backend, flow.client)
                falls_back = False
            elif not flow.attempt:
                # The same backend, from the node's address. So this flow is not the slower for it
                # if replies go astray, and loses no more than a quarter of a second if not.
                flow.suspect = backend
                self.dial(flow, backend)
                return
        if backend is not None:
            flow.tried += (backend,)
            self._blame(flow, backend, errno.ETIMEDOUT)
        if falls_back and (flow.attempt or not _untried(flow)):
            # The backend is dead, or its replies to the client's address do not come back to this
            # node. The next dial, from the node's own address, shows which.
            flow.masquerade()
        self._next(flow)

    def forget(self, flow: DialedFlow) -> None:
        """The flow has ended while it waited."""
        self._queues[flow.attempt].pop(flow, None)
        self._shortage.forget(flow)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, flow: DialedFlow) -> None:
        # Not the reactor's time: up to 2 ms of work may lie between the two, and this is what the
        # connect time counts from.
        self._queues[flow.attempt][flow] = self._monotonic() + TIMEOUTS[flow.attempt]
        if self._timer is None:
            self._timer = self._reactor.call_later(TIMEOUTS[0], self._expire)

    def _expire(self) -> None:
        # A worker that was held up blames no backend for it: both kinds of loop look at sockets
        # before they look at timers, so answers that have arrived meanwhile were seen by now.
        #
        # The timer is forgotten first: attempts that begin below set one only if there is none, and
        # would wait for ever if the queues were empty otherwise.
        self._timer = None
        now = self._reactor.now
        for queue in self._queues:
            while queue and next(iter(queue.values())) <= now:
                flow, _ = queue.popitem(last=False)
                self._reactor.guard(flow.timed_out)
        first = min((next(iter(queue.values())) for queue in self._queues if queue), default=None)
        if first is not None and self._timer is None:
            # Never later than the shortest timeout, so that no new attempt has to move it.
            delay = min(max(first - now, 0.001), TIMEOUTS[0])
            self._timer = self._reactor.call_later(delay, self._expire)

    def _preserve(self, flow: DialedFlow, backend: Backend) -> None:
        """Have the backend see the client's address. A backend on this node itself would reply to
        the client directly, from an address that the client has not connected to."""
        assert flow.sock is not None
        if flow.from_pod:
            self._preserve_pod(flow, flow.sock, backend)
        elif backend == flow.suspect:
            return
        elif self._context.locality.is_here(backend.address):
            flow.suspect = backend
        elif not bind_to_client(flow.sock, flow.client, backend.address):
            flow.masquerade()

    def _preserve_pod(self, flow: DialedFlow, sock: Socket, backend: Backend) -> None:
        context = self._context
        if not self._sees_pod(flow, backend):
            return
        if context.locality.is_past_us(flow.client, backend.address):
            flow.suspect = backend
        elif flow.route.owner in context.return_paths.astray:
            flow.masquerade()
        elif not context.pod_ports.bind_stream(sock, flow.client, backend.address):
            if not context.return_paths.may_masquerade(flow.client, backend):
                raise OSError(errno.EADDRNOTAVAIL, "no socket with the address of the pod")
            flow.masquerade()

    def _sees_pod(self, flow: DialedFlow, backend: Backend) -> bool:
        """Whether a backend is dialed from the address of the pod. It is not if it is that very
        pod, which would take the packets for its own (kube-proxy masquerades them as well), nor to
        find out whether it is alive."""
        return flow.preserving and backend.address != flow.client and backend != flow.suspect

    def _answered(self, flow: DialedFlow, backend: Backend) -> None:
        """A backend has answered a client that it was to see, or the node in its place."""
        context = self._context
        if backend == flow.suspect:
            flow.masquerade()
            if flow.from_pod and not context.locality.is_past_us(flow.client, backend.address):
                context.return_paths.probe(flow.route.owner, backend, flow.client)
        elif flow.from_pod and self._sees_pod(flow, backend):
            context.return_paths.answered(flow.route.owner, backend, flow.client)

    def _may_masquerade(self, flow: DialedFlow, backend: Backend) -> bool:
        """Whether a backend that was to see the client is dialed from the node's address instead,
        as the client's could not be used."""
        if not flow.preserving or backend == flow.suspect:
            return False
        return not flow.from_pod or self._context.return_paths.may_masquerade(flow.client, backend)

    def _could_not_open(self, flow: DialedFlow, backend: Backend, code: int) -> None:
        """The attempt has failed before it reached the network."""
        if code in RESOURCE_ERRORS:
            self._shortage.wait(flow)
            return
        if code in UNUSABLE_ERRORS and self._may_masquerade(flow, backend):
            # Or the backend is the reason: a dead pod's address may have no route any more. The
            # others are to see the client all the same.
            flow.suspect = backend
            self.dial(flow, backend)
            return
        flow.tried += (backend,)
        if code not in _OUT_OF_PORTS:
            flow.refused += (backend,)
            self._blame(flow, backend, code)
            self._next(flow)
            return
        flow.port.counters.dial_failures += 1
        flow.error = code
        flow.port.balancer.tally(backend).failed(error_name(code), self._reactor.now)
        if _untried(flow):
            self._next(flow)
        else:
            # The attempt lasts as long as any other. Ports may be free again by then, and the
            # backend, which has not refused, is dialed again.
            self._wait(flow)

    def _next(self, flow: DialedFlow) -> None:
        if not _untried(flow):
            flow.tried = flow.refused  # Backends that were only slow may be dialed again.
        if flow.attempt + 1 == len(TIMEOUTS) or not _untried(flow):
            flow.drop(DropReason.DIAL_FAILED)
            return
        flow.attempt += 1
        flow.port.counters.retries += 1
        balancer = flow.port.balancer
        backend = balancer.pick(
            flow.route, flow.backends, flow.client, self._reactor.now, flow.tried
        )
        if backend is not None:
            balancer.tally(backend).retries += 1
        self.dial(flow, backend)

    def _hang_up(self, flow: DialedFlow) -> Backend | None:
        """Close the socket of an attempt. Returns its backend; None if there was no socket."""
        sock, backend = flow.sock, flow.backend
        flow.sock = flow.backend = None
        if sock is not None:
            # Before the number can belong to another socket.
            self._reactor.discard(sock.fileno())
            sock.close()
        if backend is not None:
            flow.tally.active -= 1
        return backend

    def _blame(self, flow: DialedFlow, backend: Backend, code: int) -> None:
        flow.port.counters.dial_failures += 1
        flow.error = code
        now = self._reactor.now
        flow.port.balancer.failed(backend, flow.backends, now, error_name(code))


def _untried(flow: DialedFlow) -> bool:
    """Whether there is a backend to dial next."""
    return any(backend not in flow.tried for backend in flow.backends)
