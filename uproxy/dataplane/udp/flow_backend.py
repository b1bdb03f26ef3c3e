"""The backend half of a UDP flow: which backend it is, and the socket that is connected to it."""

from __future__ import annotations

import errno
from _socket import socket as Socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Protocol

from uproxy.core.errors import RESOURCE_ERRORS, error_name
from uproxy.core.flows.backend_counts import BackendTally
from uproxy.core.flows.counters import DropReason
from uproxy.core.route import Backend, Route
from uproxy.dataplane.context import Context
from uproxy.dataplane.ports import Port
from uproxy.dataplane.udp.backend_socket import (
    connect,
    connect_as,
    connect_as_pod,
    family_of,
    reach,
)
from uproxy.dataplane.udp.flows import UdpFlows
from uproxy.dataplane.udp.idle_sockets import IdleSocket
from uproxy.dataplane.udp.keys import Address

ATTEMPTS = 4
"""Backends that a flow tries before it gives up, as for TCP."""

SILENCE = 1.0
"""Seconds that a backend may take to reply to a pod before it is probed (return_paths.py)."""


def _shortage(error: OSError) -> DropReason | None:
    """What this machine was short of, if that is why a flow got no socket. connect(2) of a UDP
    socket fails with EAGAIN if no port is free; it never waits for anything."""
    if error.errno == errno.EAGAIN:
        return DropReason.PORTS
    return DropReason.DESCRIPTORS if error.errno in RESOURCE_ERRORS else None


class Reaching(Protocol):
    """What is needed of a listener to reach a backend."""

    context: Context
    all_flows: UdpFlows
    """Those of all listeners of the worker."""
    route: Route
    """The present one. A flow asks it for another backend when one refuses."""
    port: Port
    preserves_outside: bool
    """Whether backends are to see the addresses of clients that are outside."""
    preserves_pods: bool
    """Whether backends are to see the addresses of pods of this node."""


class FlowBackend(ABC):
    """One backend at a time, and the next one if it cannot be reached."""

    __slots__ = ("_client", "_doubts_from", "_listener", "_masqueraded", "_port", "_preserving",
                 "_reactor", "_receive", "_send", "_sock", "_taken", "_tally", "_tried", "attempts",
                 "backend", "backend_bytes", "backend_datagrams", "client_bytes",
                 "client_datagrams", "counters", "dialed", "error", "number", "total_backend_bytes",
                 "total_client_bytes")  # fmt: skip

    backend: Backend
    _listener: Reaching
    _receive: IdleSocket
    """That of our socket."""
    _sock: Socket | None
    _send: Callable[[bytes | memoryview], int]
    _tally: BackendTally
    """Of the present backend."""

    def __init__(self, listener: Reaching, client: Address) -> None:
        self._listener = listener
        self._client = client
        self._port = listener.port
        self._reactor = listener.context.reactor
        self._sock = None
        self._taken: IdleSocket | None = None
        """One that another flow has left, until it is ours."""
        self._preserving = listener.preserves_outside or listener.preserves_pods
        """Whether the backend is to see the client's address, if it is one of those."""
        self._masqueraded = False
        """Whether it was counted that a backend has not seen the client's address."""
        self._doubts_from = inf
        """When the silence of a backend that sees a pod's address begins to mean that its replies
        may have gone astray."""
        self._tried: list[Backend] = []
        """Backends that failed since the last reply."""
        self.counters = listener.port.counters
        self.client_bytes = self.client_datagrams = 0
        """Relayed since the last `account`, as are those of the backend. It may be negative: the
        ring takes back what the kernel has refused."""
        self.backend_bytes = self.backend_datagrams = 0
        self.total_client_bytes = self.total_backend_bytes = 0
        """Those before."""
        self.dialed: Backend | None = None
        """The one that was tried last."""
        self.attempts = 0
        """How often a backend was connected to."""
        self.error = 0
        """The errno of the last attempt that has failed."""
        self.number = 0
        """The number that the table of the worker knows the flow by; 0 until it is admitted."""

    def source(self) -> tuple[str, int]:
        """Address and port of the socket towards the backend; "" and 0 without one."""
        return ("", 0) if self._sock is None else self._sock.getsockname()[:2]

    def account(self) -> None:
        """Add what was relayed to the counters of the port, and of the present backend."""
        counters, tally = self.counters, self._tally
        counters.client_bytes += self.client_bytes
        counters.client_datagrams += self.client_datagrams
        counters.backend_bytes += self.backend_bytes
        counters.backend_datagrams += self.backend_datagrams
        tally.client_bytes += self.client_bytes
        tally.backend_bytes += self.backend_bytes
        self.total_client_bytes += self.client_bytes
        self.total_backend_bytes += self.backend_bytes
        self.client_bytes = self.client_datagrams = 0
        self.backend_bytes = self.backend_datagrams = 0

    @abstractmethod
    def _start_receiving(self, sock: Socket) -> None:
        """Pass on what a backend replies from now on. Raises OSError."""

    @abstractmethod
    def _may_be_idle(self) -> bool:
        """Whether another flow may go on with the socket, and with its receive."""

    @abstractmethod
    def _stop_receiving(self, sock: Socket) -> None:
        """Receive nothing more, before the socket is closed."""

    def _leave_idle(self) -> bool:
        """Leave the socket to another flow, if it can be kept for one. One that has the client's
        address is bound to it, and where descriptors have run out, each is needed at once
        (test_udp_answers_newcomers_without_a_free_descriptor)."""
        listener = self._listener
        if self._preserving or listener.context.capacity.is_short or not self._may_be_idle():
            return False
        return listener.all_flows.idle.keep(self._receive, self._reactor.now)

    def _blame(self, backend: Backend, code: int) -> None:
        self._tried.append(backend)
        self.error = code
        self.counters.dial_failures += 1
        backends = self._usable()
        self._port.balancer.failed(backend, backends, self._reactor.now, error_name(code))

    def _connect(self) -> DropReason | None:
        """Connect to a backend. Returns why that is impossible, which was counted; None: it is
        connected."""
        freed = False
        while len(self._tried) < ATTEMPTS:
            backend = self._pick()
            if backend is None:
                break
            if self._tried:
                self.counters.retries += 1
                self._port.balancer.tally(backend).retries += 1
            try:
                self._connect_to(backend)
            except OSError as error:
                if reason := _shortage(error):
                    if not freed and self._make_way(error):
                        freed = True
                        continue
                    if freed and reason is DropReason.PORTS:
                        self._listener.all_flows.freed_in_vain()
                    self.counters.drop(reason)
                    return reason
                self._blame(backend, error.errno or 0)
            else:
                self._tally.flows += 1
                return None
        reason = self._why_no_backend()
        self.counters.drop(reason)
        return reason

    def _why_no_backend(self) -> DropReason:
        if self._listener.all_flows.loops.found:
            return DropReason.LOOP
        return DropReason.DIAL_FAILED if self._tried else DropReason.NO_BACKEND

    def _make_way(self, error: OSError) -> bool:
        """Whether a new flow can have the descriptor or the port of another one, which ends for it.
        A descriptor only where this process has no more (EMFILE): if the whole machine has none,
        another process would take it first. A flow that moves ends no other one, because it has
        just given back both its descriptor and its port."""
        if self.number:
            return False
        all_flows = self._listener.all_flows
        if error.errno == errno.EAGAIN:
            return all_flows.free_ports()
        return error.errno == errno.EMFILE and all_flows.free_descriptor()

    def _pick(self) -> Backend | None:
        context, route, ip = self._listener.context, self._listener.route, self._client[0]
        backends = context.locality.backends_for(route, ip)
        tried = self._tried
        if self._listener.all_flows.loops.found:
            tried = [*tried, *self._listener.all_flows.loops.avoided()]
        return self._port.balancer.pick(route, backends, ip, context.reactor.now, tried)

    def _usable(self) -> tuple[Backend, ...]:
        """The backends that the client may reach now."""
        listener = self._listener
        return listener.context.locality.backends_for(listener.route, self._client[0])

    def _connect_to(self, backend: Backend) -> None:
        context = self._listener.context
        self.attempts += 1
        self.dialed = backend
        sock = self._socket_towards(backend)
        # First of all: if epoll takes no more, there is nothing to take back but the socket.
        try:
            self._start_receiving(sock)
        except BaseException:
            sock.close()
            raise
        self._sock, self._send = sock, sock.send
        self.backend = backend
        balancer = self._port.balancer
        self._tally = balancer.begin(backend)
        # Without waiting for a reply, which some protocols do not have
        # (test_affinity_of_a_client_that_gets_no_reply).
        balancer.pin(self._listener.route, backend, self._client[0], context.reactor.now)

    def _socket_towards(self, backend: Backend) -> Socket:
        """A socket that is connected to it, with the client's address if that is wanted and can be
        had, or else with the node's. Raises OSError."""
        if not self._preserving or not self._is_to_see(backend):
            return self._connected(backend)
        sock = self._preserving_socket(backend)
        if sock is None:
            sock = self._connected(backend)
            # Only now: had the backend been the reason, this would have failed as well. Another
            # one may see the client all the same.
            self._count_masqueraded()
        return sock

    def _connected(self, backend: Backend) -> Socket:
        """One with the node's address. Raises OSError."""
        listener = self._listener
        idle = listener.all_flows.idle.take(family_of(backend), self._reactor.now)
        if idle is None:
            return connect(backend, listener.context)
        try:
            reach(idle.sock, backend, listener.context)
        except BaseException:
            idle.stop()
            raise
        self._taken = idle
        return idle.sock

    def _is_to_see(self, backend: Backend) -> bool:
        """Whether a backend is to see the address of the client."""
        listener, client = self._listener, self._client[0]
        locality = listener.context.locality
        if locality.is_outside(listener.route, client):
            return listener.preserves_outside
        # Not the pod itself, which would take the packets for its own: kube-proxy masquerades them.
        return (
            listener.preserves_pods and locality.is_pod_here(client) and client != backend.address
        )

    def _preserving_socket(self, backend: Backend) -> Socket | None:
        """One with the client's address, if it can be had. Raises OSError."""
        listener, client = self._listener, self._client[0]
        context = listener.context
        if context.locality.is_outside(listener.route, client):
            return connect_as(client, backend, context)
        if listener.route.owner in context.return_paths.astray:
            return None
        sock = connect_as_pod(client, backend, context)
        if sock is not None:
            self._doubts_from = self._reactor.now + SILENCE
        return sock

    def _masquerade(self) -> None:
        """Use the node's address from now on, and count it."""
        self._preserving = False
        self._count_masqueraded()

    def _count_masqueraded(self) -> None:
        if not self._masqueraded:
            self._masqueraded = True
            self.counters.masqueraded += 1

    def _disconnect(self, *, moving: bool = False) -> None:
        """Let go of the backend. `moving`: to connect to another one, for which there may be no
        descriptor but ours, so it must not be idle."""
        if self._sock is not None:
            if moving or not self._leave_idle():
                # Before the close: what is queued for the ring, or registered, names the socket by
                # its number, which another one may get at once (udp-closed-without-a-submit).
                self._stop_receiving(self._sock)
                self._sock.close()
            self._sock = None
            self._doubts_from = inf
            # What is counted from here on belongs to the next backend.
            self.account()
            self._tally.active -= 1
