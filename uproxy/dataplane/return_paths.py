"""Whether what backends reply to pods' addresses comes back to this node.

Pods are shown to backends where the control process knows of nothing that prevents it. But a
network may drop what seems spoofed, or deliver replies to the pods directly: they go astray. That
shows only when a backend is silent, which a dead one is as well. So the backend is *probed*: it is
dialed over TCP from the pod's address and from the node's own, at the same time. If it answers the
node alone, backends of the Service port see the node's address from then on, and the control
process is told. A refusal is an answer, too, so UDP ports are probed in the same way.

Once a backend has answered a pod, the silence of any backend on the same path means nothing by
itself: a NetworkPolicy may drop what another pod sends, and with the node's address that pod would
get around it. So what is probed from then on is the pair that has shown that the path works, its
*witness* (witnesses.py), and it counts only while its pod answers the node.
"""

from __future__ import annotations

import errno
import socket
import struct
from _socket import socket as Socket
from collections import OrderedDict
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from functools import partial
from select import EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final, NamedTuple

from uproxy.core.ip import Family
from uproxy.core.route import Backend, ServicePortName
from uproxy.dataplane.client_address import PodPorts
from uproxy.dataplane.locality import Locality
from uproxy.dataplane.reactor import Reactor
from uproxy.dataplane.witnesses import Witnesses
from uproxy.net.client_ports import PROBE_PORT
from uproxy.net.messages import Astray, LocalClients, Witness

PATIENCE: Final = 1.25
"""Seconds that a probe takes at most. Within them, Linux sends a second SYN (after 1 s), so one
that is lost proves nothing. They are over before the last dial of a flow whose first dial has
timed out and has led to the probe."""

HEAD_START: Final = 0.2
"""Seconds that the latest witness has before the others are dialed, too. As a rule it answers, and
the others are not disturbed. With PATIENCE, this is still less than a flow takes from the first
timeout to its last dial (1.5 s)."""

PAUSE: Final = 5.0
"""Seconds from one probe of a Service port to the next. Silence without a reason that a probe could
find, as that of a syslog server, may last for ever."""

_PROBES: Final = 32
"""Probes at a time. Each has three sockets for each witness of its path."""

_WAITING: Final = 64
"""Flows that are told of the outcome of one probe. Others see it when their client sends again."""

_ANSWERED: Final = 4096
"""Pairs of a backend and a pod of which it is remembered that the one has answered the other."""

_REMEMBERED: Final = 4096
"""Service ports of which it is remembered that they were probed."""

_NEW: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_LINGER: Final = struct.pack("ii", 1, 0)
_EVENTS: Final = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET


class News(NamedTuple):
    """What the control process has not been told yet; see Report."""

    astray: list[Astray]
    witnesses: list[Witness]
    lost: list[Witness]


class ReturnPaths:
    """What a worker knows about the way back to pods of this node."""

    def __init__(self, reactor: Reactor, pod_ports: PodPorts, locality: Locality) -> None:
        self.astray: set[ServicePortName] = set()
        """Service ports whose backends must not see pods' addresses."""
        self._reactor = reactor
        self._pod_ports = pod_ports
        self._locality = locality
        self._network: tuple[frozenset[Family], frozenset[str]] = (frozenset(), frozenset())
        """What the knowledge below depends on."""
        self._known: frozenset[ServicePortName] = frozenset()
        """The ones in `astray` that the control process knows of."""
        self._found: dict[ServicePortName, str] = {}
        """Those that it may not know of yet, with the path."""
        self._unreported: list[Astray] = []
        self._witnesses = Witnesses(locality)
        self._answered: OrderedDict[tuple[Backend, str], None] = OrderedDict()
        """Backends, each with a pod that it has answered, and not been silent to since. The latest
        is the last."""
        self._probes: dict[ServicePortName, Probe] = {}
        self._not_before: dict[ServicePortName, float] = {}
        """When the next probe of a Service port may begin."""

    def update(self, clients: LocalClients) -> None:
        """Take over what the control process says. Where the network has changed, what was known
        about it is worth nothing any more."""
        lifted = set(self._known.difference(clients.astray))
        self._known = frozenset(clients.astray)
        network = frozenset(clients.preserved), frozenset(clients.switched)
        if network != self._network:
            self._network = network
            lifted |= self.astray
            self._witnesses.clear()
            self._answered.clear()
            self._not_before.clear()
            self.close()
        for each in [each for each in self._answered if not self._locality.network_of(each[1])]:
            del self._answered[each]  # The pod is gone, and another one may get its address.
        proven = self._witnesses.update(clients)
        # They were found without a witness, so they may be the work of a NetworkPolicy.
        lifted.update(owner for owner, path in self._found.items() if path in proven)
        self._lift(lifted)
        self.astray |= self._known

    def take_news(self) -> News:
        """What has been found out since the last call."""
        found, self._unreported = self._unreported, []
        return News(found, *self._witnesses.take_news())

    def is_proven(self, pod: str, backend: Backend) -> bool:
        """Whether replies to pods are known to come back on the path between these two."""
        return self._witnesses.has_path(self._locality.path(pod, backend.address))

    def may_masquerade(self, pod: str, backend: Backend) -> bool:
        """Whether a backend may see the node's address because no socket can have the pod's. A pod
        can use up its ports on purpose, so where a NetworkPolicy holds, the backend must have
        answered it lately."""
        if (":" in pod) != (":" in backend.address):
            return True
        path = self._locality.path(pod, backend.address)
        return not self._witnesses.has_path(path) or (backend, pod) in self._answered

    def answered(self, owner: ServicePortName, backend: Backend, pod: str) -> None:
        """A reply of a backend to a pod has come back."""
        self._answered[backend, pod] = None
        self._answered.move_to_end((backend, pod))
        if len(self._answered) > _ANSWERED:
            self._answered.popitem(last=False)
        path = self._locality.path(pod, backend.address)
        if self._witnesses.add(path, owner, backend, pod) and self._found:
            self._lift({each for each, of in self._found.items() if of == path} - self._known)

    def retain(self, owner: ServicePortName, backends: Set[Backend]) -> None:
        """A Service port has only these backends now. The others may be gone, or replies of theirs
        no longer be brought up from their bridge, so they prove nothing."""
        self._witnesses.retain(owner, backends)

    def probe(
        self,
        owner: ServicePortName,
        backend: Backend,
        pod: str,
        if_astray: Callable[[], None] | None = None,
    ) -> None:
        """A backend of a Service port has been silent towards a pod: find out why, unless that was
        tried a moment ago. `if_astray` is called once replies are known to go astray."""
        self._answered.pop((backend, pod), None)
        now = self._reactor.now
        probe = self._probes.get(owner)
        if probe is None:
            if now < self._not_before.get(owner, now) or len(self._probes) >= _PROBES:
                return
            if len(self._not_before) >= _REMEMBERED:
                self._not_before.clear()
            self._not_before[owner] = now + PAUSE
            path = self._locality.path(pod, backend.address)
            caller = Witness(path, owner, backend, pod)
            pairs = self._witnesses.of(path) or [caller]
            probe = Probe(
                self._reactor, self._pod_ports, pairs, partial(self._decided, owner), caller
            )
            self._probes[owner] = probe
            try:
                probe.begin()
            except OSError:
                del self._probes[owner]
                probe.close()
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
        path = probe.pairs[0].path
        if probe.pod_answered is not None:
            self.answered(*probe.pod_answered[1:])
        # Whatever was dialed and has not answered its pod is of no use any more: the backend is
        # dead, a policy has changed, or replies do not come back.
        for pair in probe.silent:
            self._witnesses.lose(pair)
        # There may be another witness, which has answered meanwhile.
        if probe.is_broken and not self._witnesses.has_path(path):
            if owner not in self.astray:
                self.astray.add(owner)
                self._found[owner] = path
                self._unreported.append(Astray(owner, path))
            for tell in probe.waiting:
                self._reactor.guard(tell)

    def _lift(self, owners: Set[ServicePortName]) -> None:
        self.astray -= owners
        self._unreported = [each for each in self._unreported if each.port not in owners]
        for owner in owners:
            self._found.pop(owner, None)
            self._not_before.pop(owner, None)


class Probe:
    """Dials backends, each from a pod's address and from the node's. It is over when a pod is
    answered, or else after PATIENCE."""

    def __init__(
        self,
        reactor: Reactor,
        pod_ports: PodPorts,
        pairs: Sequence[Witness],
        decided: Callable[[Probe], None],
        caller: Witness,
    ) -> None:
        """`pairs`: what to dial; all others only if the first one is silent. `caller`: the pair
        whose silence is the reason, of which the pod is alive."""
        self.pairs = pairs
        self.pod_answered: Witness | None = None
        self.silent: list[Witness] = []
        """Those that were dialed, but for the one that has answered."""
        self._caller = caller
        self._backend_answered: set[Witness] = set()
        """Those whose backend has answered the node."""
        self._is_alive: set[Witness] = {caller}
        """Those whose pod has answered the node."""
        self.waiting: list[Callable[[], None]] = []
        self._reactor = reactor
        self._pod_ports = pod_ports
        self._decided = decided
        self._sockets: list[Socket] = []
        self._timer = reactor.call_later(
            HEAD_START if len(pairs) > 1 else PATIENCE,
            self._dial_others if len(pairs) > 1 else self._is_over,
        )

    @property
    def is_broken(self) -> bool:
        """Whether a backend that is alive has been silent towards a pod that is alive. If the pod
        is gone, that means nothing: on its bridge, its address belongs to no interface any more,
        and a NetworkPolicy may no longer let it in."""
        return any(each in self._backend_answered & self._is_alive for each in self.silent)

    def begin(self) -> None:
        """Dial. Raises OSError; then the outcome is open."""
        try:
            self._dial_pair(self.pairs[0])
        except OSError:
            if len(self.pairs) == 1:
                raise

    def close(self) -> None:
        """Give up what is still open."""
        self._timer.cancel()
        while self._sockets:
            sock = self._sockets.pop()
            self._reactor.discard(sock.fileno())
            sock.close()

    def _dial_others(self) -> None:
        self._timer = self._reactor.call_later(PATIENCE, self._is_over)
        for pair in self.pairs[1:]:
            with suppress(OSError):
                self._dial_pair(pair)

    def _dial_pair(self, pair: Witness) -> None:
        to, note = pair.backend, self._note
        self._dial(to, partial(self._for_pod, pair), pair.pod)
        self._dial(to, partial(note, self._backend_answered, pair))
        if pair != self._caller:
            with suppress(OSError):
                self._dial(Backend(pair.pod, PROBE_PORT), partial(note, self._is_alive, pair))
        self.silent.append(pair)

    def _dial(self, to: Backend, answered: Callable[[Socket, int], None], pod: str = "") -> None:
        """Dial from the address of a pod, or else from the node's. Raises OSError."""
        address = to.address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = self._reactor.kernel.new_socket(family, _NEW)
        self._sockets.append(sock)
        # close(2) then resets the connection: a server should not take it for a client's.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        if pod and not self._pod_ports.bind_stream(sock, pod, address):
            raise OSError(errno.EADDRNOTAVAIL, "no socket with the address of the pod")
        code = sock.connect_ex(to)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "cannot dial")
        self._reactor.await_writable(sock.fileno(), partial(answered, sock), _EVENTS)

    def _for_pod(self, pair: Witness, sock: Socket, mask: int) -> None:
        if _has_answered(sock, mask):
            self.pod_answered = pair
            if pair in self.silent:  # Or there was no descriptor for the rest of its sockets.
                self.silent.remove(pair)
            self._is_over()
        else:
            self._hang_up(sock)

    def _note(self, answered: set[Witness], pair: Witness, sock: Socket, mask: int) -> None:
        if _has_answered(sock, mask):
            answered.add(pair)
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
