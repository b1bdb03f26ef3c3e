"""Whether what backends reply to pods' addresses comes back to this node.

Pods are shown to backends where the control process knows of nothing that prevents it. But a
network may drop what seems spoofed, or deliver replies to the pods directly: they go astray. That
shows only when a backend is silent, which a dead one is as well. So the backend is *probed*: it is
dialed over TCP from the pod's address and from the node's own, at the same time. If it answers the
node alone, backends of the Service port see the node's address from then on, and the control
process is told. A refusal is an answer, too, so UDP ports are probed in the same way.

Once a backend has answered a pod, its silence towards another pod means nothing for a while: a
NetworkPolicy may drop what that pod sends, and with the node's address it would get around that. So
the next probe is made from the address of the pod that was answered.
"""

from __future__ import annotations

import errno
import socket
import struct
from _socket import socket as Socket
from collections.abc import Callable
from functools import partial
from select import EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final

from uproxy.core.ip import Family
from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.client_address import PodPorts
from uproxy.dataplane.reactor import Reactor
from uproxy.net.messages import LocalClients

PATIENCE: Final = 1.25
"""Seconds that a probe takes at most. Within them, Linux sends a second SYN (after 1 s), so one
that is lost proves nothing. They are over before the last dial of a flow whose first dial has
timed out and has led to the probe."""

PAUSE: Final = 5.0
"""Seconds from one probe of a Service port to the next. Silence without a reason that a probe could
find, as that of a syslog server, may last for ever."""

_PROBES: Final = 32
"""Probes at a time. Each has two sockets."""

_WAITING: Final = 64
"""Flows that are told of the outcome of one probe. Others see it when their client sends again."""

_REMEMBERED: Final = 4096
"""Backends, and Service ports that were probed, of which it is remembered."""

_NEW: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_LINGER: Final = struct.pack("ii", 1, 0)
_EVENTS: Final = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET


class ReturnPaths:
    """What a worker knows about the way back to pods of this node."""

    def __init__(self, reactor: Reactor, pod_ports: PodPorts) -> None:
        self.astray: set[ServicePortName] = set()
        """Service ports whose backends must not see pods' addresses."""
        self._reactor = reactor
        self._pod_ports = pod_ports
        self._network: tuple[frozenset[Family], frozenset[str]] = (frozenset(), frozenset())
        """What the knowledge below depends on."""
        self._known: frozenset[ServicePortName] = frozenset()
        """The ones in `astray` that the control process knows of."""
        self._unreported: list[ServicePortName] = []
        self._answered: dict[str, str] = {}
        """Addresses of backends, each with the pod that it has answered last."""
        self._probes: dict[ServicePortName, Probe] = {}
        self._not_before: dict[ServicePortName, float] = {}
        """When the next probe of a Service port may begin."""

    def update(self, clients: LocalClients) -> None:
        """Take over what the control process says. Where the network has changed, what was known
        about it is worth nothing any more."""
        lifted = self._known.difference(clients.astray)
        self._known = frozenset(clients.astray)
        network = frozenset(clients.preserved), frozenset(clients.switched)
        if network != self._network:
            self._network = network
            lifted = frozenset(self.astray)
            self._answered.clear()
            self._not_before.clear()
            self.close()
        self.astray = (self.astray - lifted) | self._known
        self._unreported = [each for each in self._unreported if each in self.astray]
        for owner in lifted:
            self._not_before.pop(owner, None)

    def take_unreported(self) -> list[ServicePortName]:
        """The Service ports that have been found astray since the last call."""
        found, self._unreported = self._unreported, []
        return found

    def has_answered(self, backend: Backend) -> bool:
        """Whether replies of a backend to a pod have come back."""
        return backend.address in self._answered

    def answered(self, backend: Backend, pod: str) -> None:
        """A reply of a backend to a pod has come back."""
        if len(self._answered) >= _REMEMBERED:
            self._answered.clear()
        self._answered[backend.address] = pod

    def probe(
        self,
        owner: ServicePortName,
        backend: Backend,
        pod: str,
        if_astray: Callable[[], None] | None = None,
    ) -> None:
        """A backend of a Service port has been silent towards a pod: find out why, unless that was
        tried a moment ago. `if_astray` is called once replies are known to go astray."""
        now = self._reactor.now
        probe = self._probes.get(owner)
        if probe is None:
            if now < self._not_before.get(owner, now) or len(self._probes) >= _PROBES:
                return
            if len(self._not_before) >= _REMEMBERED:
                self._not_before.clear()
            self._not_before[owner] = now + PAUSE
            pod = self._answered.get(backend.address, pod)
            probe = Probe(self._reactor, backend, pod, partial(self._decided, owner))
            self._probes[owner] = probe
            try:
                probe.begin(self._pod_ports)
            except OSError:
                self._decided(owner, probe)
                return
        if if_astray is not None and len(probe.waiting) < _WAITING:
            probe.waiting.append(if_astray)

    def close(self) -> None:
        """End all probes."""
        for probe in self._probes.values():
            probe.close()
        self._probes.clear()

    def _decided(self, owner: ServicePortName, probe: Probe) -> None:
        del self._probes[owner]
        probe.close()
        if probe.pod_answered:
            self.answered(probe.backend, probe.pod)
        elif probe.node_answered:
            self._answered.pop(probe.backend.address, None)
            if owner not in self.astray:
                self.astray.add(owner)
                self._unreported.append(owner)
            for tell in probe.waiting:
                self._reactor.guard(tell)


class Probe:
    """Dials a backend from a pod's address and from the node's. It is over when the pod is
    answered, or else after PATIENCE."""

    def __init__(
        self, reactor: Reactor, backend: Backend, pod: str, decided: Callable[[Probe], None]
    ) -> None:
        self.backend = backend
        self.pod = pod
        self.pod_answered = False
        self.node_answered = False
        self.waiting: list[Callable[[], None]] = []
        self._reactor = reactor
        self._decided = decided
        self._sockets: list[Socket] = []
        self._timer = reactor.call_later(PATIENCE, self._is_over)

    def begin(self, pod_ports: PodPorts) -> None:
        """Dial. Raises OSError; then the outcome is open."""
        self._dial(pod_ports, self._for_pod)
        self._dial(None, self._for_node)

    def close(self) -> None:
        """Give up what is still open."""
        self._timer.cancel()
        while self._sockets:
            sock = self._sockets.pop()
            self._reactor.discard(sock.fileno())
            sock.close()

    def _dial(self, pod_ports: PodPorts | None, answered: Callable[[Socket, int], None]) -> None:
        address = self.backend.address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self._reactor.kernel.new_socket(family, _NEW)
        self._sockets.append(sock)
        # close(2) then resets the connection: a server should not take it for a client's.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        if pod_ports is not None and not pod_ports.bind_stream(sock, self.pod, address):
            raise OSError(errno.EADDRNOTAVAIL, "no socket with the address of the pod")
        code = sock.connect_ex(self.backend)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "cannot dial")
        self._reactor.await_writable(sock.fileno(), partial(answered, sock), _EVENTS)

    def _for_pod(self, sock: Socket, mask: int) -> None:
        if _has_answered(sock, mask):
            self.pod_answered = True
            self._is_over()
        else:
            self._hang_up(sock)

    def _for_node(self, sock: Socket, mask: int) -> None:
        if _has_answered(sock, mask):
            self.node_answered = True
        self._hang_up(sock)

    def _hang_up(self, sock: Socket) -> None:
        self._sockets.remove(sock)
        self._reactor.discard(sock.fileno())
        sock.close()

    def _is_over(self) -> None:
        self._decided(self)


def _has_answered(sock: Socket, mask: int) -> bool:
    """Whether it was the backend that has ended a dial, by accepting or refusing it."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    # A poll may fail as well, for lack of memory; then the socket has no error.
    return code == errno.ECONNREFUSED or not (code or mask & EPOLLERR)
